"""Whether an endpoint is asked while there are others: a circuit breaker.

    CLOSED ──failures──> OPEN ──after a rest──> HALF_OPEN ──an answer──> CLOSED
                          ^                         │
                          └──a failure, and a longer rest──┘

One failure opens it where not even a connection came about; otherwise it takes `PATIENCE` of them in a row, as a single
answer may get lost anywhere; what was on its way together fails together, and counts once. While it is half open one
call at a time is let through, to see. Rests grow, and are jittered, so that many clients do not try at one moment.

Rule: advice for whoever can choose. Where no endpoint is closed the one whose rest ends first is asked all the same, so
an open breaker never makes a server unreachable that is not. Pure: time and dice are given.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

#: Failures in a row that open it, where something was sent.
PATIENCE: Final = 3


class State(StrEnum):
    """How an endpoint is treated."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """One endpoint's; moments are those of one monotonic clock, spans are seconds.

    Threads may use it without a lock: at worst two of them try at the same moment.

    Args:
        changed: called with what it has become: OPEN, or CLOSED again.

    Attributes:
        state: as it is now.
        failures: in a row.
        retry_at: when one call is let through; 0 while it is closed.
    """

    __slots__ = ("_changed", "_failed_at", "_openings", "failures", "retry_at", "state")

    def __init__(self, changed: Callable[[State], None] = lambda _: None) -> None:
        self._changed = changed
        #: Without an answer between them.
        self._openings = 0
        self._failed_at = float("-inf")
        self.state = State.CLOSED
        self.failures = 0
        self.retry_at = 0.0

    def admit(self, now: float, patience: float) -> bool:
        """Whether a call may go there; if it is the one that is to see, it may take `patience` seconds for that."""
        if self.state is State.CLOSED:
            return True
        if now < self.retry_at:
            return False
        self.state = State.HALF_OPEN
        self.retry_at = now + patience
        return True

    def note_answer(self) -> None:
        """It has answered."""
        if self.failures:
            before, self.state = self.state, State.CLOSED
            self.failures = self._openings = 0
            self.retry_at = 0.0
            if before is not State.CLOSED:
                self._changed(State.CLOSED)

    def note_failure(
        self, began: float, now: float, rest: tuple[float, float], dice: float, *, unreachable: bool
    ) -> None:
        """It has not answered what began then.

        Args:
            rest: the first, and the longest.
            dice: 0 to 1.
            unreachable: not even a connection came about.
        """
        if began < self._failed_at:
            return
        self.failures, self._failed_at = self.failures + 1, now
        before = self.state
        if before is State.OPEN or not (unreachable or before is State.HALF_OPEN or self.failures >= PATIENCE):
            return
        first, longest = rest
        # The exponent is bounded: 2.0**1024 would overflow.
        self.retry_at = now + min(longest, first * 2.0 ** min(self._openings, 30)) * (0.5 + dice / 2)
        self._openings += 1
        self.state = State.OPEN
        if before is State.CLOSED:
            self._changed(State.OPEN)
