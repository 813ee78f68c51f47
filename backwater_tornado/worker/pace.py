"""How many deliveries a worker holds at a time: few of long tasks, many of short ones.

What is held waits for nobody else, so it should be little; what is missing leaves the pool idle for a round trip, so it
should be enough. As much as was done within the last second or so is both: never more than a second's worth of waiting.

Rule: pure; the time is given.
"""

from __future__ import annotations

#: Held at most, and for each slot of the pools at least.
MOST, LEAST_PER_SLOT = 1000, 4
#: What is counted at a time, seconds.
SPAN = 1.0


class Pace:
    """Counts what ends.

    Args:
        slots: how many run at a time.
        fixed: hold just so many; None: as it goes.
    """

    def __init__(self, slots: int, fixed: int | None, now: float) -> None:
        self._least = max(1, slots) * LEAST_PER_SLOT
        self._fixed = fixed
        self._since = now
        self._ended = self._before = 0

    def note_end(self, now: float) -> None:
        """One has ended."""
        self._roll(now)
        self._ended += 1

    def prefetch(self, now: float) -> int:
        """How many to hold now."""
        if self._fixed is not None:
            return self._fixed
        self._roll(now)
        return max(self._least, min(MOST, max(self._ended, self._before)))

    def _roll(self, now: float) -> None:
        passed = now - self._since
        if passed >= SPAN:
            self._before = self._ended if passed < 2 * SPAN else 0
            self._ended, self._since = 0, now
