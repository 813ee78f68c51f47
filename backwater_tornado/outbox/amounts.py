"""How much an outbox holds, how much it may hold, and what is done when that is reached.

Rule: pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from backwater_tornado.errors import InvalidOption, OutboxFull

#: What sending does when there is no room: raise at once; wait for room, as long as sending may take; or drop the
#: oldest of what waits and has never been tried, which is counted and logged.
WhenFull = Literal["refuse", "wait", "drop_oldest"]
WAYS: Final[tuple[str, ...]] = get_args(WhenFull)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an outbox holds at most, what was refused included."""

    messages: int = 1_000_000
    #: Of bodies.
    size: int = 1 << 30
    when_full: WhenFull = "refuse"

    def __post_init__(self) -> None:
        for name, value in (("outbox_messages", self.messages), ("outbox_bytes", self.size)):
            given: Any = value
            if not isinstance(given, int) or isinstance(given, bool) or given < 1:
                raise InvalidOption(f"{name} is a whole number from 1, not {given!r}")
        if self.when_full not in WAYS:
            raise InvalidOption(f"outbox_full is one of {', '.join(WAYS)}, not {self.when_full!r}")

    def fits(self, messages: int, size: int) -> bool:
        """Whether so much may lie there."""
        return messages <= self.messages and size <= self.size

    def full(self) -> OutboxFull:
        """What is raised when there is no room."""
        return OutboxFull(f"the outbox is full: it holds {self.messages} messages, or {self.size} bytes, at most")


@dataclass(frozen=True, slots=True)
class Status:
    """An outbox at one moment."""

    #: Messages that wait, by their queues; of an order with several, under all their names.
    waiting: dict[str, int]
    #: When the oldest of them was sent, Unix seconds.
    oldest: float | None
    refused: int
    #: Of all bodies.
    size: int
    #: Messages that were ever dropped to make room.
    dropped: int
