"""What is done to a broker beside publishing and receiving: pausing, the schedule, and looking; and who may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.values import (
    Batch,
    Binding,
    Entry,
    Exchange,
    Join,
    Lease,
    Outcome,
    Poll,
    Published,
    PublishState,
    Queue,
    QueueRates,
    Receiver,
    Settlement,
    SettleState,
    SiteCounts,
    Verdict,
    pack,
    unpack,
)
from backwater_tornado.errors import MalformedBatch, QueueNotInScope, UnknownQueue
from backwater_tornado.protocol.keys import Scopes
from tests.unit.broker.test_broker import WANT, Clock, as_caller, begun, brokering, ids, job, one

# Packed --------------------------------------------------------------------------------------------------------------


def test_messages_travel_packed_both_ways() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        join = Join("j", 1, (job("after"),))
        answer = await broker.publish(pack([job("a", joins=("j",))]), pack([join]))
        assert isinstance(answer, bytes)
        (published,) = unpack(answer, list[Published])
        assert published.state is PublishState.ACCEPTED
        packed = await broker.receive("w", WANT, packed=True)
        assert isinstance(packed, bytes)
        (delivery,) = unpack(packed, Batch).deliveries
        assert await broker.settle("w", pack([Settlement(delivery.token)])) == pack([SettleState.DONE])
        after = await broker.receive("w", Poll(WANT.wants, 10, delivery.token))
        assert isinstance(after, Batch)
        assert ids(after) == ["after"]

    brokering(test)


@pytest.mark.parametrize("given", [b"", b"\xc1", pack([1]), pack({"a": 1}), pack([job("a")])[:-1]])
def test_what_is_packed_otherwise_is_refused(given: bytes) -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: broker.publish(given),
            lambda: broker.publish([job("a")], given),
            lambda: broker.settle("w", given),
        ]
        for attempt in attempts:
            with pytest.raises(MalformedBatch):
                await attempt()
        (stats,) = await broker.stats()
        assert stats.published == 0

    brokering(test)


# Queues that are made ------------------------------------------------------------------------------------------------


def test_missing_queues_are_made_where_that_is_asked_for() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        assert [each.state for each in await broker.publish([job("a", "new")])] == [PublishState.UNROUTED]
        join = Join("j", 1, (job("later", "then"),), (job("later", "otherwise"),))
        given = [job("a", "new"), job("b"), job("c", "newer")]
        found = await broker.publish(given, [join], create=True)
        assert [each.queues for each in found] == [("new",), ("jobs",), ("newer",)]
        assert {each.queue.name for each in await broker.stats()} == {"jobs", "new", "newer", "otherwise", "then"}
        assert [each.state for each in await broker.publish(given, create=True)] == [PublishState.DUPLICATE] * 3

    brokering(test)


def test_a_queue_that_is_there_keeps_its_limits() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([], [Queue("jobs", max_length=1)], [])
        join = Join("j", 1, (job("later"),))
        found = await broker.publish([job("a"), job("b"), job("c", "new")], [join], create=True)
        assert [each.state for each in found] == ["accepted", "refused", "accepted"]

    brokering(test)


def test_an_exchange_is_never_made_for_a_publication() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([Exchange("events", "fanout")], [], [])
        given = [
            job("a").__class__(job(name).message, "key", exchange)
            for name, exchange in (("a", "events"), ("b", "none"))
        ]
        found = await broker.publish(given, create=True)
        assert [each.state for each in found] == [PublishState.UNROUTED, PublishState.REFUSED]
        assert [each.queue.name for each in await broker.stats()] == ["jobs"]

    brokering(test)


# Pausing -------------------------------------------------------------------------------------------------------------


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.pause(["jobs"])
        await broker.pause(["jobs"])
        await broker.publish([job("a")])
        waiting = await begun(broker)
        await broker.declare([], [Queue("jobs", max_length=5)], [])  # as a worker that starts does
        (stats,) = await broker.stats()
        assert (stats.queue.paused, stats.queue.max_length, stats.ready) == (True, 5, 1)
        assert not waiting.done()
        await broker.resume(["jobs"])
        assert ids(await waiting) == ["a"]

    brokering(test)


def test_a_new_queue_may_be_declared_as_paused() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([], [Queue("later", paused=True)], [])
        assert [each.queue.paused for each in await broker.stats()] == [False, True]

    brokering(test)


def test_an_unknown_queue_is_not_paused_and_no_other_with_it() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        for verb in (broker.pause, broker.resume):
            with pytest.raises(UnknownQueue, match="there is no queue 'none'"):
                await verb(["jobs", "none"])
        (stats,) = await broker.stats()
        assert not stats.queue.paused

    brokering(test)


# The schedule --------------------------------------------------------------------------------------------------------


def test_an_entry_fires_once_whoever_else_tries() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        entry = Entry("nightly", 10.0, job("first"), b"spec")
        assert await broker.plan(entry)
        assert not await broker.plan(entry)
        next_one = Entry("nightly", 20.0, job("second"), b"spec")
        waiting = await begun(broker)
        assert await broker.plan(next_one, 10.0, job("first"))
        assert ids(await waiting) == ["first"]
        assert not await broker.plan(next_one, 10.0, job("again"))
        assert await broker.schedule() == [next_one]
        assert await broker.unplan("nightly")
        assert not await broker.unplan("nightly")

    brokering(test)


def test_a_run_goes_into_a_queue_that_nobody_has_made_if_that_was_asked_for() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        nightly = Entry("nightly", 10.0, job("pattern", "reports"))
        assert await broker.plan(nightly)
        assert await broker.stats(["reports"]) == []
        assert await broker.plan(nightly, 10.0, job("a run", "reports"), True)
        (stats,) = await broker.stats(["reports"])
        assert stats.ready == 1

    brokering(test)


def test_entries_are_for_those_who_may_publish_what_they_do() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        theirs = Entry("theirs", 10.0, job("a", "secret"))
        await broker.plan(theirs)
        as_caller("bound")
        attempts: list[Awaitable[object]] = [
            broker.plan(Entry("mine", 5.0, job("a", "secret"))),
            broker.plan(Entry("mine", 5.0, job("a")), None, job("a", "secret")),
            broker.plan(Entry("theirs", 5.0, job("a")), 10.0),
            broker.unplan("theirs"),
        ]
        for attempt in attempts:
            with pytest.raises(QueueNotInScope):
                await attempt
        assert await broker.plan(Entry("mine", 5.0, job("a")))
        assert [entry.name for entry in await broker.schedule()] == ["mine"]
        as_caller("all")
        assert await broker.schedule() == [Entry("mine", 5.0, job("a")), theirs]

    brokering(test, {"all": Scopes(), "bound": Scopes(publish=("jobs",))}.__getitem__, "all")


# Looking -------------------------------------------------------------------------------------------------------------


def test_sessions_tell_of_themselves() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        start = clock.now
        await broker.open_session("w", 30.0, b"host 1")
        clock.now += 10
        await one(broker)
        await broker.open_session("silent", 5.0)
        clock.now += 6
        assert await broker.sessions() == [Receiver("w", "", b"host 1", 30.0, start, start + 10, 1)]
        await broker.open_session("w", 20.0)
        assert (await broker.sessions())[0].about == b"host 1"
        await broker.close_session("w")
        assert await broker.sessions() == []

    brokering(test)


def test_sessions_that_have_gone_are_forgotten() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.open_session("silent", 1.0)
        clock.now += 3.5
        broker.receivers.forget_silent(clock.now)
        assert list(broker.receivers._known) == ["\nw"]

    brokering(test)


def test_what_nothing_is_heard_of_is_forgotten_in_time() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.open_session("silent", 1.0)
        broker.traffic.published("", {"idle": 1}, 1, 1, time.monotonic() - 100)
        clock.now += 4
        broker.start()
        for _ in range(20):
            await asyncio.sleep(0)
        assert list(broker.receivers._known) == ["\nw"]
        assert broker.traffic._queues == {}

    brokering(test)


def test_what_is_out_is_listed_with_who_has_it() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        start = clock.now
        held = await one(broker)
        await broker.open_session("v")
        await broker.publish([job("b"), job("c")])
        clock.now += 5
        batch = await broker.receive("v", Poll(WANT.wants, 2))
        assert isinstance(batch, Batch)
        second, third = (each.token for each in batch.deliveries)
        leases = [
            Lease("w", "", held.token, "a", "jobs", start),
            Lease("v", "", second, "b", "jobs", start + 5),
            Lease("v", "", third, "c", "jobs", start + 5),
        ]
        assert await broker.leased() == leases
        assert await broker.leased("v") == leases[1:]
        assert await broker.leased("none") == []
        await broker.settle("v", [Settlement(second, Verdict.KEEP), Settlement(third)])
        assert await broker.leased("v") == leases[1:2]
        await broker.receive("v", Poll(WANT.wants, 0, batch.number, ()))
        assert await broker.leased("v") == []
        assert [each.held for each in await broker.sessions()] == [0, 1]
        broker.receivers.forget("\nw")
        assert await broker.leased("w") == [Lease("w", "", held.token, "a")]

    brokering(test)


def test_traffic_is_counted_for_queues_and_keys() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.publish([job("a"), job("b"), job("c", "none")])
        await broker.publish([job("a")])
        batch = await broker.receive("w", WANT)
        again = await broker.receive("w", WANT)
        assert isinstance(batch, Batch)
        assert again == batch
        first, second = (each.token for each in batch.deliveries)
        ends = [Settlement(first), Settlement(second, Verdict.KEEP)]
        await broker.settle("w", ends)
        await broker.settle("w", ends)
        await broker.settle("w", [Settlement(second, Verdict.REJECT), Settlement(999_999)])
        (rates,) = await broker.rates()
        assert (rates.published, rates.delivered) == (2 * rates.acked, 2 * rates.acked)
        assert rates.acked > 0
        assert await broker.sites() == [SiteCounts("", 2, 2, 2, 8, 8, clock.now)]
        assert await broker.rates(["jobs"]) != [QueueRates("jobs")]
        assert await broker.rates(["none"]) == []

    brokering(test)


# Who may what --------------------------------------------------------------------------------------------------------

KEYS = {
    "all": Scopes(),
    "none": Scopes(publish=(), consume=()),
    "producer": Scopes(publish=("jobs", "events"), consume=()),
    "worker": Scopes(publish=(), consume=("jobs", "events", "mine")),
}
ATTEMPTS: dict[str, Callable[[Broker], Awaitable[object]]] = {
    "pause": lambda broker: broker.pause(["jobs"]),
    "resume": lambda broker: broker.resume(["jobs"]),
    "stats": lambda broker: broker.stats(["jobs"]),
    "rates": lambda broker: broker.rates(["jobs"]),
    "declare an exchange": lambda broker: broker.declare([Exchange("events", "topic")], [], []),
    "delete an exchange": lambda broker: broker.delete(["events"], [], []),
    "bind": lambda broker: broker.declare([], [], [Binding("events", "jobs", "#")]),
    "unbind": lambda broker: broker.delete([], [], [Binding("events", "jobs", "#")]),
}


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("all", set(ATTEMPTS)),
        ("none", set[str]()),
        ("producer", {"stats", "rates", "declare an exchange", "delete an exchange"}),
        ("worker", set(ATTEMPTS)),
    ],
)
def test_a_key_may_do_to_a_queue_what_its_scopes_say(key: str, allowed: set[str]) -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([Exchange("events", "topic")], [], [])
        may = set()
        for name, attempt in ATTEMPTS.items():
            as_caller(key)
            try:
                await attempt(broker)
                may.add(name)
            except QueueNotInScope:
                pass
            as_caller("all")
            await broker.declare([Exchange("events", "topic")], [], [])
        assert may == allowed

    brokering(test, KEYS.__getitem__, "all")


def test_a_binding_takes_a_scope_for_the_exchange_too() -> None:
    """It takes a copy of what others publish there."""

    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([Exchange("orders", "topic")], [], [])
        as_caller("worker")
        with pytest.raises(QueueNotInScope, match="may not receive from 'orders'"):
            await broker.declare([], [Queue("mine")], [Binding("orders", "mine", "#")])
        as_caller("all")
        assert [each.queue.name for each in await broker.stats()] == ["jobs"]

    brokering(test, KEYS.__getitem__, "all")


def test_only_what_is_in_scope_is_shown() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([], [Queue("secret")], [])
        await broker.open_session("of all")
        as_caller("worker")
        await broker.open_session("own")
        await broker.publish([])
        assert [each.queue.name for each in await broker.stats()] == ["jobs"]
        assert [each.queue for each in await broker.rates()] == ["jobs"]
        assert [each.session for each in await broker.sessions()] == ["own"]
        assert [each.key_id for each in await broker.sites()] == ["worker"]
        as_caller("all")
        await broker.publish([job("a")])
        await broker.receive("w", WANT)
        assert [each.session for each in await broker.sessions()] == ["of all", "w", "own"]
        assert [each.key_id for each in await broker.sites()] == ["all", "worker"]
        assert [each.session for each in await broker.leased()] == ["w"]
        as_caller("worker")
        assert await broker.leased() == []
        assert await broker.leased("w") == []

    brokering(test, KEYS.__getitem__, "all")


def test_whoever_knows_an_id_may_cancel_and_read_the_result() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.publish([job("a", keep_result=60.0)])
        as_caller("none")
        await broker.cancel(["a"], Outcome("REVOKED", failed=True))
        (result,) = await broker.results(["a"])
        assert result is not None
        assert result.outcome.state == "REVOKED"
        await broker.forget(["a"])
        assert await broker.results(["a"]) == [None]

    brokering(test, KEYS.__getitem__, "all")


def test_within_the_process_everything_may_be_done() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.publish([job("a")])
        assert await broker.dead_letters() == []
        as_caller("none")
        with pytest.raises(QueueNotInScope):
            await broker.dead_letters()

    brokering(test, KEYS.__getitem__)


def test_the_dead_of_a_queue_are_for_those_who_may_receive_from_it() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        await broker.declare([], [Queue("secret")], [])
        await broker.publish([job("a"), job("b"), job("c", "secret")])
        batch = await broker.receive("w", Poll((("jobs", 9), ("secret", 9)), 9))
        assert isinstance(batch, Batch)
        await broker.settle("w", [Settlement(each.token, Verdict.REJECT) for each in batch.deliveries])
        first, second, secret = (each.number for each in await broker.dead_letters())
        as_caller("worker")
        for verb in (broker.replay, broker.drop):
            with pytest.raises(QueueNotInScope, match="may not receive from 'secret'"):
                await verb([first, secret])
        assert await broker.replay([first, 999]) == 1
        assert await broker.drop([second]) == 1
        as_caller("all")
        (left,) = await broker.dead_letters(brief=True)
        assert (left.number, left.message.id, left.message.body) == (secret, "c", b"")
        assert (await broker.dead_letters())[0].message.body == b"body"
        assert await broker.drop([secret]) == 1

    brokering(test, KEYS.__getitem__, "all")


def test_how_long_the_oldest_has_waited_is_told_by_the_brokers_clock() -> None:
    async def test(broker: Broker, clock: Clock) -> None:
        assert [each.waited for each in await broker.rates()] == [None]
        await broker.publish([job("a")])
        clock.now += 5
        assert [each.waited for each in await broker.rates()] == [5.0]
        clock.now -= 50
        assert [each.waited for each in await broker.rates()] == [0.0]

    brokering(test)
