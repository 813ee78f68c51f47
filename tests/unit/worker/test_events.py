from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from backwater_tornado.broker.values import (
    Binding,
    Delivery,
    Message,
    Outcome,
    Publication,
    Published,
    PublishState,
    Queue,
    Settlement,
    Verdict,
    unpack,
)
from backwater_tornado.errors import Unreachable
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.events import EXCHANGE, MAX_ERROR, WorkerEvent, read_event
from backwater_tornado.tasks.outcomes import failed, progressed, revoked, succeeded
from backwater_tornado.tasks.states import State
from backwater_tornado.worker.events import MOST, MOST_WAITING, Events, event_of
from backwater_tornado.worker.holding import Held
from backwater_tornado.worker.jobs import End, Ending
from tests.unit.worker.bench import Bench, HandPool, working

T = TypeVar("T")


class Broker:
    """A link that takes events as soon as it is told to go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.taken: list[list[Publication]] = []
        self.go = asyncio.Semaphore(0)
        self.state = PublishState.UNROUTED
        self.down = False

    async def ask(self, ask: Ask[T]) -> T:
        self.asked.append(ask.verb)
        if self.down:
            raise Unreachable("the link is cut")
        if ask.verb == "declare":
            return None  # type: ignore[return-value]
        given = unpack(ask.args[0], list[Publication])
        self.taken.append(given)
        await self.go.acquire()
        return [Published(self.state) for _ in given]  # type: ignore[return-value]

    async def until_taken(self, times: int) -> None:
        while len(self.taken) < times:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)


def telling(test: Callable[[Broker, Events], Awaitable[None]]) -> None:
    async def main() -> None:
        broker = Broker()
        told = Events(broker, lambda: "me", pause=0.0)
        running = asyncio.ensure_future(told.run())
        async with asyncio.timeout(20):
            await test(broker, told)
        running.cancel()

    asyncio.run(main())


def read(publications: list[Publication]) -> list[WorkerEvent]:
    return [event for each in publications if (event := read_event(each.message.body)) is not None]


def test_what_comes_while_a_request_is_on_its_way_goes_with_the_next() -> None:
    async def test(broker: Broker, told: Events) -> None:
        for number in range(2):
            told.tell("heartbeat", id=str(number))
        await broker.until_taken(1)
        for number in range(2, 5 + MOST):
            told.tell("heartbeat", id=str(number))
        for _ in range(3):
            broker.go.release()
        await told.empty()
        assert [len(each) for each in broker.taken] == [2, MOST, 3]
        assert broker.asked == ["declare", *["publish"] * 3]
        sent = [each for taken in broker.taken for each in taken]
        assert [each.id for each in read(sent)] == [str(number) for number in range(5 + MOST)]
        assert len({each.message.id for each in sent}) == len(sent)

    telling(test)


def test_of_too_many_the_oldest_are_dropped_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def test(broker: Broker, told: Events) -> None:
        told.tell("heartbeat", id="first")
        await broker.until_taken(1)
        for number in range(MOST_WAITING + 3):
            told.tell("heartbeat", id=str(number))
        for _ in range(1 + MOST_WAITING // MOST):
            broker.go.release()
        await told.empty()
        sent = [each.id for each in read([each for taken in broker.taken for each in taken])]
        assert sent == ["first", *(str(number) for number in range(3, MOST_WAITING + 3))]
        assert caplog.text.count("events are dropped") == 1
        assert caplog.text.count("3 events were dropped") == 1

    telling(test)


def test_a_link_that_is_cut_drops_them_and_is_not_asked_again_for_them(caplog: pytest.LogCaptureFixture) -> None:
    async def test(broker: Broker, told: Events) -> None:
        broker.down = True
        for _ in range(2):
            told.tell("online")
            await told.empty()
        assert broker.asked == ["declare", "declare"]
        broker.down = False
        told.tell("heartbeat")
        broker.go.release()
        await told.empty()
        assert [each.event for each in read(broker.taken[0])] == ["heartbeat"]
        assert caplog.text.count("events are dropped: Unreachable") == 1
        assert caplog.text.count("2 events were dropped") == 1

    telling(test)


def test_a_broker_that_has_forgotten_the_exchange_is_told_of_it_again() -> None:
    async def test(broker: Broker, told: Events) -> None:
        broker.go = asyncio.Semaphore(10)
        for state in (PublishState.REFUSED, PublishState.UNROUTED, PublishState.UNROUTED):
            broker.state = state
            told.tell("heartbeat")
            await told.empty()
        assert broker.asked == ["declare", "publish", "declare", "publish", "publish"]

    telling(test)


@pytest.mark.parametrize(
    ("settlement", "event"),
    [
        (Settlement(1, outcome=succeeded(1)), "succeeded"),
        (Settlement(1, outcome=failed(ValueError())), "failed"),
        (Settlement(1, outcome=Outcome("of a newer worker")), "failed"),
        (Settlement(1, outcome=revoked()), "revoked"),
        (Settlement(1, Verdict.REQUEUE, failed(ValueError(), State.RETRY)), "retried"),
        (Settlement(1, Verdict.REQUEUE), "returned"),
        (Settlement(1, Verdict.RETURN), "returned"),
        (Settlement(1, Verdict.REJECT, failed(ValueError())), "rejected"),
        (Settlement(1, Verdict.PARK), "parked"),
    ],
)
def test_every_end_has_its_event(settlement: Settlement, event: str) -> None:
    assert event_of(settlement) == event


def test_an_event_that_cannot_be_told_is_logged_and_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    def breaks() -> str:
        raise RuntimeError("as told")

    async def main() -> None:
        told = Events(Broker(), breaks)
        held = Held(Delivery(1, "default", Message("a", b""), "", "default", 1, 0.0))
        told.note("started", held)
        told.note_end(held, Settlement(1))

    asyncio.run(main())
    assert caplog.text.count("could not be told") == 2


def test_an_error_is_cut_and_has_a_form_in_json() -> None:
    async def test(broker: Broker, told: Events) -> None:
        held = Held(Delivery(1, "default", Message("a", b""), "", "default", 1, 0.0))
        told.note_end(held, Settlement(1, Verdict.REJECT, reason="\ud800" + "x" * 10 * MAX_ERROR))
        broker.go.release()
        await told.empty()
        (event,) = read(broker.taken[0])
        assert event.error == "?" + "x" * (MAX_ERROR - 1)

    telling(test)


# With a worker -------------------------------------------------------------------------------------------------------


async def listen(bench: Bench) -> None:
    await bench.broker.declare([EXCHANGE], [Queue("events")], [Binding(EXCHANGE.name, "events", "task.#")])


async def told(bench: Bench, count: int) -> list[WorkerEvent]:
    """So many events, in their order."""
    await bench.until_counts(count, 0, 0, 0, queue="events")
    return read([Publication(each.message, "") for each in await bench.take("events")])


def test_the_life_of_tasks_is_told_in_its_order() -> None:
    async def test(bench: Bench) -> None:
        await listen(bench)
        bench.start()
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        bench.pool.tell("a", progressed(1))
        retry = Ending(End.RETRY, failed(ValueError("not yet"), State.RETRY), delay=1000.0)
        bench.pool.end("a", retry)
        await bench.send("fail", id="b")
        await bench.pool.until_begun("b")
        bench.pool.end("b")
        await bench.send("nothing", id="c")
        found = await told(bench, 9)
        assert [(each.id, each.event) for each in found] == [
            ("a", "received"),
            ("a", "started"),
            ("a", "progressed"),
            ("a", "retried"),
            ("b", "received"),
            ("b", "started"),
            ("b", "failed"),
            ("c", "received"),
            ("c", "parked"),
        ]
        retried, failing, parked = found[3], found[6], found[8]
        assert (retried.task, retried.queue, retried.delay, retried.error) == (
            "t.add",
            "default",
            1000.0,
            "ValueError: not yet",
        )
        assert failing.error == "ValueError: as told"
        assert failing.seconds is not None
        assert (parked.task, parked.error, parked.seconds) == ("", "unknown_task: t.nothing", None)
        assert {each.worker for each in found} == {bench.worker.consumer.session}

    working(test, lambda: HandPool(by_hand=True), start=False, events=True)


def test_a_lease_that_is_lost_is_told() -> None:
    async def test(bench: Bench) -> None:
        await listen(bench)
        bench.start()
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        bench.lose_session()
        await bench.take(session="third")
        bench.worker.consumer.overtake()
        found = await told(bench, 3)
        assert [each.event for each in found][:3] == ["received", "started", "lost"]

    working(test, lambda: HandPool(by_hand=True), start=False, events=True)


def test_the_worker_tells_of_itself() -> None:
    async def test(bench: Bench) -> None:
        await bench.broker.declare([EXCHANGE], [Queue("events")], [Binding(EXCHANGE.name, "events", "worker.#")])
        bench.start()
        await bench.until_counts(1, 0, 0, 0, queue="events")
        await bench.stop()
        assert [each.event for each in await told(bench, 2)] == ["online", "offline"]

    working(test, start=False, events=True)


def test_nothing_is_told_unless_it_is_asked_for() -> None:
    async def test(bench: Bench) -> None:
        assert await bench.value(await bench.send("add", 1)) == 1
        assert bench.link.count("publish") == 0

    working(test)


def test_a_link_that_loses_events_loses_no_task() -> None:
    async def test(bench: Bench) -> None:
        bench.link.faults["publish"] = ["before", "after"] * 50
        ids = [await bench.send("add", number) for number in range(20)]
        assert [await bench.value(each) for each in ids] == list(range(20))

    working(test, events=True)
