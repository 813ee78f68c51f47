"""A broker that is asked in place, over a link that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import Batch, Poll, Publication, Queue, unpack
from backwater_tornado.driving import drive_async
from backwater_tornado.outbox.parcels import Parcel, make_parcels
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.flows import Flow
from backwater_tornado.tasks.signatures import Canvas
from backwater_tornado.tasks.workflow import Context, plan_canvas

T = TypeVar("T")
NOW = 1000.0
#: What may happen to an ask: before it arrives, or after it has been answered; each may raise, or wait.
Step = Callable[[Ask[Any]], Any]


async def nothing(ask: Ask[Any]) -> None:
    """Let it through."""


class Line:
    """See the head of this module; what comes in after `before` and `after` is what a link does to it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.broker = Broker(Direct(self.store), clock=lambda: self.now)
        self.now = NOW
        self.before: Step = nothing
        self.after: Step = nothing
        #: The ids of each publishing that arrived, and how many are on their way at most.
        self.published: list[list[str]] = []
        self.on_their_way = self.most_on_their_way = 0
        self.closed = False

    async def drive(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        return await drive_async(flow, self._perform)

    def close(self) -> None:
        """As an application is closed."""
        self.closed = True

    async def _perform(self, ask: Ask[Any]) -> Any:
        self.on_their_way += 1
        self.most_on_their_way = max(self.most_on_their_way, self.on_their_way)
        try:
            await self.before(ask)
            if ask.verb == "publish":
                self.published.append([each.message.id for each in unpack(ask.args[0], list[Publication])])
            answer = await getattr(self.broker, ask.verb)(*ask.args)
            await self.after(ask)
            return unpack(answer, ask.returns) if ask.packed else answer
        finally:
            self.on_their_way -= 1

    def declare(self, *queues: Queue) -> None:
        """Make queues."""
        asyncio.run(self.broker.declare([], list(queues), []))

    def received(self, *queues: str) -> list[str]:
        """The ids of all that waits in these queues, in order."""
        return asyncio.run(self._received(queues))

    async def _received(self, queues: tuple[str, ...]) -> list[str]:
        await self.broker.open_session("s", 1e9)
        found: list[str] = []
        confirmed = 0
        while True:
            batch = await self.broker.receive("s", Poll(tuple((each, 1000) for each in queues), 1000, confirmed))
            assert isinstance(batch, Batch)
            if batch.number == confirmed or not batch.deliveries:
                return found
            confirmed = batch.number
            found += [each.message.id for each in batch.deliveries]


def parcels(*canvases: Canvas, at: float = NOW) -> list[Parcel]:
    """What is put in for these, with ids of their own."""
    context = Context(now=at, new_id=lambda: f"m{next(_NUMBERS)}")
    return make_parcels([plan_canvas(each, context) for each in canvases], at)


_NUMBERS = iter(range(10**9))
