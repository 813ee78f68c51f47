"""A worker: takes tasks from a broker, runs them in pools, and says how they ended.

Three things go on side by side, and none waits for another: polls that bring deliveries (`consumer`), runs (`desk` and
the pools), and settlements (`settling`). All of them ride through every cut of the link; nothing but `stop` ends a
worker.

It stops in steps. Nothing more is taken, and what has not begun goes back at once. What runs has the grace period, in
which the session is kept alive; then it is stopped and goes back, too. A second `stop` ends the grace period now.

Rule: puts together, and knows the order of beginning and end; what a delivery means is `desk`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backwater_tornado.broker.values import Settlement
from backwater_tornado.exposure import Exposure, Function

from .consumer import Consumer
from .desk import Desk
from .events import Events
from .former import Former
from .health import Health, Watch
from .hooks import Hooks
from .inputs import Inputs
from .keeping import Keeping
from .line import Line, Link
from .options import WorkerOptions
from .pools import Pool
from .services import LAST_WORDS, close_session, serving
from .settling import Settling
from .spool import About, Spool

log = logging.getLogger("backwater.worker")

#: How often others are shown anew what it does, seconds.
SHOW_PERIOD = 10.0


class Worker:
    """See the head of this module. Made on the loop on which it runs.

    Args:
        link: asks the broker.
        exposure: the functions that it runs.
        pool_for: where a function runs; the pools are open, and closed by the worker.
        options: see there.
        hooks: whom to tell of what happens.
        about: what others are shown of it, beside what it knows of itself.
        spool: where outcomes are kept that the broker does not take; closed by the worker. None: in memory only.
    """

    def __init__(
        self,
        link: Link,
        exposure: Exposure,
        pool_for: Callable[[Function], Pool],
        options: WorkerOptions = WorkerOptions(),  # noqa: B008 - it is frozen
        hooks: Hooks | None = None,
        about: Mapping[str, Any] | None = None,
        spool: Spool | None = None,
    ) -> None:
        self.options = options
        self._hooks = hooks or Hooks()
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), **(about or {})}
        self.desk = Desk(exposure, pool_for, options.prefetch, self._hooks, self._about)
        self.line = Line(link)
        timing = {"wait": options.wait, "ttl": options.ttl}
        self.consumer = Consumer(self.line, self.desk, options.queues, self.describe, **timing)
        self.settling = Settling(self.line, self.consumer, self.desk.settled)
        inputs = Inputs(self.line, self.desk.prepare)
        self.desk.settle, self.desk.fetch = self._settle, inputs.fetch
        self.desk.made_room = self.consumer.note_room
        self.watch = Watch(self.line, options.queues, self._state, self.consumer.overtake, options.watch)
        self._services = [self._consume, self.settling.run, inputs.run, self.watch.run, self._show]
        self.events = Events(link, lambda: self.consumer.session) if options.events else None
        if self.events is not None:
            self.desk.events = self.events
            self._services.append(self.events.run)
        self.keeping: Keeping | None = None
        self.former: Former | None = None
        if spool is not None:
            self._keep_in(spool)
        #: Outcomes are left to the next worker.
        self._bequeathed = False
        self._stopping = asyncio.Event()
        self._insisted = asyncio.Event()

    def _keep_in(self, spool: Spool) -> None:
        keeping = Keeping(spool, lambda: self.consumer.session, self.consumer.overtake)
        self.keeping = self.desk.keeping = keeping
        self.former = Former(self.line, keeping, self.options.ttl, self._supersede)
        self._services.append(keeping.run)

    def _supersede(self, about: About) -> None:
        self.desk.note_superseded(about)
        if self.events is not None:
            self.events.tell("superseded", id=about.id, task=about.task, queue=about.queue)

    def describe(self) -> bytes:
        """What others are shown of it, JSON."""
        about = {**self._about, "queues": list(self.options.queues), "counts": dict(self.desk.counts)}
        return msgspec.json.encode({**about, "pools": [dict(pool.about()) for pool in self.desk.pools]})

    def health(self) -> Health:
        """How it is, for a probe."""
        silent = time.monotonic() - self.line.heard
        unsent = len(self.settling) + (self.former.left if self.former is not None else 0)
        trouble = self.keeping.trouble if self.keeping is not None else ""
        return self.watch.health(silent, unsent, self.options.wait, trouble)

    def _settle(self, settlement: Settlement) -> None:
        self.settling.add(settlement)
        self.consumer.note_settlement()

    def _state(self) -> tuple[int, int]:
        return self.desk.counts["received"], self.desk.room()

    def stop(self) -> None:
        """Stop, see the head of this module; again: without grace. From a signal handler of the loop, say."""
        (self._insisted if self._stopping.is_set() else self._stopping).set()

    async def run(self) -> bool:
        """Work until told to stop; False when something that ran had to be given back."""
        await self._hooks.tell("start")
        try:
            async with serving(self._services, self._stopping):
                return await self._drain()
        finally:
            if self.keeping is not None:
                await self.keeping.close()
            if not self._bequeathed:  # or what the next worker tells would be given to others
                await close_session(self.consumer)
            await self._hooks.tell("stop")

    async def _consume(self) -> None:
        await self.consumer.open()
        self._tell("online")
        if self.former is not None:
            await self.former.deliver()
        await self.consumer.run()

    async def _show(self) -> None:
        """Have others see what it does now."""
        while True:
            await asyncio.sleep(SHOW_PERIOD)
            self._tell("heartbeat")
            await self.consumer.show()

    def _tell(self, event: str) -> None:
        """Whoever listens, of the worker itself."""
        if self.events is not None:
            self.events.tell(event)

    async def _drain(self) -> bool:
        log.info("stopping: what runs has %g s to end; a second signal ends it now", self.options.grace)
        self.desk.return_waiting()
        self.consumer.overtake()  # by a poll that asks for nothing, and keeps the session alive
        await self._first_of(self.desk.idle, self.options.grace)
        complete = self.desk.idle.is_set()
        await asyncio.gather(*(pool.close(0.0) for pool in self.desk.pools))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self.settling.empty()
                self._tell("offline")
                if self.events is not None:
                    await self.events.empty()
        if len(self.settling):
            await self._leave()
        return complete

    async def _leave(self) -> None:
        """End with outcomes that the broker does not take."""
        kept = 0 if self.keeping is None else await self.keeping.flush()
        if kept:
            self._bequeathed = True
            log.warning("the broker was not told how %d tasks ended: the next worker with this spool tells it", kept)
        if self.keeping is None or self.keeping.trouble:
            log.warning("the broker was not told how %d tasks ended: they will run again", len(self.settling) - kept)

    async def _first_of(self, event: asyncio.Event, longest: float) -> None:
        """Wait for an event, for the second `stop`, or for so long."""
        waiting = [asyncio.ensure_future(each.wait()) for each in (event, self._insisted)]
        await asyncio.wait(waiting, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
