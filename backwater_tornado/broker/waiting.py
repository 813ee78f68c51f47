"""Who waits for what: polls for queues, callers for results, and whom a committed transaction wakes.

Rule: wakes one time too often rather than too seldom; whoever wakes looks for itself. Knows no store.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .values import Effects


class Waiting:
    """One poll, or one caller who waits for results."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        #: Another poll of the same session has come.
        self.superseded = False

    def begin(self) -> None:
        """What happens from now on wakes it; then it looks, then it waits."""
        self._woken.clear()

    def wake(self) -> None:
        """Something happened that may concern it."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Wait until it is woken, and no longer than that."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return


class Waiters:
    """All that wait at a broker."""

    def __init__(self) -> None:
        self._by_queue: dict[str, set[Waiting]] = defaultdict(set)
        self._by_result: dict[str, set[Waiting]] = defaultdict(set)
        self._polls: dict[str, Waiting] = {}
        #: Nobody shall begin to wait any more.
        self.closing = False

    @contextmanager
    def polling(self, session: str, queues: Sequence[str]) -> Iterator[Waiting]:
        """A poll of a session; the one before it is sent home."""
        before = self._polls.get(session)
        if before is not None:
            before.superseded = True
            before.wake()
        self._polls[session] = waiting = Waiting()
        for queue in queues:
            self._by_queue[queue].add(waiting)
        try:
            yield waiting
        finally:
            for queue in queues:
                _discard(self._by_queue, queue, waiting)
            if self._polls.get(session) is waiting:
                del self._polls[session]

    @contextmanager
    def awaiting(self, ids: Sequence[str]) -> Iterator[Waiting]:
        """A caller who waits for results."""
        waiting = Waiting()
        for each in ids:
            self._by_result[each].add(waiting)
        try:
            yield waiting
        finally:
            for each in ids:
                _discard(self._by_result, each, waiting)

    def wake(self, effects: Effects) -> None:
        """Wake whom a committed transaction concerns."""
        for queue in effects.queues:
            for waiting in self._by_queue.get(queue, ()):
                waiting.wake()
        for each in effects.results:
            for waiting in self._by_result.get(each, ()):
                waiting.wake()
        for session in effects.sessions:
            if session in self._polls:
                self._polls[session].wake()

    def send_home(self) -> None:
        """Wake everybody, and let none wait any more."""
        self.closing = True
        for waiting in [*self._polls.values(), *(each for several in self._by_result.values() for each in several)]:
            waiting.wake()


def _discard(waiting: dict[str, set[Waiting]], name: str, one: Waiting) -> None:
    several = waiting.get(name)
    if several is not None:
        several.discard(one)
        if not several:
            del waiting[name]
