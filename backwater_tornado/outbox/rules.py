"""What a forwarder decides: which parcels go next, in what size of requests, and when it tries again.

Order is kept for each queue: a parcel goes when nothing before it that goes to one of its queues waits or is on its
way. A request takes all that waits for a queue, as far as that fits, and leaves other queues to the next ones: so
several can be on their way at once.

A request that fails makes the next ones smaller: on a link that is cut every few seconds, only small ones get through.

Rule: pure; dice are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from backwater_tornado.broker.store import REMEMBER
from backwater_tornado.tasks.flows import MAX_BYTES, MAX_MESSAGES

from .parcels import Place

#: The longest pause between two attempts while the link is down, and the first, seconds.
MAX_PAUSE: Final = 2.0
FIRST_PAUSE: Final = 0.05
#: What a request holds at least, however bad the link: messages, and bytes.
LEAST_MESSAGES: Final = 16
LEAST_BYTES: Final = 32 << 10
#: The broker remembers ids at least so long, seconds; with an hour for clocks that are apart.
KNOWN_FOR: Final = REMEMBER - 3600.0


@dataclass(frozen=True, slots=True)
class Room:
    """What a request holds."""

    messages: int = MAX_MESSAGES
    size: int = MAX_BYTES

    def smaller(self) -> Room:
        """After a failure."""
        return replace(self, messages=max(self.messages // 2, LEAST_MESSAGES), size=max(self.size // 2, LEAST_BYTES))

    def larger(self) -> Room:
        """After a success."""
        return replace(self, messages=min(self.messages * 2, MAX_MESSAGES), size=min(self.size * 2, MAX_BYTES))


def choose(waiting: Sequence[Place], busy: Iterable[str], room: Room) -> list[Place]:
    """The parcels of the next request, in their order; a parcel larger than a request goes alone.

    Args:
        waiting: in their order, without those that are on their way.
        busy: the queues of those that are.
        room: what the request holds.
    """
    barred = set(busy)
    amounts = _amounts(waiting)
    among: set[str] = set()
    planned = _NOTHING
    chosen: list[Place] = []
    taken = _NOTHING
    for each in waiting:
        new = [queue for queue in each.queues if queue not in among]
        with_new = planned.plus(*(amounts[queue] for queue in new))
        if not barred.isdisjoint(each.queues) or (new and among and not with_new.fits(room)):
            barred.update(each.queues)
            continue
        taken = taken.plus(_Amount(each.messages, each.size))
        if chosen and not taken.fits(room):
            break
        chosen.append(each)
        among.update(new)
        planned = with_new
    return chosen


class _Amount(NamedTuple):
    messages: int
    size: int

    def plus(self, *others: _Amount) -> _Amount:
        messages, size = self
        for each in others:
            messages += each.messages
            size += each.size
        return _Amount(messages, size)

    def fits(self, room: Room) -> bool:
        return self.messages <= room.messages and self.size <= room.size


_NOTHING: Final = _Amount(0, 0)


def _amounts(waiting: Iterable[Place]) -> dict[str, _Amount]:
    """What waits for each queue."""
    found: dict[str, _Amount] = {}
    for each in waiting:
        own = _Amount(each.messages, each.size)
        for queue in each.queues:
            found[queue] = found.get(queue, _NOTHING).plus(own)
    return found


def pause(failures: int, dice: float) -> float:
    """How long to wait after so many failures in a row, seconds; `dice` from 0 to 1."""
    longest = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
    return longest * (0.5 + dice / 2)


def is_known(tried: float | None, now: float) -> bool:
    """Whether a parcel may be sent again: the broker would know it, if it has arrived before."""
    return tried is None or now - tried < KNOWN_FOR
