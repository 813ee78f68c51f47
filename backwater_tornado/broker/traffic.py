"""What goes through a broker: of each queue how much within the last minute, of each key how much in all.

Counted in memory, a few additions for each call; it begins anew with each start of the broker. The totals of a queue
since its store began are the store's (`QueueStats`).

Rule: no clock; counts what it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from .values import QueueRates, SiteCounts

#: How many, of each queue.
Counts = Mapping[str, int]
#: Seconds that a rate looks back, and the parts that it looks at.
SPAN: Final = 60.0
_SLOTS: Final = 12
_SLOT: Final = SPAN / _SLOTS


class Recent:
    """How often something happened within the last minute."""

    __slots__ = ("_counts", "_slot")

    def __init__(self) -> None:
        self._counts = [0] * _SLOTS
        self._slot = 0

    def add(self, count: int, now: float) -> None:
        """It happened so often now."""
        self._move(now)
        self._counts[self._slot % _SLOTS] += count

    def count(self, now: float) -> int:
        """How often, up to now."""
        self._move(now)
        return sum(self._counts)

    def _move(self, now: float) -> None:
        slot = int(now // _SLOT)
        if slot <= self._slot:
            return
        for passed in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._counts[passed % _SLOTS] = 0
        self._slot = slot


class _Site:
    """The counts of one key, while they change."""

    __slots__ = ("bytes_in", "bytes_out", "heard", "published", "received", "settled")

    def __init__(self) -> None:
        self.published = self.received = self.settled = self.bytes_in = self.bytes_out = 0
        self.heard = 0.0


class Traffic:
    """See the head of this module.

    Args:
        now: the moment it begins, on a clock that never goes back; `now` everywhere else is on the same.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        self._queues: dict[str, tuple[Recent, Recent, Recent]] = {}
        self._sites: dict[str, _Site] = {}

    # Telling

    def hear(self, key_id: str, moment: float) -> None:
        """A call came, at a moment in Unix seconds."""
        self._site(key_id).heard = moment

    def published(self, key_id: str, copies: Counts, messages: int, size: int, now: float) -> None:
        """Messages were accepted, with so many copies into each queue; `size` bytes in all."""
        site = self._site(key_id)
        site.published += messages
        site.bytes_in += size
        self._count(0, copies, now)

    def received(self, key_id: str, messages: Counts, size: int, now: float) -> None:
        """So many messages of each queue were handed out; `size` bytes in all."""
        site = self._site(key_id)
        site.bytes_out += size
        site.received += sum(messages.values())
        self._count(1, messages, now)

    def settled(self, key_id: str, messages: int, acked: Counts, now: float) -> None:
        """Deliveries have ended; of them, so many of each queue were acknowledged."""
        self._site(key_id).settled += messages
        self._count(2, acked, now)

    def forget_idle(self, now: float) -> None:
        """Forget the queues through which nothing went within the span."""
        idle = [name for name, recent in self._queues.items() if not any(each.count(now) for each in recent)]
        for name in idle:
            del self._queues[name]

    # Looking

    def rates(self, names: Iterable[str], now: float) -> list[QueueRates]:
        """Of these queues, per second."""
        seconds = max(_SLOT, min(SPAN, now - self._began))
        found = []
        for name in names:
            recent = self._queues.get(name, ())
            found.append(QueueRates(name, *(each.count(now) / seconds for each in recent)))
        return found

    def sites(self) -> list[SiteCounts]:
        """Of each key that was heard of, by its id."""
        return [
            SiteCounts(key_id, **{name: getattr(site, name) for name in _Site.__slots__})
            for key_id, site in sorted(self._sites.items())
        ]

    def _site(self, key_id: str) -> _Site:
        site = self._sites.get(key_id)
        if site is None:
            site = self._sites[key_id] = _Site()
        return site

    def _count(self, kind: int, counts: Counts, now: float) -> None:
        for name, count in counts.items():
            recent = self._queues.get(name)
            if recent is None:
                recent = self._queues[name] = (Recent(), Recent(), Recent())
            recent[kind].add(count, now)
