"""Has outcomes on disk that the broker does not take soon, so that they outlive the worker.

On a link that is up an outcome is accepted before it is due here, and costs no more than a note in memory. One that is
not goes into the spool, with all others that wait then, and out of it when the broker has it. When the disk has no
room, or fails, nothing is lost by that as long as the worker lives; but no more tasks are taken until all that should
be on disk is there, or at the broker.

Rule: beside the way of an outcome to the broker, never on it; whoever waits for the disk is here alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from backwater_tornado.broker.values import Settlement, pack
from backwater_tornado.errors import StorageFailed

from .spool import About, Kept, Spool

log = logging.getLogger("backwater.worker")

T = TypeVar("T")

#: What the broker has not accepted within so many seconds is kept.
AFTER = 0.25
#: After a failure of the disk, seconds.
PAUSE = 1.0


class _Fresh(NamedTuple):
    """An outcome that is in memory only."""

    session: str
    settlement: Settlement
    about: About
    #: By the loop's clock.
    due: float


class Keeping:
    """See the head of this module.

    Args:
        spool: where to; closed with this.
        session: the name of the session as it is now.
        turned: called when trouble begins or ends.

    Attributes:
        trouble: why that which should be on disk is not; empty: it is.
    """

    def __init__(self, spool: Spool, session: Callable[[], str], turned: Callable[[], None]) -> None:
        self.spool = spool
        self._session = session
        self._turned = turned
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "backwater-spool")
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._fresh: dict[int, _Fresh] = {}
        #: The numbers of those in the file, by their tokens; and of those in it that need not be there.
        self._numbers: dict[int, int] = {}
        self._gone: list[int] = []
        self._superseded: list[About] = []
        self.trouble = ""

    def add(self, settlement: Settlement, id: str, task: str, queue: str) -> None:
        """A delivery has ended; of this message, task and queue."""
        due, about = self._loop.time() + AFTER, About(time.time(), id, task, queue)
        self._fresh[settlement.token] = _Fresh(self._session(), settlement, about, due)
        self._news.set()

    def forget(self, token: int) -> None:
        """The broker has it, or will not have it."""
        self._fresh.pop(token, None)
        number = self._numbers.pop(token, None)
        if number is not None:
            self._gone.append(number)
            self._news.set()
        if not self._fresh:
            self._note_trouble("")

    def supersede(self, about: About) -> None:
        """The outcome of this task is not wanted any more."""
        self._superseded.append(about)
        self._news.set()

    async def run(self) -> None:
        """Keep what is due, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._fresh or self._gone or self._superseded:
                await asyncio.sleep(self._pause())
                await self._write(self._due())

    def _pause(self) -> float:
        if self.trouble:
            return PAUSE
        first = next(iter(self._fresh.values()), None)
        return AFTER if first is None else max(0.0, min(AFTER, first.due - self._loop.time()))

    def _due(self) -> list[int]:
        first = next(iter(self._fresh.values()), None)
        return [] if first is None or first.due > self._loop.time() else list(self._fresh)

    async def _write(self, tokens: Iterable[int]) -> None:
        async with self._lock:
            rows = [self._row(token) for token in tokens if token in self._fresh]
            gone, self._gone = self._gone, []
            superseded, self._superseded = self._superseded, []
            if not (rows or gone or superseded):
                return
            try:
                numbers = await self.perform(lambda: self.spool.exchange(rows, gone, superseded))
            except StorageFailed as error:
                self._gone, self._superseded = gone + self._gone, superseded + self._superseded
                self._note_trouble(str(error))
                return
            for row, number in zip(rows, numbers, strict=False):
                if self._fresh.pop(row.token, None) is None:  # it was accepted meanwhile
                    self._gone.append(number)
                else:
                    self._numbers[row.token] = number
            self._note_trouble("the spool is full" if len(numbers) < len(rows) else "")

    def _row(self, token: int) -> Kept:
        fresh = self._fresh[token]
        return Kept(fresh.session, token, fresh.about, pack(fresh.settlement))

    def _note_trouble(self, trouble: str) -> None:
        before, self.trouble = self.trouble, trouble if self._fresh else ""
        if self.trouble and not before:
            log.error("%d outcomes are not kept, and no more tasks are taken: %s", len(self._fresh), trouble)
        if bool(self.trouble) is not bool(before):
            self._turned()

    async def perform(self, work: Callable[[], T]) -> T:
        """Do something with the spool, on the thread that is there for it."""
        return await self._loop.run_in_executor(self._thread, work)

    async def flush(self) -> int:
        """Keep all that was not accepted; gives how many outcomes are on disk."""
        await self._write(list(self._fresh))
        return len(self._numbers)

    async def close(self) -> None:
        """Forget on disk what the broker has, and give the spool back."""
        with contextlib.suppress(StorageFailed):
            await self._write(())
        await self.perform(self.spool.close)
        self._thread.shutdown()
