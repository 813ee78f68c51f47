"""Workers that make the runs of periodic tasks at the same time, each with connections of its own to one broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backwater_tornado.app import AsyncApp
from backwater_tornado.broker.values import Entry, Message, Poll, Publication, Settlement
from backwater_tornado.periodic import AskedSchedule, Ticker
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.entries import make_entry
from backwater_tornado.tasks.schedule import Every, Schedule
from backwater_tornado.testing import Clock, RunningBroker, running_broker

WORKERS = 3


def entry(name: str, schedule: Schedule, now: float) -> Entry:
    return make_entry(name, schedule, Publication(Message(name, b"body"), "jobs"), now)


async def ids(app: AsyncApp, wait: float = 0.0) -> list[str]:
    """What has been published since it was asked last."""
    batch = await app.ask(asks.receive("reader", Poll((("jobs", 1000),), 1000), wait))
    await app.ask(asks.settle("reader", [Settlement(delivery.token) for delivery in batch.deliveries]))
    return [delivery.message.id for delivery in batch.deliveries]


def with_workers(
    broker: RunningBroker, clock: Callable[[], float], test: Callable[[AsyncApp, list[Ticker]], Awaitable[None]]
) -> None:
    async def main() -> None:
        apps = [AsyncApp(broker.url, broker.secret) for _ in range(WORKERS + 1)]
        await apps[0].ask(asks.open_session("reader", 30.0))
        async with asyncio.timeout(30):
            await test(apps[0], [Ticker(AskedSchedule(app.ask), clock=clock) for app in apps[1:]])
        for app in apps:
            app.close()

    asyncio.run(main())


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_each_run_is_made_once_however_many_race_for_it(store: str, tmp_path: Path) -> None:
    clock = Clock()
    begin = clock.now

    async def test(app: AsyncApp, tickers: list[Ticker]) -> None:
        names = [str(number) for number in range(10)]
        await asyncio.gather(*[each.declare([entry(name, Every(60), begin) for name in names]) for each in tickers])
        for minute in range(1, 6):
            clock.now = begin + 60 * minute
            await asyncio.gather(*[each.look() for each in tickers])
            assert sorted(await ids(app)) == sorted(f"{name}@{begin + 60 * minute:.3f}" for name in names)
        assert {each.due for each in await app.ask(asks.schedule())} == {begin + 360}

    url = "memory://" if store == "memory" else f"sqlite://{tmp_path / 'broker.db'}"
    with running_broker(url, clock=clock) as broker:
        with_workers(broker, clock, test)


def test_workers_that_come_and_go_leave_no_run_out_and_make_none_twice() -> None:
    async def test(app: AsyncApp, tickers: list[Ticker]) -> None:
        begin = time.time()
        await tickers[0].declare([entry("often", Every(0.1, catch_up=True), begin)])
        found: list[str] = []
        running = [asyncio.create_task(each.run()) for each in tickers]
        for number in range(3 * WORKERS):
            while len(found) < 3 * (number + 1):
                found += await ids(app, 5.0)
            running[number % WORKERS].cancel()
            await asyncio.gather(running[number % WORKERS], return_exceptions=True)
            running[number % WORKERS] = asyncio.create_task(tickers[number % WORKERS].run())
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        made = 0
        while len(found) != made:  # what was asked for last may still be on its way
            (there,) = await app.ask(asks.schedule())
            made = round((there.due - begin) / 0.1) - 1
            found += await ids(app)
        assert len(set(found)) == made

    with running_broker() as broker:
        with_workers(broker, time.time, test)
