"""Who makes the runs of periodic tasks: on a broker in this process, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from backwater_tornado import periodic
from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import Entry, Message, Poll, Publication, Queue
from backwater_tornado.errors import OutcomeUnknown, StorageFailed
from backwater_tornado.periodic import LOOK_PERIOD, RETRY_PERIOD, SHORTEST_PAUSE, Ticker
from backwater_tornado.tasks.entries import make_entry
from backwater_tornado.tasks.schedule import Cron, Every, Schedule

NOW = 1_700_000_000.0
WANT = Poll((("jobs", 100),), 100)
#: Longer than any test: what waits so long waits for an event.
LONG = 40.0


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Flaky(Broker):
    """A broker on a bad link: it does, or does not do, what is planned, and its answer is lost."""

    #: Names of entries: what is planned for them fails before, or after it was done.
    failing: frozenset[str] = frozenset()
    losing: frozenset[str] = frozenset()
    #: Calls of `schedule` that fail.
    deaf = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.looked = asyncio.Event()
        self.looks = 0

    async def schedule(self) -> list[Entry]:
        self.looked.set()
        self.looks += 1
        if self.deaf:
            self.deaf -= 1
            raise StorageFailed
        return await super().schedule()

    async def plan(self, entry: Entry, expected: float | None = None, publish: Publication | None = None) -> bool:
        if entry.name in self.failing:
            raise StorageFailed
        done = await super().plan(entry, expected, publish)
        if entry.name in self.losing:
            raise OutcomeUnknown
        return done


def entry(name: str = "clean", schedule: Schedule | None = None, now: float = NOW, queue: str = "jobs") -> Entry:
    return make_entry(name, schedule or Every(60), Publication(Message(name, b"body"), queue), now)


def ticking(test: Callable[[Flaky, Clock], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = Clock()
        broker = Flaky(Direct(MemoryStore()), None, clock)
        await broker.declare([], [Queue("jobs")], [])
        async with asyncio.timeout(20):
            await test(broker, clock)
        await broker.close()

    asyncio.run(main())


async def ids(broker: Broker, wait: float = 0.0) -> list[str]:
    """What has been published since it was asked last."""
    await broker.open_session("s")
    batch = await broker.receive("s", WANT, wait)
    await broker.close_session("s")
    found = [delivery.message.id for delivery in batch.deliveries]
    await broker.purge("jobs")
    return found


async def dues(broker: Broker) -> dict[str, float]:
    return {each.name: each.due - NOW for each in await broker.schedule()}


# Looking -------------------------------------------------------------------------------------------------------------


def test_a_run_is_made_when_it_is_due_and_the_next_one_is_planned() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        await ticker.declare([entry()])
        await ticker.look()
        assert await ids(broker) == []
        clock.now += 60.5
        await ticker.look()
        assert await ids(broker) == ["clean@1700000060.000"]
        assert await dues(broker) == {"clean": 120}
        await ticker.look()
        assert await ids(broker) == []

    ticking(test)


def test_the_next_look_is_when_something_is_due_and_not_too_late_nor_at_once() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        assert await ticker.look() == LOOK_PERIOD
        await ticker.declare([entry()])
        assert await ticker.look() == LOOK_PERIOD
        await ticker.declare([entry("soon", Every(3))])
        assert await ticker.look() == 3
        clock.now += 3
        assert await ticker.look() == 3
        await ticker.declare([entry("all", Every(1, catch_up=True))])
        clock.now += 2.5
        assert await ticker.look() == SHORTEST_PAUSE

    ticking(test)


def test_of_two_that_find_the_same_run_due_one_makes_it() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        one, other = Ticker(broker, clock=clock), Ticker(broker, clock=clock)
        await one.declare([entry(str(number)) for number in range(20)])
        clock.now += 61
        assert await asyncio.gather(one.look(), other.look()) == [LOOK_PERIOD, LOOK_PERIOD]
        assert len(await ids(broker)) == 20
        assert set((await dues(broker)).values()) == {120}

    ticking(test)


def test_what_is_published_can_be_made_otherwise() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        def make(entry: Entry) -> Publication:
            return replace(entry.publication, message=Message(f"{entry.name}, {entry.due - NOW:g}", b""))

        ticker = Ticker(broker, make, clock)
        await ticker.declare([entry()])
        clock.now += 60
        await ticker.look()
        assert await ids(broker) == ["clean, 60"]

    ticking(test)


def test_a_clock_that_jumps_forward_makes_one_run_of_each() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        await ticker.declare([entry(), entry("daily", Cron("0 0 * * *"))])
        clock.now += 10 * 86_400
        await ticker.look()
        assert sorted(await ids(broker)) == ["clean@1700000060.000", "daily@1700006400.000"]
        assert await dues(broker) == {"clean": 864_060, "daily": 870_400}

    ticking(test)


def test_a_clock_that_is_set_back_makes_no_run_again_and_waits_no_longer_than_it_must() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        await ticker.declare([entry()])
        clock.now += 86_400
        await ticker.look()
        assert len(await ids(broker)) == 1
        clock.now = NOW + 30
        await ticker.look()
        assert await dues(broker) == {"clean": 60}
        clock.now = NOW + 60
        await ticker.look()
        assert await ids(broker) == []  # that run was made when it was a day late
        clock.now = NOW + 120
        await ticker.look()
        assert await ids(broker) == ["clean@1700000120.000"]

    ticking(test)


@pytest.mark.parametrize(
    ("evening", "runs"),
    [
        ("2026-03-28T23:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("2026-10-24T23:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    ],
)
def test_a_nightly_run_is_made_once_in_a_night_in_which_clocks_are_changed(evening: str, runs: list[str]) -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        clock.now = datetime.fromisoformat(evening).timestamp()
        await ticker.declare([entry("nightly", Cron("30 2 * * *", "Europe/Berlin"), clock.now)])
        for _ in range(30 * 12):
            clock.now += 300
            await ticker.look()
        expected = [datetime.fromisoformat(each).timestamp() for each in runs]
        assert await ids(broker) == [f"nightly@{each:.3f}" for each in expected]

    ticking(test)


# Failing -------------------------------------------------------------------------------------------------------------


def test_a_run_whose_answer_was_lost_is_not_made_again() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        await ticker.declare([entry()])
        clock.now += 60
        broker.losing = frozenset({"clean"})
        assert await ticker.look() == RETRY_PERIOD
        assert await ids(broker) == ["clean@1700000060.000"]
        assert await ticker.look() == LOOK_PERIOD
        assert await ids(broker) == []

    ticking(test)


def test_a_run_that_could_not_be_made_holds_back_no_other_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        await ticker.declare([entry("a"), entry("b"), entry("c")])
        clock.now += 60
        broker.failing = frozenset({"b"})
        assert await ticker.look() == RETRY_PERIOD
        assert sorted(await ids(broker)) == ["a@1700000060.000", "c@1700000060.000"]
        broker.failing = frozenset()
        await ticker.look()
        assert await ids(broker) == ["b@1700000060.000"]

    ticking(test)
    (record,) = caplog.records
    assert record.getMessage().startswith("the periodic task b could not be planned, and is tried again: ")


def test_an_entry_of_another_version_is_left_alone_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        await ticker.declare([entry(), replace(entry("strange"), spec=b"of another version")])
        for _ in range(2):
            clock.now += 60
            assert await ticker.look() == LOOK_PERIOD
        assert len(await ids(broker)) == 2
        assert await dues(broker) == {"strange": 60, "clean": 180}

    ticking(test)
    (record,) = caplog.records
    assert record.getMessage().startswith("the periodic task strange is left to workers that can read its schedule: ")


# Declaring -----------------------------------------------------------------------------------------------------------


def test_what_is_missing_or_has_changed_is_written_and_all_else_left_alone() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        ticker = Ticker(broker, clock=clock)
        await ticker.declare([entry("same"), entry("target"), entry("often"), entry("another's")])
        clock.now += 7
        target = entry("target", queue="other", now=clock.now)
        often = entry("often", Every(30), now=clock.now)
        await ticker.declare([entry("same", now=clock.now), target, often, entry("new", now=clock.now)])
        assert await dues(broker) == {"another's": 60, "same": 60, "target": 60, "often": 37, "new": 67}
        found = {each.name: each for each in await broker.schedule()}
        assert found["target"].publication.routing_key == "other"
        assert found["often"].spec == often.spec

    ticking(test)


def test_two_that_declare_at_the_same_time_agree() -> None:
    async def test(broker: Flaky, clock: Clock) -> None:
        names = [str(number) for number in range(10)]
        tickers = [Ticker(broker, clock=clock) for _ in range(3)]
        declared = [[entry(name, now=NOW + late) for name in names] for late in range(3)]
        await asyncio.gather(*[each.declare(entries) for each, entries in zip(tickers, declared, strict=True)])
        assert set((await dues(broker)).values()) == {60}

    ticking(test)


def test_an_entry_that_somebody_else_writes_first_is_looked_at_again() -> None:
    class Meddled(Flaky):
        """Between a look and a plan, another worker is faster."""

        meddling = 2

        async def schedule(self) -> list[Entry]:
            found = await super().schedule()
            if self.meddling:
                self.meddling -= 1
                due = {each.name: each.due for each in found}.get("clean")
                await super().plan(entry(now=NOW + self.meddling, queue="theirs"), due)
            return found

    async def main() -> None:
        broker = Meddled(Direct(MemoryStore()), None, Clock())
        await Ticker(broker).declare([entry()])
        (there,) = await broker.schedule()
        assert there.publication.routing_key == "jobs"

    asyncio.run(main())


# Running -------------------------------------------------------------------------------------------------------------


def running(test: Callable[[Flaky, Ticker], Awaitable[None]]) -> None:
    """With a ticker that runs, by the time of this machine."""

    async def main() -> None:
        broker = Flaky(Direct(MemoryStore()))
        await broker.declare([], [Queue("jobs")], [])
        ticker = Ticker(broker)
        task = asyncio.create_task(ticker.run())
        async with asyncio.timeout(LOOK_PERIOD / 2):
            await test(broker, ticker)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await broker.close()

    asyncio.run(main())


def test_what_is_declared_while_it_runs_is_not_waited_for_until_the_next_look() -> None:
    async def test(broker: Flaky, ticker: Ticker) -> None:
        await broker.looked.wait()
        await ticker.declare([entry("often", Every(0.1), time.time())])
        for _ in range(3):
            assert await ids(broker, LONG)
        assert broker.looks < 50  # it sleeps between them

    running(test)


def test_a_broker_that_fails_is_asked_again_and_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "RETRY_PERIOD", 0.01)
    caplog.set_level(logging.INFO)

    async def test(broker: Flaky, ticker: Ticker) -> None:
        await broker.plan(entry("often", Every(0.1), time.time()))
        broker.deaf = 3
        for _ in range(3):
            assert await ids(broker, LONG)
        broker.deaf = 1
        assert await ids(broker, LONG)

    running(test)
    first, second = caplog.records
    assert first.getMessage().startswith("the schedule of periodic tasks cannot be read, and is asked for again: ")
    assert second.getMessage() == first.getMessage()
