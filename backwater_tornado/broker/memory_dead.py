"""Messages put aside, in memory.

Rule: it keeps and lists them; why they are here, and where they go from here, is decided by others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import count

from .memory_queue import Copy
from .values import DeadLetter


class DeadLetters:
    """The dead, by their numbers."""

    def __init__(self) -> None:
        self._letters: dict[int, tuple[DeadLetter, Copy]] = {}
        self._order: list[int] = []  # their numbers, rising, so that a page is found without a walk
        self._numbers = count(1)
        self._counts: Counter[str] = Counter()

    def add(self, copy: Copy, reason: str, detail: str, now: float) -> None:
        """Put it aside, under the next number."""
        number = copy.number = next(self._numbers)
        exchange, routing_key = copy.publication.exchange, copy.publication.routing_key
        letter = DeadLetter(
            number, copy.queue, copy.message, exchange, routing_key, reason, detail, at=now, count=copy.count
        )
        self._letters[number] = letter, copy
        self._order.append(number)
        self._counts[copy.queue] += 1

    def find(self, number: int) -> Copy | None:
        """The copy of that number."""
        found = self._letters.get(number)
        return None if found is None else found[1]

    def remove(self, copy: Copy) -> None:
        """Take it from among the dead."""
        del self._letters[copy.number]
        del self._order[bisect_right(self._order, copy.number) - 1]
        self._counts[copy.queue] -= 1
        if not self._counts[copy.queue]:
            del self._counts[copy.queue]
        copy.number = 0

    def count(self, queue: str) -> int:
        """How many are of this queue."""
        return self._counts[queue]

    def page(self, queue: str | None, after: int, limit: int) -> list[DeadLetter]:
        """See `Store.dead_letters`."""
        found: list[DeadLetter] = []
        for place in range(bisect_right(self._order, after), len(self._order)):
            if len(found) >= limit:
                break
            letter, _ = self._letters[self._order[place]]
            if queue is None or letter.queue == queue:
                found.append(letter)
        return found
