"""One queue in memory: what waits in it, in order, and how much of it may be handed out.

Rule: a queue knows its own copies of messages and its own limits; what their end means to others is not its affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, auto
from heapq import heapify, heappop, heappush
from typing import Final

from .values import Delivery, Outcome, Publication, Queue, QueueStats

#: Entries of the order that are outdated and borne with.
SLACK: Final = 64
#: A queue with a rate makes good for so many seconds in which nobody asked; so that much comes at once, and one more.
BURST: Final = 0.1


class Place(IntEnum):
    """Where a copy is."""

    READY = auto()
    DELAYED = auto()
    LEASED = auto()
    PARKED = auto()
    DEAD = auto()
    GONE = auto()


class Known:
    """What is known of a publication, as long as its id is remembered; shared by its copies."""

    __slots__ = ("cancelled", "content", "copies", "failed", "id", "joins", "open", "queues", "unique")

    def __init__(self, id: str) -> None:
        self.id = id
        #: By which a repetition is told from another message of the same id; None: it has yet to come.
        self.content: int | None = None
        self.queues: tuple[str, ...] = ()
        #: Those that are not gone, and how many of them have not ended.
        self.copies: list[Copy] = []
        self.open = 0
        self.failed = False
        #: With this outcome, if it is.
        self.cancelled: Outcome | None = None
        self.joins: tuple[str, ...] = ()
        self.unique: str | None = None


class Copy:
    """A message in one queue."""

    __slots__ = (
        "count",
        "due",
        "expires",
        "known",
        "message",
        "number",
        "once",
        "place",
        "priority",
        "publication",
        "published_at",
        "queue",
        "seq",
        "session",
    )

    def __init__(self, known: Known, publication: Publication, queue: str, seq: int, now: float) -> None:
        self.known = known
        #: How it was routed; `message` is what it is by now.
        self.publication = publication
        self.message = publication.message
        self.queue = queue
        #: Its place in the order, for good.
        self.seq = seq
        self.published_at = now
        self.place = Place.GONE
        self.priority = 0
        self.due = now
        self.expires: float | None = None
        self.count = 0
        #: Its receiver has begun, and nobody may again.
        self.once = False
        #: The token of its lease, or of one that it has come back from, or its number among the dead; 0: none of them.
        self.number = 0
        #: Who holds it, or may claim it.
        self.session = ""

    def delivery(self) -> Delivery:
        """As it is handed out."""
        publication = self.publication
        return Delivery(
            self.number,
            self.queue,
            self.message,
            publication.exchange,
            publication.routing_key,
            self.count,
            self.published_at,
        )


class Line:
    """A queue: ready copies in order, delayed ones, and counts."""

    __slots__ = (
        "_heaps",
        "_stale",
        "acked",
        "delayed",
        "delivered",
        "leased",
        "next_at",
        "published",
        "ready",
        "receivers",
        "spec",
    )

    def __init__(self, spec: Queue) -> None:
        self.spec = spec
        self.ready: dict[int, Copy] = {}
        self.delayed: dict[int, Copy] = {}
        #: Of each priority, the numbers of ready copies, with some that are not ready any more.
        self._heaps: dict[int, list[int]] = {}
        self._stale = 0
        self.leased = 0
        self.published = self.delivered = self.acked = 0
        #: When the next may be handed out, for the rate.
        self.next_at = float("-inf")
        #: The living sessions that have polled for it.
        self.receivers: set[str] = set()

    @property
    def open(self) -> bool:
        """Whether there is something that it may hand out, rate aside."""
        spec = self.spec
        return bool(self.ready) and not spec.paused and (spec.max_running is None or self.leased < spec.max_running)

    @property
    def is_full(self) -> bool:
        """Whether no more may wait."""
        limit = self.spec.max_length
        return limit is not None and len(self.ready) + len(self.delayed) >= limit

    def add(self, copy: Copy, now: float) -> None:
        """Let it wait: until it is due, or in its place."""
        if copy.due > now:
            copy.place = Place.DELAYED
            self.delayed[copy.seq] = copy
            return
        copy.place = Place.READY
        self.ready[copy.seq] = copy
        heap = self._heaps.get(copy.priority)
        if heap is None:
            heap = self._heaps[copy.priority] = []
        heappush(heap, copy.seq)

    def remove(self, copy: Copy) -> None:
        """Take out a copy that waits, from anywhere."""
        if copy.place is Place.DELAYED:
            del self.delayed[copy.seq]
            return
        del self.ready[copy.seq]
        self._stale += 1
        if self._stale > len(self.ready) + SLACK:
            self._order()

    def _order(self) -> None:
        """Make the order anew, without what is not ready any more."""
        self._stale = 0
        self._heaps = {}
        for copy in self.ready.values():
            self._heaps.setdefault(copy.priority, []).append(copy.seq)
        for heap in self._heaps.values():
            heapify(heap)

    def first(self) -> Copy | None:
        """What is handed out next, left in its place."""
        while self._heaps:
            priority = max(self._heaps)
            head = self._head(self._heaps[priority])
            if head is not None:
                return head
            del self._heaps[priority]
        return None

    def _head(self, heap: list[int]) -> Copy | None:
        while heap:
            copy = self.ready.get(heap[0])
            if copy is not None:
                return copy
            heappop(heap)
            self._stale -= 1
        return None

    def take(self, copy: Copy) -> None:
        """Hand out the `first`."""
        heappop(self._heaps[copy.priority])
        del self.ready[copy.seq]
        self.leased += 1
        self.delivered += 1

    def take_again(self, copy: Copy) -> None:
        """One that has come back is out again."""
        self.remove(copy)
        self.leased += 1

    def waiting(self) -> list[Copy]:
        """All that is ready or delayed."""
        return [*self.ready.values(), *self.delayed.values()]

    def next_to_drop(self) -> Copy | None:
        """What a full queue drops: what would be received next."""
        return self.first() or min(self.delayed.values(), key=lambda copy: (copy.due, copy.seq), default=None)

    def room(self, wanted: int, now: float) -> int:
        """How many of so many may be handed out now."""
        spec = self.spec
        if spec.paused:
            return 0
        if spec.max_running is not None:
            wanted = min(wanted, spec.max_running - self.leased)
        if spec.rate is not None:
            wanted = min(wanted, self._allowance(spec.rate, now))
        return wanted

    def _allowance(self, rate: float, now: float) -> int:
        # A poll that comes late loses nothing, up to BURST. And never later than one message from now: the clock may
        # have been set back, or the rate raised.
        self.next_at = min(max(self.next_at, now - BURST), now + 1 / rate)
        return int((now - self.next_at) * rate + 1e-6) + 1 if self.next_at <= now else 0

    def spend(self, taken: int) -> None:
        """Count what was handed out for the rate."""
        if self.spec.rate:
            self.next_at += taken / self.spec.rate

    def stats(self, dead: int) -> QueueStats:
        """Its counts."""
        return QueueStats(
            queue=self.spec,
            ready=len(self.ready),
            delayed=len(self.delayed),
            leased=self.leased,
            dead=dead,
            oldest=min((copy.published_at for copy in self._heads()), default=None),
            sessions=len(self.receivers),
            published=self.published,
            delivered=self.delivered,
            acked=self.acked,
        )

    def _heads(self) -> Iterator[Copy]:
        for heap in self._heaps.values():
            if (head := self._head(heap)) is not None:
                yield head
