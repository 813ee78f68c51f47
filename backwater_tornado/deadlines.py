"""Deadlines of many runs, most of which end long before.

Rule: knows of a run only its `deadline`; one loop, one thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar


class HasDeadline(Protocol):
    """What ends, or is ended."""

    #: On `time.monotonic()`.
    deadline: float


R = TypeVar("R", bound=HasDeadline)


class Deadlines(Generic[R]):
    """Calls `expire` for each run whose deadline has passed, within `_TICK` seconds of it.

    A timer of the loop for each call would cost as much as a short call itself. Here runs of one tick share a bucket,
    and there is one timer, for the earliest.
    """

    _TICK = 0.02

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[R], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._buckets: dict[int, set[R]] = {}
        #: The ticks that have, or had, a bucket.
        self._ticks: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def add(self, run: R) -> None:
        """Watch a run."""
        tick = self._tick(run)
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.add(run)
            return
        self._buckets[tick] = {run}
        heappush(self._ticks, tick)
        if tick < self._due:
            self._arm()

    def remove(self, run: R) -> None:
        """Watch it no more."""
        bucket = self._buckets.get(self._tick(run))
        if bucket is not None:
            bucket.discard(run)

    def close(self) -> None:
        """Watch none any more."""
        self._buckets.clear()
        self._ticks.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf

    def _tick(self, run: R) -> int:
        return int(run.deadline / self._TICK) + 1

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = self._ticks[0]
        self._timer = self._loop.call_later(self._due * self._TICK - time.monotonic(), self._look)

    def _look(self) -> None:
        now = time.monotonic() / self._TICK
        while self._ticks and self._ticks[0] <= now:
            for run in self._buckets.pop(heappop(self._ticks)):
                self._expire(run)
        # Calls seldom reach their deadlines: most buckets are empty by now.
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heappop(self._ticks)]
        self._timer, self._due = None, math.inf
        if self._ticks:
            self._arm()
