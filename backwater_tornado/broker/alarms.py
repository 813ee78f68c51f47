"""Things and their moments: the earliest first, each can be moved or taken back.

A moved or cancelled entry stays in the heap until it is on top, or until most of the heap is such: so that a message
with a day to live that is received at once does not stay a day.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

#: Outdated entries that are always borne with.
SLACK = 64


class Alarms(Generic[T]):
    """One moment for each thing."""

    __slots__ = ("_heap", "_tie", "_when")

    def __init__(self) -> None:
        self._when: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._tie = count()  # so that things are never compared

    def __contains__(self, thing: T) -> bool:
        return thing in self._when

    def set(self, thing: T, when: float) -> None:
        """Put it at this moment, and at no other."""
        self._when[thing] = when
        heappush(self._heap, (when, next(self._tie), thing))
        self._tidy()

    def cancel(self, thing: T) -> None:
        """Take it back; if it is not there, nothing."""
        if self._when.pop(thing, None) is not None:
            self._tidy()

    def next(self) -> float | None:
        """The earliest moment."""
        heap, when = self._heap, self._when
        while heap:
            moment, _, thing = heap[0]
            if when.get(thing) == moment:
                return moment
            heappop(heap)
        return None

    def due(self, now: float) -> Iterator[T]:
        """Take out, one by one, what is due; what is set meanwhile counts too."""
        while (moment := self.next()) is not None and moment <= now:
            thing = heappop(self._heap)[2]
            del self._when[thing]
            yield thing

    def cap_one(self, thing: T, latest: float) -> None:
        """Bring it forward to this moment if it is later."""
        if self._when.get(thing, latest) > latest:
            self.set(thing, latest)

    def cap(self, latest: float) -> None:
        """Bring forward to this moment whatever is later."""
        for thing in [thing for thing, when in self._when.items() if when > latest]:
            self.set(thing, latest)

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._when) + SLACK:
            self._heap = [(when, next(self._tie), thing) for thing, when in self._when.items()]
            heapify(self._heap)
