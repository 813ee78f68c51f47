"""Whose turn it is: which of the tasks in hand begins when a slot of its pool is free, in what order.

First come, first served; one whose function may not run now (it runs often enough, or began too short a time ago) steps
aside for the others, and is first again when it may. A function's limits hold in this worker; those of all workers
together are the queue's own (`Queue.rate`, `Queue.max_running`).

Rule: knows of a task its limit only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Limited(Protocol):
    """What waits for its turn."""

    @property
    def limit(self) -> Limit | None:
        """That of its function."""
        ...


W = TypeVar("W", bound=Limited)


class Limit:
    """What one function may in this worker.

    Args:
        most: runs at a time; None: no bound.
        rate: begins in a second, evenly; None: no bound.
    """

    def __init__(self, most: int | None, rate: float | None) -> None:
        self._free = most
        self._rate = rate
        self._next = float("-inf")
        #: Those that stepped aside.
        self.aside: deque[Limited] = deque()
        self.timer: asyncio.TimerHandle | None = None

    def may_in(self, now: float) -> float | None:
        """In how many seconds one may begin, 0: now; None: when another has ended."""
        if self._free == 0:
            return None
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """One begins."""
        if self._free is not None:
            self._free -= 1
        if self._rate is not None:
            self._next = max(self._next, now) + 1 / self._rate

    def give_back(self) -> None:
        """One has ended."""
        if self._free is not None:
            self._free += 1


class Turns(Generic[W]):
    """The slots of one pool.

    Args:
        size: how many run at a time.
        wanted: whether one whose turn it is should still begin.
        begin: called with one that begins; `end` gives its slot back.
        loop: its clock is the one of limits.
    """

    def __init__(
        self,
        size: int,
        wanted: Callable[[W], bool],
        begin: Callable[[W], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._free = size
        self._wanted = wanted
        self._begin = begin
        self._loop = loop
        self._waiting: deque[W] = deque()
        self._going = False
        #: How many have stepped aside, some of which may have been taken away.
        self.aside = 0

    def add(self, one: W) -> None:
        """It waits from now on, or begins."""
        self._waiting.append(one)
        self._go()

    def end(self, one: W) -> None:
        """It has ended: its slot is free."""
        self._free += 1
        if one.limit is not None:
            one.limit.give_back()
            self._come_forward(one.limit)
        self._go()

    def _go(self) -> None:
        if self._going:  # what begins may end at once
            return
        self._going = True
        try:
            while self._free and self._waiting:
                self._try(self._waiting.popleft())
        finally:
            self._going = False

    def _try(self, one: W) -> None:
        if not self._wanted(one):
            if one.limit is not None:
                self._come_forward(one.limit)
        elif self._is_admitted(one):
            self._free -= 1
            self._begin(one)

    def _is_admitted(self, one: W) -> bool:
        limit = one.limit
        if limit is None:
            return True
        now = self._loop.time()
        wait = limit.may_in(now)
        if wait == 0:
            limit.take(now)
            self._come_forward(limit)
            return True
        limit.aside.append(one)
        self.aside += 1
        if wait is not None:
            self._wake_in(limit, wait)
        return False

    def _wake_in(self, limit: Limit, seconds: float) -> None:
        if limit.timer is None:
            limit.timer = self._loop.call_later(seconds, self._wake, limit)

    def _wake(self, limit: Limit) -> None:
        limit.timer = None
        self._come_forward(limit)
        self._go()

    def _come_forward(self, limit: Limit) -> None:
        """The first of those aside is in front of all, if it may begin; the next has its timer."""
        if not limit.aside:
            return
        wait = limit.may_in(self._loop.time())
        if wait == 0:
            self.aside -= 1
            self._waiting.appendleft(limit.aside.popleft())  # type: ignore[arg-type]  # what is aside was added here
        elif wait is not None:
            self._wake_in(limit, wait)
