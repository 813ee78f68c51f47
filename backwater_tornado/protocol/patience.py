"""How long a poll may wait in silence at one endpoint, learned from polls that die.

Proxies, balancers and firewalls on the way end a request that is silent for too long. When two polls in a row die at
about the same age, that is taken for their limit, and the polls that follow ask for less. After a while one asks for
all again; if it dies there, too, the limit holds, and it takes twice as long until the next one tries.

Rule: pure; time is given. It learns from deaths on the way only, not from silence: that is a link that is down.
"""

from __future__ import annotations

from typing import Final

#: Younger ones do not die of a limit, seconds.
LEAST_AGE: Final = 1.0
#: Ages are about the same when they differ by no more than this part of them.
NEAR: Final = 0.2
#: The part of a limit that is asked for.
SHARE: Final = 0.8
#: Until more is asked for again, seconds: at first, and at most.
FIRST_REST: Final = 300.0
LONGEST_REST: Final = 6 * 3600.0


class Patience:
    """Of one endpoint; spans are seconds, moments those of one monotonic clock.

    Attributes:
        limit: what polls may wait; None: nothing is known.
    """

    __slots__ = ("_age", "_died_at", "_rest", "_retry_at", "limit")

    def __init__(self) -> None:
        self.limit: float | None = None
        #: The age of the last one that died, since when none has lived longer; and when that was.
        self._age: float | None = None
        self._died_at = float("-inf")
        self._rest = FIRST_REST
        self._retry_at = 0.0

    def allow(self, wait: float, now: float) -> float:
        """How long a poll should wait that would like to wait so long."""
        if self.limit is None or now >= self._retry_at:
            return wait
        return min(wait, self.limit)

    def note_death(self, began: float, wait: float, now: float) -> None:
        """A poll that began then, and was to wait so long, was ended by something on the way."""
        age = now - began
        # Those that were on their way together die together, of one cut.
        if began < self._died_at or not LEAST_AGE <= age <= wait + LEAST_AGE:
            return
        self._died_at = now
        before, self._age = self._age, age
        if before is not None and abs(before - age) <= NEAR * before:
            if self.limit is not None:
                self._rest = min(self._rest * 2, LONGEST_REST)
            self.limit = SHARE * min(before, age)
            self._retry_at = now + self._rest

    def note_life(self, age: float) -> None:
        """A poll was answered at that age."""
        if self._age is not None and age > self._age * (1 + NEAR):
            self._age = self.limit = None
            self._rest = FIRST_REST
