"""Applications and a broker over HTTP: what is sent arrives once, what ends is told, and a bad link is no harm."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Batch, Delivery, Outcome, Poll, Queue, Settlement, Verdict
from backwater_tornado.tasks import asks, current
from backwater_tornado.tasks.messages import read_arguments, read_headers
from backwater_tornado.tasks.outcomes import failed, progressed, succeeded
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
    DROP,
    DUPLICATE,
    PASS,
    TRUNCATE_REQUEST,
    BadNetwork,
    Mix,
    RunningBroker,
    Script,
    running_broker,
)


@backwater.expose
def add(x: int, y: int) -> int:
    return x + y


NAME = f"{__name__}.add"


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_default", [])


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with running_broker() as running:
        yield running


@pytest.fixture
def app(broker: RunningBroker) -> Iterator[backwater.App]:
    made = backwater.App(broker.url, broker.secret)
    yield made
    made.close()


class Hand:
    """A worker that does what it is told."""

    def __init__(self, broker: RunningBroker, session: str = "hand") -> None:
        self.app = backwater.App(broker.url, broker.secret, default=False)
        self.session = session
        self.confirmed = 0
        self.app.ask(asks.open_session(session, 60.0))

    def take(self, count: int = 1, queue: str = "default") -> list[Delivery]:
        """So many deliveries, as soon as they are there."""
        found: list[Delivery] = []
        while len(found) < count:
            poll = Poll(((queue, count - len(found)),), count - len(found), self.confirmed)
            batch: Batch = self.app.ask(asks.receive(self.session, poll, 5.0))
            self.confirmed = batch.number
            found += batch.deliveries
        return found

    def say(self, delivery: Delivery, outcome: Outcome, verdict: Verdict = Verdict.ACK) -> None:
        self.app.ask(asks.settle(self.session, [Settlement(delivery.token, verdict, outcome)]))

    def run(self, count: int = 1) -> None:
        """As many tasks as told, which all add."""
        for delivery in self.take(count):
            args, kwargs = read_arguments(delivery.message)
            self.say(delivery, succeeded(add(*args, **kwargs)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.app.close()


@pytest.fixture
def hand(broker: RunningBroker) -> Iterator[Hand]:
    with Hand(broker) as made:
        yield made


def waiting(app: backwater.App, queue: str = "default") -> int:
    """Messages in a queue."""
    return sum(each.ready for each in app.ask(asks.stats([queue])))


# Sending and results -------------------------------------------------------------------------------------------------


def test_a_task_is_sent_run_and_its_result_got(app: backwater.App, hand: Hand) -> None:
    result = add.delay(1, y=2)
    (delivery,) = hand.take()
    assert (delivery.message.id, read_headers(delivery.message).task) == (result.id, NAME)
    assert result.state == "PENDING"
    hand.say(delivery, progressed("half"), Verdict.KEEP)
    assert (result.state, result.progress, app.result(result.id).info) == ("PROGRESS", "half", "half")
    hand.say(delivery, succeeded(3))
    assert (result.get(timeout=5), result.state, app.result(result.id).get(timeout=0)) == (3, "SUCCESS", 3)
    result.forget()
    assert result.state == "PENDING"


def test_get_wakes_when_the_task_ends(app: backwater.App, hand: Hand) -> None:
    results = [add.delay(number, number) for number in range(4)]
    with ThreadPoolExecutor() as pool:
        got = [pool.submit(each.get, 20) for each in results]
        hand.run(4)
        assert [each.result(20) for each in got] == [0, 2, 4, 6]


def test_a_failure_comes_with_its_remote_traceback(app: backwater.App, hand: Hand) -> None:
    result = add.delay(1, 2)
    try:
        add(1, None)  # type: ignore[arg-type]
    except TypeError as error:
        hand.say(hand.take()[0], failed(error))
    with pytest.raises(backwater.RemoteError, match="unsupported operand") as caught:
        result.get(timeout=5)
    assert "return x + y" in str(caught.value.__notes__)
    assert "return x + y" in (result.traceback or "")
    own = backwater.App(app.endpoints, app.secret, default=False, rethrow_remote_exceptions=True)
    with own, pytest.raises(TypeError):
        own.result(result.id).get(timeout=5)


def test_a_task_is_revoked_wherever_it_is(app: backwater.App, hand: Hand) -> None:
    waits, runs = add.delay(1, 2), add.delay(3, 4)
    running = next(each for each in hand.take(2) if each.message.id == runs.id)
    app.revoke(waits.id, runs.id)
    batch: Batch = hand.app.ask(asks.receive("hand", Poll((("default", 1),), 1, hand.confirmed), 5.0))
    assert running.token in batch.cancelled
    later = app.send(add.s(5, 6).set(countdown=3600))
    later.revoke()
    with pytest.raises(backwater.TaskRevoked):
        later.get(timeout=5)
    assert later.state == "REVOKED"


def test_very_many_are_revoked_and_forgotten(app: backwater.App) -> None:
    results = app.send_many(add.s(number, 0) for number in range(1_200))
    app.revoke(*(each.id for each in results))
    assert results[-1].state == results[0].state == "REVOKED"
    assert waiting(app) == 0


def test_a_group_and_a_chain_are_sent_and_their_results_got(app: backwater.App, hand: Hand) -> None:
    together = backwater.group(add.s(1, 1), add.s(2, 2))()
    hand.run(2)
    assert together.get(timeout=5) == [2, 4]
    assert [each.get() for each in together.as_completed(timeout=5)] == [2, 4]
    last = (add.s(1, 1) | add.s(5))()
    hand.run(1)
    assert last.parent.get(timeout=5) == 2
    (delivery,) = hand.take()
    assert read_headers(delivery.message).inputs == last.parent.id
    hand.say(delivery, succeeded(7))
    assert last.get(timeout=5) == 7


def test_polls_wait_no_longer_than_the_way_allows(broker: RunningBroker, app: backwater.App) -> None:
    async def poll() -> list[Any]:
        async with backwater.AsyncApp(broker.url, broker.secret) as other:
            allow_only(other, 0.05)
            return await other.ask(asks.results(["nobodys"], 6.0))

    def allow_only(one: Any, seconds: float) -> None:
        (target,) = one._client._session.targets
        for now in (time.monotonic() - 10.0, time.monotonic()):
            target.patience.note_death(now - 2.0, 6.0, now)
        target.patience.limit = seconds

    allow_only(app, 0.05)
    began = time.monotonic()
    assert app.ask(asks.results(["nobodys"], 6.0)) == asyncio.run(poll()) == [None]
    assert time.monotonic() - began < 4.0
    assert app._client.endpoints()[0]["longest_wait"] == 0.05


def test_ten_thousand_are_sent_in_portions_and_arrive_in_order(app: backwater.App, hand: Hand) -> None:
    results = app.send_many(add.s(number, 0) for number in range(10_000))
    assert app._client.counters()["requests"] < 10
    assert len({each.id for each in results}) == waiting(app) == 10_000
    assert [each.message.id for each in hand.take(500)] == [each.id for each in results[:500]]


def test_a_task_is_sent_by_its_name(app: backwater.App, hand: Hand) -> None:
    result = app.send_task("elsewhere.f", [1], {"y": 2}, queue="far", priority=3)
    (delivery,) = hand.take(queue="far")
    assert (read_headers(delivery.message).task, delivery.message.priority) == ("elsewhere.f", 3)
    assert (read_arguments(delivery.message), delivery.message.id) == (([1], {"y": 2}), result.id)


# Refused -------------------------------------------------------------------------------------------------------------


def test_what_the_broker_does_not_take_is_told_by_its_reason(app: backwater.App) -> None:
    add.apply_async([1, 2], unique="key")
    with pytest.raises(backwater.TaskNotAccepted, match="unique_key_held"):
        add.apply_async([1, 2], unique="key")
    app.ask(asks.declare(queues=[Queue("small", max_length=1)]))
    add.apply_async([1, 2], queue="small")
    with pytest.raises(backwater.TaskNotAccepted, match="queue_full") as caught:
        app.send_many([add.s(1, 1), add.s(1, 2).set(queue="small", task_id="no"), add.s(1, 3)])
    assert caught.value.extra["refused"] == {"no": "queue_full"}
    assert waiting(app) == 3


def test_the_same_task_twice_is_one_and_another_of_its_id_is_refused(app: backwater.App, hand: Hand) -> None:
    first = add.apply_async([1, 2], task_id="own")
    assert add.apply_async([1, 2], task_id="own") == first
    with pytest.raises(backwater.TaskNotAccepted, match="id_of_another_message"):
        add.apply_async([3, 4], task_id="own")
    hand.run(1)
    assert (first.get(timeout=5), waiting(app)) == (3, 0)


def test_a_key_sends_only_where_it_may() -> None:
    key = backwater.Key(b"a secret of the producers only", "producer", scopes=backwater.Scopes(publish=("mail.*",)))
    with running_broker(secret=[key]) as broker, backwater.App(broker.url, key) as app:
        app.send(add.s(1, 2).set(queue="mail.out"))
        with pytest.raises(backwater.QueueNotInScope, match="'default'"):
            app.send(add.s(1, 2))
        with pytest.raises(backwater.QueueNotInScope):  # of what follows, too
            app.send(add.s(1, 2).set(queue="mail.out") | add.s(3))


def test_a_body_beyond_the_limit_is_told_and_nothing_is_sent(app: backwater.App) -> None:
    with pytest.raises(backwater.BodyTooLarge, match="max_encoded_args_size is 8388608"):
        app.send(backwater.signature("m.f", [os.urandom(9 << 20)]))
    too_large = backwater.signature("m.f", [os.urandom(5 << 20)])
    for canvas in (too_large, add.s(1, 2) | too_large, add.s(1, 2).link(too_large)):
        with pytest.raises(backwater.MessageTooLarge):  # nobody could be given it, later
            app.send(canvas)
    add.delay(1, 2)
    assert waiting(app) == 1


def test_a_wrong_secret_is_told_at_once(broker: RunningBroker) -> None:
    with backwater.App(broker.url, b"another secret than the broker's") as app:
        with pytest.raises(backwater.ResponseUnsigned, match="unknown_key"):
            app.send(add.s(1, 2))
        with pytest.raises(backwater.ResponseUnsigned, match="unknown_key"):
            app.result("x").get()


# Threads, processes, loops -------------------------------------------------------------------------------------------


def test_an_application_is_used_by_many_threads(app: backwater.App) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: add.delay(number, number), range(80)))
    assert len({each.id for each in results}) == waiting(app) == 80


def test_an_application_is_used_on_both_sides_of_a_fork(app: backwater.App, hand: Hand) -> None:
    add.delay(1, 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            add.delay(2, 2)
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    add.delay(3, 3)
    taken = hand.take(3)
    assert [read_arguments(each.message)[0] for each in taken] == [[1, 1], [2, 2], [3, 3]]
    assert len({each.message.id for each in taken}) == 3


def test_blocking_results_are_awaited_on_a_loop(app: backwater.App, hand: Hand) -> None:
    async def main() -> list[int]:
        results = [add.delay(number, 1) for number in range(3)]
        running = asyncio.get_running_loop().run_in_executor(None, hand.run, 3)
        found = await asyncio.gather(*results)
        await running
        return list(found)

    assert asyncio.run(main()) == [1, 2, 3]
    assert asyncio.run(main()) == [1, 2, 3]  # on another loop


def test_an_awaitable_application_does_the_same(broker: RunningBroker, hand: Hand) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with backwater.AsyncApp(broker.url, broker.secret) as app:
            result = await app.send(add.s(1, 2))
            assert await result.state() == "PENDING"
            running = loop.run_in_executor(None, hand.run, 1)
            assert await result == await app.result(result.id).get(timeout=5) == 3
            await running
            together = await app.send(backwater.group(add.s(1, 1), add.s(2, 2)))
            running = loop.run_in_executor(None, hand.run, 2)
            assert {await each async for each in together.as_completed(timeout=10)} == {2, 4}
            await running
            several = await app.send_many(add.s(number, 0) for number in range(3_000))
            assert len(several) == 3_000
            late = await app.send_task(NAME, [1, 2], countdown=60)
            await app.revoke(late.id)
            with pytest.raises(backwater.TaskRevoked):
                await late
            with pytest.raises(backwater.TaskNotAccepted):
                await app.send_many([add.s(1, 1).set(unique="k"), add.s(1, 2).set(unique="k")])

    asyncio.run(main())


# Bad links -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def through(broker: RunningBroker) -> Iterator[Callable[..., tuple[backwater.App, BadNetwork]]]:
    """Makes an application whose way to the broker is a proxy with these faults."""
    opened: list[Any] = []

    def make(policy: Any, **options: Any) -> tuple[backwater.App, BadNetwork]:
        proxy = BadNetwork("127.0.0.1", broker.port, policy).__enter__()
        app = backwater.App(f"http://127.0.0.1:{proxy.port}", broker.secret, **{"recv_timeout": 0.5, **options})
        opened.extend([app, proxy])
        return app, proxy

    yield make
    for app, proxy in zip(opened[::2], opened[1::2], strict=True):
        app.close()
        proxy.__exit__(None, None, None)


@pytest.mark.parametrize(
    "fault", [CUT_BEFORE_REQUEST, CUT_AFTER_REQUEST, CUT_MID_RESPONSE, DUPLICATE, TRUNCATE_REQUEST, DROP],
    ids=lambda fault: fault.kind.value,
)  # fmt: skip
def test_what_is_sent_over_a_bad_link_arrives_once(fault: Any, through: Any, hand: Hand, app: backwater.App) -> None:
    far, _ = through(Script([fault, fault]))
    far.send(add.s(1, 2))
    hand.take()
    assert waiting(app) == 0


def test_results_are_waited_for_over_a_link_that_does_harm_at_random(through: Any, hand: Hand) -> None:
    harm = {CUT_BEFORE_REQUEST: 1, CUT_AFTER_REQUEST: 1, CUT_MID_RESPONSE: 1, TRUNCATE_REQUEST: 1, PASS: 4}
    far, proxy = through(Mix(7, harm))
    results = far.send_many(add.s(number, 1) for number in range(8))
    hand.run(8)
    assert [each.get() for each in results] == list(range(1, 9))
    assert len(set(proxy.faults())) > 1


def test_a_broker_that_answers_nothing_is_given_up_in_time(through: Any) -> None:
    far, proxy = through(Script([], afterwards=DROP), send_timeout=1.0)
    with pytest.raises(backwater.CallFailed) as caught:
        far.send(add.s(1, 2))
    assert isinstance(caught.value, backwater.DeadlineExceeded | backwater.OutcomeUnknown)
    assert len(proxy.seen) >= 1
    with pytest.raises(backwater.DeadlineExceeded, match="could not be asked in time"):
        far.result("x").get(timeout=0.1)


def test_a_broker_that_is_not_there_is_told(broker: RunningBroker) -> None:
    broker.stop()
    with backwater.App(broker.url, broker.secret, send_timeout=0.5) as app:
        with pytest.raises(backwater.Unreachable):
            app.send(add.s(1, 2))
        with pytest.raises(backwater.DeadlineExceeded, match="could not be asked in time"):
            app.result("x").get(timeout=0.1)


def test_waiting_goes_on_over_a_restart_of_the_broker(tmp_path: Path) -> None:
    store, secret = f"sqlite:{tmp_path}/broker.db", b"a secret over the restart"
    got: list[int] = []
    with BadNetwork("127.0.0.1", 1, Script([])) as proxy:
        with running_broker(store, secret) as first, backwater.App(first.url, secret) as near:
            proxy.upstream = ("127.0.0.1", first.port)
            result = near.send(add.s(1, 2))
            far = backwater.App(f"http://127.0.0.1:{proxy.port}", secret, default=False, recv_timeout=1.0)
            asking = threading.Thread(target=lambda: got.append(far.result(result.id).get(timeout=40)))
            asking.start()
            proxy.wait_for(1)
        proxy.wait_for(len(proxy.seen) + 1)  # it is asked while nobody is there
        with running_broker(store, secret) as second, Hand(second) as hand:
            proxy.upstream = ("127.0.0.1", second.port)
            hand.run(1)
            asking.join(45)
        far.close()
    assert got == [3]
