"""A relay: takes messages from a near broker, hands them to a far one, and brings home how they ended.

It is a receiver at the near broker and a producer at the far one, and keeps nothing of its own. What it has taken it
holds by a lease. If it is lost, the near broker gives the same messages to the next relay, which publishes them again:
under their ids the far broker knows them, and says how they end, or have ended. So each runs once.

It rides through every cut of either link, and tries for ever. When it stops it gives back what is away; the next relay
finds that where it is.

Rule: puts together, and knows the order of beginning and end; what becomes of a message is `carrier`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from backwater_tornado.worker.consumer import Consumer
from backwater_tornado.worker.health import Health, Watch, line_reasons
from backwater_tornado.worker.inputs import Inputs
from backwater_tornado.worker.line import Line
from backwater_tornado.worker.services import LAST_WORDS, close_session, serving
from backwater_tornado.worker.settling import Settling

from .carrier import Carrier
from .options import RelayOptions

log = logging.getLogger("backwater.relay")

#: How often others are shown anew what it does, seconds.
SHOW_PERIOD = 10.0
#: Between two looks at whether the far broker is away, seconds.
LOOK = 0.25


class Relay:
    """See the head of this module. Made on the loop on which it runs.

    Args:
        near, far: to the brokers.
        queues: of the near broker to take from; and of each the far broker's to hand over to.
        options: see there.
        about: what others are shown of it at the near broker, beside what it knows of itself.
    """

    def __init__(
        self,
        near: Line,
        far: Line,
        queues: Mapping[str, str],
        options: RelayOptions = RelayOptions(),  # noqa: B008 - it is frozen
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.near, self.far, self.queues, self.options = near, far, dict(queues), options
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), **(about or {})}
        self.carrier = Carrier(far, self.queues, options)
        timing = {"wait": options.wait, "ttl": options.ttl, "lag": 0.0}  # its settlements are far behind its polls
        self.consumer = Consumer(near, self.carrier, list(queues), self.describe, **timing)
        self.settling = Settling(near, self.consumer, self.carrier.settled)
        inputs = Inputs(near, self.carrier.prepare)
        self.carrier.settle, self.carrier.fetch = self.settling.add, inputs.fetch
        self.carrier.made_room = self.consumer.note_room
        self._watch = Watch(near, list(queues), self._state, self.consumer.overtake, options.watch)
        own = [self._consume, self.settling.run, inputs.run, self._watch.run, self._show, self._look]
        self._services = [*own, *self.carrier.services]
        self._stopping = asyncio.Event()

    def describe(self) -> bytes:
        """What others are shown of it, JSON."""
        about = {**self._about, "queues": list(self.queues), "counts": dict(self.carrier.counts)}
        return msgspec.json.encode({**about, "relay": f"to {self.far.name}"})

    def health(self) -> Health:
        """How it is, for a probe."""
        near = self._watch.health(time.monotonic() - self.near.heard, len(self.settling), self.options.wait)
        return Health((*near.reasons, *line_reasons(self.far, self.far.down, 0.0)))

    def _state(self) -> tuple[int, int]:
        return self.carrier.counts["received"], self.carrier.room()

    def stop(self) -> None:
        """Stop, see the head of this module; from a signal handler of the loop, say."""
        self._stopping.set()

    async def run(self) -> None:
        """Relay until told to stop."""
        try:
            async with serving(self._services, self._stopping):
                await self._drain()
        finally:
            await close_session(self.consumer)

    async def _consume(self) -> None:
        await self.consumer.open()
        await self.consumer.run()

    async def _show(self) -> None:
        """Have others see what it does now."""
        while True:
            await asyncio.sleep(SHOW_PERIOD)
            await self.consumer.show()

    async def _look(self) -> None:
        """Let go when the far broker is away, and take messages again when it is back."""
        while True:
            await asyncio.sleep(LOOK)
            self.carrier.let_go()
            self.carrier.tell_room()

    async def _drain(self) -> None:
        log.info("stopping: what is away is the next relay's")
        self.carrier.give_back_all()
        self.consumer.overtake()  # by a poll that asks for nothing
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self.settling.empty()
