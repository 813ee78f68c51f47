"""The broker in this process: polls that wait, who wakes whom, and who may what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from backwater_tornado.broker import receivers
from backwater_tornado.broker.broker import BEATS, Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct, Grouped
from backwater_tornado.broker.receivers import UNKNOWN_TTL
from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.store import Store
from backwater_tornado.broker.values import (
    Batch,
    Delivery,
    Join,
    Message,
    Outcome,
    Poll,
    Publication,
    PublishState,
    Queue,
    Settlement,
    SettleState,
    Verdict,
)
from backwater_tornado.context import CURRENT, CallContext
from backwater_tornado.errors import QueueNotInScope, SessionGone, StorageFailed, UnknownQueue
from backwater_tornado.protocol.keys import Scopes

T = TypeVar("T")
WANT = Poll((("jobs", 10),), 10)
#: Longer than any test: what waits so long waits for an event.
LONG = 40.0


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Failing(Direct):
    """A medium that fails as long as it is told to."""

    failing = False

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.failed = asyncio.Event()

    async def perform(self, operation: Callable[[Store], T]) -> T:
        if self.failing:
            self.failed.set()
            raise StorageFailed
        return await super().perform(operation)


def brokering(
    test: Callable[[Broker, Clock], Awaitable[None]],
    scopes: Callable[[str], Scopes] | None = None,
    caller: str | None = None,
) -> None:
    async def main() -> None:
        if caller is not None:
            as_caller(caller)
        clock = Clock()
        broker = Broker(Direct(MemoryStore()), scopes, clock)
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w")
        async with asyncio.timeout(20):
            await test(broker, clock)
        await broker.close()

    asyncio.run(main())


def job(id: str, queue: str = "jobs", **more: object) -> Publication:
    return Publication(Message(id, b"body", **more), queue)  # type: ignore[arg-type]


def ids(batch: Batch) -> list[str]:
    return [delivery.message.id for delivery in batch.deliveries]


async def begun(broker: Broker, poll: Poll = WANT, session: str = "w", wait: float = LONG) -> asyncio.Task[Batch]:
    """A poll that has found nothing and waits."""
    task = asyncio.create_task(broker.receive(session, poll, wait))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def one(broker: Broker, id: str = "a", **more: object) -> Delivery:
    await broker.publish([job(id, **more)])
    (delivery,) = (await broker.receive("w", WANT)).deliveries
    return delivery


# Polls ---------------------------------------------------------------------------------------------------------------


def test_others_are_shown_what_a_session_says_of_itself() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.open_session("other", 10.0, b"one")
        await broker.show("other", b"two")
        await broker.show("nobody", b"three")
        assert {each.session: each.about for each in await broker.sessions()} == {"w": b"", "other": b"two"}
        clock.now += 11
        await broker.sweep()
        await broker.show("other", b"four")
        with pytest.raises(SessionGone):
            await broker.receive("other", WANT)

    brokering(test)


def test_a_session_that_was_gone_claims_what_it_had() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        first = await one(broker)
        await broker.close_session("w")
        assert await broker.open_session("other", claim=[first.token]) == []
        assert await broker.open_session("w") == []
        assert await broker.open_session("w", claim=[first.token, 7]) == [first.token]
        assert await broker.settle("w", [Settlement(first.token)]) == [SettleState.DONE]

    brokering(test)


def test_what_is_there_is_given_at_once_and_nothing_without_waiting() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        assert ids(await broker.receive("w", WANT)) == []
        (published,) = await broker.publish([job("a")])
        assert published.state is PublishState.ACCEPTED
        assert ids(await broker.receive("w", WANT, LONG)) == ["a"]

    brokering(test)


def test_a_publication_wakes_a_poll_of_its_queue_and_no_other() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([], [Queue("others")], [])
        await broker.open_session("other")
        other = await begun(broker, Poll((("others", 1),), 1), "other")
        waiting = await begun(broker)
        await broker.publish([job("a")])
        assert ids(await waiting) == ["a"]
        assert not other.done()
        other.cancel()

    brokering(test)


def test_a_message_that_goes_back_wakes_a_poll() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        held = await one(broker)
        await broker.open_session("other")
        waiting = await begun(broker, session="other")
        assert await broker.settle("w", [Settlement(held.token, Verdict.REQUEUE)]) == [SettleState.DONE]
        assert ids(await waiting) == ["a"]

    brokering(test)


def test_closing_a_session_wakes_others_with_what_it_held() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await one(broker)
        await broker.open_session("other")
        waiting = await begun(broker, session="other")
        await broker.close_session("w")
        assert ids(await waiting) == ["a"]

    brokering(test)


def test_the_next_poll_of_a_session_supersedes_the_one_before_it() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        first = await begun(broker)
        second = await begun(broker)
        assert ids(await first) == []
        await broker.publish([job("a")])
        assert ids(await second) == ["a"]

    brokering(test)


def test_a_lost_answer_is_given_again_and_a_confirmed_one_is_not() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.publish([job("a")])
        lost = await broker.receive("w", WANT)
        again = await broker.receive("w", WANT)
        assert again == lost
        held = tuple(delivery.token for delivery in lost.deliveries)
        confirming = await begun(broker, Poll(WANT.wants, 10, lost.number, held))
        await broker.publish([job("b")])
        assert ids(await confirming) == ["b"]

    brokering(test)


def test_cancelling_wakes_the_session_that_runs_it() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        held = await one(broker)
        holding = Poll(WANT.wants, 10, held.token, (held.token,))
        waiting = await begun(broker, holding)
        await broker.cancel(["a"], Outcome("REVOKED"))
        assert (await waiting).cancelled == (held.token,)
        # That is known now: it ends no further poll, but every one says it.
        again = await begun(broker, holding)
        await broker.publish([job("b")])
        batch = await again
        assert (ids(batch), batch.cancelled) == (["b"], (held.token,))

    brokering(test)


def test_a_waiting_poll_keeps_its_session_alive() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.open_session("brief", ttl=0.06)
        held = (await broker.publish([job("a")]), await broker.receive("brief", WANT))[1]
        waiting = await begun(broker, Poll((), 0, held.number, (held.deliveries[0].token,)), "brief")
        for _ in range(4):
            # Each look of the poll is told the time; it looks thrice within the time to live.
            clock.now += 0.05
            await asyncio.sleep(0.05)
            await broker.performer.perform(lambda store: store.sweep(clock.now))
        assert not waiting.done()
        waiting.cancel()
        assert await broker.settle("brief", [Settlement(held.deliveries[0].token)]) == [SettleState.DONE]

    brokering(test)


def test_a_session_of_before_the_start_is_kept_alive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert UNKNOWN_TTL / BEATS <= 1.0
    monkeypatch.setattr(receivers, "UNKNOWN_TTL", 0.06)

    async def test(broker: Broker, clock: Clock) -> None:
        await broker.open_session("brief", ttl=0.06)
        restarted = Broker(broker.performer, None, clock)
        waiting = await begun(restarted, session="brief")
        for _ in range(4):
            clock.now += 0.05
            await asyncio.sleep(0.05)
            await broker.performer.perform(lambda store: store.sweep(clock.now))
        assert not waiting.done()
        waiting.cancel()
        assert await restarted.settle("brief", []) == []

    brokering(test)


def test_a_session_that_is_gone_is_told_so() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        with pytest.raises(SessionGone):
            await broker.receive("nobody", WANT)
        clock.now += 31
        await broker.performer.perform(lambda store: store.sweep(clock.now))
        with pytest.raises(SessionGone):
            await broker.receive("w", WANT)
        assert broker.receivers._known == {}

    brokering(test)


def test_a_poll_that_was_given_up_leaves_nothing_behind() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        for _ in range(3):
            waiting = await begun(broker)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            results = asyncio.create_task(broker.results(["a"], LONG))
            await asyncio.sleep(0)
            results.cancel()
            await asyncio.gather(results, return_exceptions=True)
        waiters = broker.waiters
        assert (waiters._by_queue, waiters._by_result, waiters._polls) == ({}, {}, {})

    brokering(test)


def test_no_poll_takes_more_than_a_batch_may_hold() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.publish([job(str(number)) for number in range(1100)])
        batch = await broker.receive("w", Poll((("jobs", 5000),), 5000))
        assert len(batch.deliveries) == 1000

    brokering(test)


# What time brings ----------------------------------------------------------------------------------------------------


def test_what_is_due_wakes_a_poll() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        broker.start()
        await broker.publish([job("a", not_before=clock.now + 10)])
        waiting = await begun(broker)
        clock.now += 11
        assert ids(await waiting) == ["a"]

    brokering(test)


def test_a_medium_that_fails_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        clock = Clock()
        performer = Failing(MemoryStore())
        broker = Broker(performer, clock=clock)
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w", 1000)
        await broker.publish([job("a", not_before=clock.now + 100)])
        waiting = await begun(broker)
        performer.failing = True
        broker.start()
        async with asyncio.timeout(20):
            await performer.failed.wait()
            performer.failing = False
            clock.now += 101
            assert ids(await waiting) == ["a"]
        await broker.close()

    asyncio.run(main())
    assert "tried again" in caplog.text


# Results -------------------------------------------------------------------------------------------------------------


def test_a_result_wakes_whoever_waits_for_it() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        held = await one(broker, keep_result=60.0)
        waiting = asyncio.create_task(broker.results(["a", "b"], LONG))
        await asyncio.sleep(0)
        await broker.settle("w", [Settlement(held.token, Verdict.KEEP, Outcome("PROGRESS", b"1"))])
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        await broker.settle("w", [Settlement(held.token, Verdict.ACK, Outcome("SUCCESS", b"2"))])
        first, second = await waiting
        assert first is not None
        assert (first.outcome.body, first.final, second) == (b"2", True, None)
        await broker.forget(["a"])
        assert await broker.results(["a"]) == [None]

    brokering(test)


# The dead, and looking -----------------------------------------------------------------------------------------------


def test_the_dead_are_listed_replayed_and_dropped() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        for name in ("a", "b"):
            held = await one(broker, name)
            await broker.settle("w", [Settlement(held.token, Verdict.REJECT, reason="no")])
        first, second = await broker.dead_letters()
        assert (first.message.id, first.detail, second.message.id) == ("a", "no", "b")
        assert await broker.dead_letters(after=first.number) == [second]
        assert await broker.dead_letters("others") == []
        waiting = await begun(broker)
        assert await broker.replay([first.number]) == 1
        assert ids(await waiting) == ["a"]
        assert await broker.drop([second.number, 99]) == 1
        assert await broker.dead_letters() == []

    brokering(test)


def test_queues_are_counted_purged_and_deleted() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.publish([job("a"), job("b")])
        (stats,) = await broker.stats(["jobs"])
        assert (stats.ready, stats.published) == (2, 2)
        assert await broker.purge("jobs") == 2
        with pytest.raises(UnknownQueue):
            await broker.purge("nothing")
        await broker.publish([job("c")])
        assert await broker.delete([], ["jobs"], []) == 1
        assert await broker.stats() == []

    brokering(test)


# On disk -------------------------------------------------------------------------------------------------------------


def test_on_disk_what_was_answered_is_there_after_a_restart(tmp_path: Path) -> None:
    async def publishing() -> None:
        broker = Broker(Grouped(SqliteStore(tmp_path / "broker.db")))
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w")
        waiting = await begun(broker)
        answers = await asyncio.gather(*(broker.publish([job(str(number))]) for number in range(50)))
        assert {each.state for (each,) in answers} == {PublishState.ACCEPTED}
        assert ids(await waiting)[0] == "0"
        with pytest.raises(UnknownQueue):
            await broker.purge("nothing")
        await broker.close()
        with pytest.raises(StorageFailed):
            await broker.publish([job("late")])

    async def receiving() -> None:
        broker = Broker(Grouped(SqliteStore(tmp_path / "broker.db")))
        batch = await broker.receive("w", Poll((("jobs", 100),), 100))
        again = await broker.receive("w", Poll((("jobs", 100),), 100, batch.number, ()))
        assert sorted(ids(again), key=int) == [str(number) for number in range(50)]
        await broker.close()

    asyncio.run(publishing())
    asyncio.run(receiving())


# Who may what --------------------------------------------------------------------------------------------------------


def as_caller(key_id: str) -> None:
    """Whatever follows in this task is called with that key."""
    CURRENT.set(CallContext(key_id, "", "broker", ""))


SCOPES = {
    "producer": Scopes(publish=("jobs",), consume=()),
    "worker": Scopes(publish=("free",), consume=("jobs", "reply.*")),
    "other": Scopes(),
}


VERBS = (
    "publish",
    "join",
    "join otherwise",
    "settle",
    "receive",
    "declare",
    "purge",
    "delete",
    "dead",
    "dead of one",
)
#: What only who may receive may do.
RECEIVING = VERBS[4:]


@pytest.mark.parametrize("verb", VERBS)
def test_a_key_does_only_what_its_scopes_allow(verb: str) -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        as_caller("producer")
        assert [each.state for each in await broker.publish([job("a")])] == [PublishState.ACCEPTED]
        as_caller("worker")
        await broker.open_session("w")
        (held,) = (await broker.receive("w", WANT)).deliveries
        as_caller("producer" if verb in RECEIVING else "worker")
        attempts: dict[str, Callable[[], Awaitable[object]]] = {
            "publish": lambda: broker.publish([job("b")]),
            "join": lambda: broker.publish([], [Join("j", 1, (job("b", "free"), job("c")))]),
            "join otherwise": lambda: broker.publish(
                [], [Join("j", 1, (job("b", "free"),), (job("b", "free"), job("c")))]
            ),
            "settle": lambda: broker.settle("w", [Settlement(held.token, then=(job("c"),))]),
            "receive": lambda: broker.receive("w", WANT),
            "declare": lambda: broker.declare([], [Queue("more")], []),
            "purge": lambda: broker.purge("jobs"),
            "delete": lambda: broker.delete([], ["jobs"], []),
            "dead": lambda: broker.dead_letters(),
            "dead of one": lambda: broker.dead_letters("jobs"),
        }
        with pytest.raises(QueueNotInScope):
            await attempts[verb]()
        as_caller("worker")
        (stats,) = await broker.stats(["jobs"])
        assert (stats.leased, stats.ready) == (1, 0)

    brokering(test, SCOPES.__getitem__, "other")


def test_the_dead_of_all_queues_are_for_those_who_may_receive_from_all() -> None:
    """And not for a pattern that fits the star itself."""

    async def test(broker: Broker, clock: Clock) -> None:
        assert await broker.dead_letters() == []
        as_caller("short")
        with pytest.raises(QueueNotInScope):
            await broker.dead_letters()

    scopes = {"other": Scopes(), "short": Scopes(consume=("?", "[*]"))}
    brokering(test, scopes.__getitem__, "other")


def test_nobody_uses_the_session_of_another_key() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        held = await one(broker)
        as_caller("other")
        with pytest.raises(SessionGone):
            await broker.receive("w", WANT)
        with pytest.raises(SessionGone):
            await broker.settle("w", [Settlement(held.token)])
        await broker.open_session("w")
        assert await broker.settle("w", [Settlement(held.token)]) == [SettleState.STALE]
        await broker.close_session("w")
        as_caller("first")
        assert await broker.settle("w", [Settlement(held.token)]) == [SettleState.DONE]

    brokering(test, caller="first")


def test_an_exclusive_queue_is_its_sessions_alone() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([], [Queue("reply", exclusive="w")], [])
        await broker.publish([job("a", "reply")])
        poll = Poll((("reply", 1),), 1)
        await broker.open_session("other")
        assert ids(await broker.receive("other", poll)) == []
        assert ids(await broker.receive("w", poll)) == ["a"]
        await broker.close_session("w")
        assert [each.queue.name for each in await broker.stats()] == ["jobs"]

    brokering(test)


def test_results_of_others_come_along_and_nobody_waits_for_them() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.publish([job(name, keep_result=60.0) for name in ("a", "b", "c")])
        tokens = [each.token for each in (await broker.receive("w", WANT)).deliveries]
        waiting = asyncio.create_task(broker.results(["a"], LONG, ["c", "b", "none"]))
        await asyncio.sleep(0)
        await broker.settle("w", [Settlement(tokens[1], Verdict.ACK, Outcome("SUCCESS", b"2"))])
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        await broker.settle("w", [Settlement(tokens[0], Verdict.ACK, Outcome("SUCCESS", b"1"))])
        assert [None if each is None else each.id for each in await waiting] == ["a", None, "b", None]

    brokering(test)


# The end -------------------------------------------------------------------------------------------------------------


def test_closing_sends_every_poll_home() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        broker.start()
        polling = await begun(broker)
        waiting = asyncio.create_task(broker.results(["a"], LONG))
        await asyncio.sleep(0)
        broker.drain()
        assert ids(await polling) == []
        assert await waiting == [None]
        assert ids(await broker.receive("w", WANT, LONG)) == []

    brokering(test)


class Counting(Direct):
    """A medium that counts what it was asked."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked = 0
        self.thrice = asyncio.Event()

    async def perform(self, operation: Callable[[Store], T]) -> T:
        self.asked += 1
        if self.asked == 3:
            self.thrice.set()
        return await super().perform(operation)


async def started(store: Store, clock: Callable[[], float] = time.time) -> Broker:
    """A broker that has looked once at what time has brought."""
    counting = Counting(store)
    broker = Broker(counting, clock=clock)
    broker.start()
    await counting.thrice.wait()  # for sessions, for what is due, for when there is more
    return broker


def test_a_broker_that_was_away_takes_nothing_from_those_it_could_not_hear() -> None:
    async def test() -> None:
        clock, store = Clock(), MemoryStore()
        before = Broker(Direct(store), clock=clock)
        await before.declare([], [Queue("jobs")], [])
        await before.open_session("w", 30.0)
        delivery = await one(before)
        clock.now += 10_000
        after = await started(store, clock)
        assert await after.settle("w", [Settlement(delivery.token)]) == [SettleState.DONE]
        await after.close()

    asyncio.run(test())


@pytest.mark.parametrize("how", ["publish", "settle", "then"])
def test_what_is_to_happen_soon_is_not_slept_through(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwater_tornado.broker.broker.SWEEP_PERIOD", LONG)

    async def test() -> None:
        broker = await started(MemoryStore())
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w", LONG)
        soon = msgspec.structs.replace(job("soon"), delay=0.01)
        confirmed = 0
        if how == "publish":
            await broker.publish([soon])
        else:
            delivery = await one(broker, "soon" if how == "settle" else "first")
            verdict = Verdict.REQUEUE if how == "settle" else Verdict.ACK
            then = () if how == "settle" else (soon,)
            await broker.settle("w", [Settlement(delivery.token, verdict, delay=0.01, then=then)])
            confirmed = delivery.token
        batch = await broker.receive("w", Poll(WANT.wants, 10, confirmed), LONG)
        assert ids(batch) == ["soon"]
        await broker.close()

    asyncio.run(test())
