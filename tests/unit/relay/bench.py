"""A relay between two brokers in the same process, over links that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import (
    Delivery,
    Message,
    Outcome,
    Poll,
    Publication,
    Queue,
    Result,
    Settlement,
)
from backwater_tornado.relay.options import RelayOptions
from backwater_tornado.relay.relay import Relay
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.worker.line import Line
from tests.unit.worker.bench import LONG, PATIENCE, Clock, InPlace

DONE = Outcome("SUCCESS", b"done")


async def when(condition: Callable[[], object]) -> None:
    """What nobody tells of."""
    while not condition():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0)


class End:
    """One broker, and the link to it."""

    def __init__(self, clock: Clock) -> None:
        self.store = MemoryStore()
        self.broker = Broker(Direct(self.store), None, clock)
        self.link = InPlace(self.broker)
        self.line = Line(self.link, dice=lambda: 0.0)
        self._confirmed = 0

    async def publish(self, *ids: str, **more: Any) -> None:
        fields = {"body": b"x", "keep_result": 1000.0, **more}
        await self.broker.publish([Publication(Message(each, **fields), "q") for each in ids], None, True)

    async def take(self, count: int = 100, held: tuple[int, ...] | None = None) -> list[Delivery]:
        """What a worker there gets."""
        await self.broker.open_session("w", 1000.0)
        batch = await self.broker.receive("w", Poll((("q", count),), count, self._confirmed, held))
        assert not isinstance(batch, bytes)
        self._confirmed = batch.number
        return list(batch.deliveries)

    async def end(self, delivery: Delivery, outcome: Outcome = DONE) -> None:
        await self.broker.settle("w", [Settlement(delivery.token, outcome=outcome)])

    async def result(self, id: str) -> Result:
        """Its final result, when it is there."""
        while True:
            (found,) = await self.broker.results([id], LONG)
            if found is not None and found.final:
                return found

    async def known(self, id: str) -> Result | None:
        (found,) = await self.broker.results([id])
        return found

    async def until_known(self, id: str, state: str | None) -> None:
        """Wait until that is the state of its result; None: there is none."""
        while (found := await self.known(id)) is None or found.outcome.state != state:
            if found is None and state is None:
                return
            await asyncio.sleep(0)

    async def counts(self) -> tuple[int, int, int, int]:
        """Ready, delayed, leased, dead."""
        (stats,) = await self.broker.stats(["q"])
        return stats.ready, stats.delayed, stats.leased, stats.dead

    async def until(self, *wanted: int) -> None:
        while await self.counts() != wanted:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)


def hold_back(end: End, verb: str, *, before: bool = False) -> asyncio.Event:
    """Answers to a verb arrive when this is set; or, `before`, what is asked."""
    arrive, asked = asyncio.Event(), end.link.ask

    async def ask_slowly(ask: Ask[Any]) -> Any:
        if before and ask.verb == verb:
            await arrive.wait()
        answer = await asked(ask)
        if ask.verb == verb:
            await arrive.wait()
        return answer

    end.link.ask = ask_slowly  # type: ignore[method-assign]
    return arrive


def packed(end: End, verb: str, place: int = 0) -> list[list[Any]]:
    """What was in each ask of a verb."""
    return [msgspec.msgpack.decode(ask.args[place]) for ask in end.link.asked if ask.verb == verb]


class Bench:
    def __init__(self, options: Mapping[str, Any]) -> None:
        self.clock = Clock()
        self.near, self.far = End(self.clock), End(self.clock)
        self.options = RelayOptions(**{"wait": 20.0, **options})
        self.start()

    def start(self) -> None:
        self.relay = Relay(self.near.line, self.far.line, {"q": "q"}, self.options)
        self.task = asyncio.ensure_future(self.relay.run())

    async def stop(self) -> None:
        self.relay.stop()
        await self.task

    async def kill(self) -> None:
        """It says nothing more, and its session ends."""
        self.near.link.down = True
        self.task.cancel()
        await asyncio.wait([self.task])
        self.near.link.down = False
        self.near.store.close_session(f"\n{self.relay.consumer.session}", self.clock.now)


def relaying(test: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    """Run a test with a relay at work."""

    async def main() -> None:
        bench = Bench(options)
        for end in (bench.near, bench.far):
            await end.broker.declare([], [Queue("q", max_deliveries=2)], [])
        async with asyncio.timeout(PATIENCE):
            await test(bench)
            if not bench.task.done():
                await bench.stop()
        for end in (bench.near, bench.far):
            await end.broker.close()

    asyncio.run(main())
