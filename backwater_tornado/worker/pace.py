"""How many deliveries a worker holds at a time: few of long tasks, many of short ones.

What is held waits for nobody else, so it should be little; what is missing leaves the pools idle for a round trip, so
it should be enough. As much as was done within the last second or so is both: never more than a second's worth of
waiting.

At first, and over a long link, that is not enough: little was done because little was here. When a full batch finds
the pools idle (*dry*), several times as many are held from then on, as far as the pools would run them within a second;
so over any link it takes a few round trips until the pools are busy.

Rule: pure; the time is given.
"""

from __future__ import annotations

from typing import Final

#: Held at most, and for each slot of the pools at least.
MOST: Final = 1000
LEAST_PER_SLOT: Final = 4
#: What is counted at a time, seconds.
SPAN: Final = 1.0
#: So many times as much is held when the pools are dry.
GROWTH: Final = 4
#: What the last run says of how long runs take, against those before.
WEIGHT: Final = 1 / 16


class Pace:
    """Counts what ends.

    Args:
        slots: how many run at a time.
        fixed: hold just so many; None: as it goes.
    """

    def __init__(self, slots: int, fixed: int | None, now: float) -> None:
        self._slots = max(1, slots)
        self._fixed = fixed
        self._since = now
        self._ended = self._before = 0
        #: How long runs take, on average, seconds; None: there was none.
        self._taking: float | None = None
        #: What was too little when the pools were dry; half of it each `SPAN` since.
        self._boost = 0

    def note_end(self, now: float, taken: float) -> None:
        """One has ended that took so long."""
        self._roll(now)
        self._ended += 1
        self._taking = taken if self._taking is None else self._taking + (taken - self._taking) * WEIGHT

    def note_dry(self, now: float) -> None:
        """There was nothing to do, while there is more to do than may be held."""
        if self._taking is not None:
            within_a_span = self._slots * SPAN / max(self._taking, 1e-6)
            self._boost = int(min(self.prefetch(now) * GROWTH, within_a_span, MOST))

    def prefetch(self, now: float) -> int:
        """How many to hold now."""
        if self._fixed is not None:
            return self._fixed
        self._roll(now)
        return max(self._slots * LEAST_PER_SLOT, min(MOST, max(self._ended, self._before, self._boost)))

    def _roll(self, now: float) -> None:
        passed = now - self._since
        if passed >= SPAN:
            self._before = self._ended if passed < 2 * SPAN else 0
            self._boost >>= min(int(passed / SPAN), 16)
            self._ended, self._since = 0, now
