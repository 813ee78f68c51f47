"""The life of messages in memory: they come into queues, wait, end, and something follows from it.

A method that takes a copy of a message from one place to another says in its name where to; taking it out of a lease or
from among the dead is its caller's. What a message's end has published comes into its queues in `follow_up`, once all
else is done: so ends never call each other, however long a chain of them is.

Rule: it knows no sessions and no batches; those are `memory_store`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Final, Literal

from msgspec.structs import replace

from .alarms import Alarms
from .memory_dead import DeadLetters
from .memory_queue import Copy, Known, Line, Place
from .memory_results import Joins, Results
from .memory_topology import Topology
from .values import (
    Effects,
    Join,
    Message,
    Outcome,
    Publication,
    Published,
    PublishState,
    Queue,
    Result,
    replaced,
    timed,
)

DROPPED: Final = Outcome("dropped", failed=True)
_NOTHING: Final = Effects()

Reason = Literal["rejected", "expired", "max_deliveries", "lost", "parked", "dropped"]


class Touched:
    """Whom a transaction concerns, as it goes on."""

    __slots__ = ("cancelled", "queues", "results")

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self.results: set[str] = set()
        #: Running copies whose message was cancelled.
        self.cancelled: list[Copy] = []

    def effects(self) -> Effects:
        """All of them."""
        if not (self.queues or self.results or self.cancelled):
            return _NOTHING
        sessions = frozenset([copy.session for copy in self.cancelled])
        return Effects(frozenset(self.queues), frozenset(self.results), sessions)


def content_of(publication: Publication) -> int:
    """What tells another message of the same id."""
    message = publication.message
    routing = publication.exchange, publication.routing_key
    return hash((message.body, message.headers, message.content_type, message.content_encoding, routing))


class Messages:
    """All queues, and all messages in them.

    Args:
        remember: how long ids are, after their end, in seconds.
    """

    def __init__(self, remember: float) -> None:
        self._remember = remember
        self.topology = Topology()
        self.results = Results()
        self.joins = Joins(remember)
        self.dead = DeadLetters()
        self.lines: dict[str, Line] = {}
        #: What has come back without a settlement, and was not handed out since, by the tokens of its leases.
        self.left: dict[int, Copy] = {}
        #: Queues that were deleted while deliveries were out.
        self._deleted: dict[str, Line] = {}
        self._known: dict[str, Known] = {}
        #: Who holds a key, and until when in any case.
        self._unique: dict[str, tuple[Known, float | None]] = {}
        self._places = count(1)
        self._pending: deque[Publication] = deque()
        self._delayed: Alarms[Copy] = Alarms()
        self._expiring: Alarms[Copy] = Alarms()
        self._idle: Alarms[str] = Alarms()  # queues without receivers
        self._forgetting: Alarms[str] = Alarms()  # ids

    # Queues

    def declare(self, spec: Queue, now: float, touched: Touched) -> None:
        """Make a queue, or change its limits."""
        line = self.lines.get(spec.name)
        if line is None:
            line = self.lines[spec.name] = self._deleted.pop(spec.name, Line(spec))
        line.spec = spec
        self.idle(line, now)
        self.wake(line, touched)

    def idle(self, line: Line, now: float) -> None:
        """Count from now how long nobody uses a queue, if nobody does."""
        if line.spec.expires is None or line.receivers:
            self._idle.cancel(line.spec.name)
        else:
            self._idle.set(line.spec.name, now + line.spec.expires)

    def delete(self, name: str, now: float, touched: Touched) -> int:
        """Delete a queue, if it is there; gives the number of messages dropped."""
        line = self.lines.get(name)
        if line is None:
            return 0
        dropped = self.purge(line, now, touched)
        del self.lines[name]
        self.topology.remove_queue(name)
        self._idle.cancel(name)
        line.receivers.clear()
        line.published = line.delivered = line.acked = 0
        if line.leased:
            self._deleted[name] = line
        return dropped

    def purge(self, line: Line, now: float, touched: Touched) -> int:
        """Drop what waits in a queue."""
        waiting = line.waiting()
        for copy in waiting:
            self._take_out(line, copy)
            self.end(copy, DROPPED, True, now, touched)
        return len(waiting)

    def wake(self, line: Line, touched: Touched) -> None:
        """Name a queue that may have something to hand out."""
        if line.open:
            touched.queues.add(line.spec.name)

    # Arriving

    def publish(self, publication: Publication, now: float, touched: Touched, forced: bool = False) -> Published:
        """Route it; `forced` past full queues."""
        publication = timed(publication, now)
        message = publication.message
        known = self._known.get(message.id)
        if known is not None and known.content is not None:
            if known.content == content_of(publication):
                return Published(PublishState.DUPLICATE, known.queues)
            return Published(PublishState.REFUSED, reason="id_of_another_message")
        if known is not None and known.cancelled is not None:
            self._arrive_ended(known, publication, known.cancelled, now, touched)
            return Published(PublishState.ACCEPTED)
        queues = self.topology.route(publication, self.lines)
        if queues is None:
            return Published(PublishState.REFUSED, reason="unknown_exchange")
        if not queues:
            return Published(PublishState.UNROUTED)
        if not self._is_free(message.unique, now):
            return Published(PublishState.REFUSED, reason="unique_key_held")
        lines = [self.lines[name] for name in queues]
        if not forced and any(line.is_full and line.spec.overflow == "refuse" for line in lines):
            return Published(PublishState.REFUSED, reason="queue_full")
        known = self._introduce(Known(message.id), publication)
        known.queues = queues
        self._hold(known, message)
        for line in lines:
            self._arrive(line, Copy(known, publication, line.spec.name, next(self._places), now), now, touched)
        return Published(PublishState.ACCEPTED, queues)

    def _introduce(self, known: Known, publication: Publication) -> Known:
        message = publication.message
        known.content = content_of(publication)
        known.joins, known.unique = message.joins, message.unique
        self._known[known.id] = known
        return known

    def _arrive(self, line: Line, copy: Copy, now: float, touched: Touched) -> None:
        copy.known.copies.append(copy)
        copy.known.open += 1
        line.published += 1
        dropping = line.spec.overflow == "drop_head"
        while dropping and line.is_full and (head := line.next_to_drop()) is not None:
            self._take_out(line, head)
            self.bury(line, head, "dropped", now, touched)
        if dropping and line.is_full:  # there is room for none
            self.bury(line, copy, "dropped", now, touched)
            return
        self._enter(line, copy, now)
        self.wake(line, touched)

    def _enter(self, line: Line, copy: Copy, now: float) -> None:
        """Let a copy wait, with the times and the priority that its message has now."""
        message = copy.message
        copy.priority = min(message.priority, line.spec.max_priority)
        copy.due = max(now, copy.due, message.not_before or 0.0)
        copy.expires = message.expires
        if line.spec.message_ttl is not None:
            ttl = copy.due + line.spec.message_ttl
            copy.expires = ttl if copy.expires is None else min(copy.expires, ttl)
        self._wait(line, copy, now)

    def _wait(self, line: Line, copy: Copy, now: float) -> None:
        line.add(copy, now)
        if copy.place is Place.DELAYED:
            self._delayed.set(copy, copy.due)
        if copy.expires is not None:
            self._expiring.set(copy, copy.expires)

    def _arrive_ended(
        self, known: Known, publication: Publication, outcome: Outcome, now: float, touched: Touched
    ) -> None:
        """Take note of a message that goes into no queue."""
        self._introduce(known, publication)
        self.tell(known, publication.message, outcome, True, now, touched)
        self._count(known, outcome.failed, now)
        self._forgetting.set(known.id, now + self._remember)

    def _is_free(self, key: str | None, now: float) -> bool:
        holder = self._unique.get(key) if key is not None else None
        return holder is None or (holder[1] is not None and holder[1] <= now)

    def _hold(self, known: Known, message: Message) -> None:
        if message.unique is not None:
            self._unique[message.unique] = known, message.unique_until

    # Leaving the queue, and coming back

    def take(self, line: Line, copy: Copy) -> None:
        """Lease the first of a queue."""
        line.take(copy)
        self.left.pop(copy.number, None)
        copy.count += 1
        copy.once = False
        self._lease(copy)

    def _lease(self, copy: Copy) -> None:
        copy.place = Place.LEASED
        if copy.expires is not None:
            self._expiring.cancel(copy)

    def leave(self, copy: Copy, token: int, session: str, now: float, touched: Touched) -> None:
        """Let a copy come back that was not settled: if it waits then, it can be claimed."""
        self.come_back(copy, now, touched)
        if copy.place is Place.READY:
            copy.number, copy.session = token, session
            self.left[token] = copy

    def claim(self, token: int, session: str) -> Copy | None:
        """Lease what has come back to its last session, if it can be claimed."""
        copy = self.left.get(token)
        if copy is None or copy.session != session:
            return None
        del self.left[token]
        self.lines[copy.queue].take_again(copy)
        self._lease(copy)
        return copy

    def release(self, copy: Copy, touched: Touched) -> Line:
        """A lease is over; gives the queue that it was of, deleted or not."""
        line = self.lines[copy.queue] if copy.queue in self.lines else self._deleted[copy.queue]
        line.leased -= 1
        if not line.leased:
            self._deleted.pop(copy.queue, None)
        if line.spec.max_running is not None and copy.queue in self.lines:
            self.wake(line, touched)
        return line

    def come_back(
        self, copy: Copy, now: float, touched: Touched, delay: float = 0.0, replacement: Message | None = None
    ) -> None:
        """Put what was leased into its old place."""
        known = copy.known
        line = self.release(copy, touched)
        limit = line.spec.max_deliveries
        if known.cancelled is not None:
            self.end(copy, known.cancelled, known.cancelled.failed, now, touched)
        elif copy.queue not in self.lines:
            self.end(copy, DROPPED, True, now, touched)
        elif replacement is None and limit is not None and copy.count >= limit:
            self.bury(line, copy, "max_deliveries", now, touched)
        elif replacement is None and copy.once:
            self.bury(line, copy, "lost", now, touched)
        elif replacement is not None or delay > 0:
            if replacement is not None:
                copy.message, copy.count = replaced(copy.message, replacement), 0
            copy.due = now + delay
            self._enter(line, copy, now)
        else:
            copy.due = now
            self._wait(line, copy, now)
        if line.spec.name in self.lines:
            self.wake(line, touched)

    def _take_out(self, line: Line, copy: Copy) -> None:
        """Take a waiting copy out of its queue."""
        if copy.place is Place.DELAYED:
            self._delayed.cancel(copy)
        line.remove(copy)
        self.left.pop(copy.number, None)
        if copy.expires is not None:
            self._expiring.cancel(copy)

    # Ending

    def tell(self, known: Known, message: Message, outcome: Outcome, final: bool, now: float, touched: Touched) -> None:
        """Write a result, if the message keeps it and it is not final yet."""
        if self.results.write(Result(known.id, outcome, final, now), message.keep_result):
            touched.results.add(known.id)

    def end(self, copy: Copy, outcome: Outcome | None, failed: bool, now: float, touched: Touched) -> None:
        """A copy is gone."""
        known = copy.known
        if outcome is not None:
            self.tell(known, copy.message, outcome, True, now, touched)
        if copy.place is not Place.DEAD:
            self._end_one(known, failed, now)
        copy.place = Place.GONE
        known.copies.remove(copy)
        if not known.copies:
            self._forgetting.set(known.id, now + self._remember)

    def bury(
        self,
        line: Line,
        copy: Copy,
        reason: Reason,
        now: float,
        touched: Touched,
        detail: str = "",
        outcome: Outcome | None = None,
    ) -> None:
        """Put a copy aside, if its queue keeps such."""
        parked = reason == "parked"
        if not line.spec.keep_dead:
            self.end(copy, outcome or Outcome(reason, failed=True), True, now, touched)
            return
        if outcome is None and not parked:
            outcome = Outcome(reason, failed=True)
        if outcome is not None:
            self.tell(copy.known, copy.message, outcome, not parked, now, touched)
        if not parked:
            self._end_one(copy.known, True, now)
        copy.place = Place.PARKED if parked else Place.DEAD
        self.dead.add(copy, reason, detail, now)

    def _end_one(self, known: Known, failed: bool, now: float) -> None:
        """One copy of a message has ended."""
        known.open -= 1
        known.failed |= failed
        if not known.open:
            self._count(known, known.failed, now)

    def _count(self, known: Known, failed: bool, now: float) -> None:
        """A message has ended: free its key, count it for its joins."""
        holder = self._unique.get(known.unique) if known.unique is not None else None
        if known.unique is not None and holder is not None and holder[0] is known:
            del self._unique[known.unique]
        for join in known.joins:
            self._pending.extend(self.joins.count(join, known.id, failed, now))

    def cancel(self, id: str, outcome: Outcome, now: float, touched: Touched) -> None:
        """See `Store.cancel`, for one."""
        known = self._known.get(id)
        if known is None:
            known = self._known[id] = Known(id)
            self._forgetting.set(id, now + self._remember)
        if known.content is None:
            known.cancelled = known.cancelled or outcome
        for copy in list(known.copies):
            if copy.place is Place.LEASED:
                known.cancelled = known.cancelled or outcome
                touched.cancelled.append(copy)
            elif copy.place is not Place.DEAD:
                if copy.place is Place.PARKED:
                    self.dead.remove(copy)
                else:
                    self._take_out(self.lines[copy.queue], copy)
                self.end(copy, outcome, outcome.failed, now, touched)

    # What follows

    def join(self, join: Join, now: float) -> None:
        """Begin to wait for a join's members."""
        self._pending.extend(self.joins.add(join, now))

    def follow_up(self, publications: Iterable[Publication], now: float, touched: Touched) -> None:
        """Publish these, and what has come together meanwhile; nobody can be told of a refusal."""
        self._pending.extend(publications)
        while self._pending:
            publication = self._pending.popleft()
            published = self.publish(publication, now, touched, forced=True)
            if published.state is PublishState.UNROUTED or published.reason in ("unknown_exchange", "unique_key_held"):
                failed = Outcome(published.reason or "unrouted", failed=True)
                self._arrive_ended(Known(publication.message.id), publication, failed, now, touched)

    # The dead

    def replay(self, number: int, now: float, touched: Touched) -> bool:
        """Put one of the dead at the end of its queue; whether that could be done."""
        copy = self.dead.find(number)
        line = self.lines.get(copy.queue) if copy is not None else None
        if copy is None or line is None:
            return False
        known = copy.known
        self.dead.remove(copy)
        self.results.forget([known.id])
        if copy.place is Place.DEAD:
            known.cancelled = known.cancelled if known.open else None
            known.open += 1
            if self._is_free(known.unique, now):
                self._hold(known, copy.message)
        copy.message = replace(copy.message, not_before=None, expires=None)
        copy.seq, copy.published_at, copy.due, copy.count = next(self._places), now, now, 0
        self._enter(line, copy, now)
        self.wake(line, touched)
        return True

    def drop(self, number: int, now: float, touched: Touched) -> bool:
        """Drop one of the dead; whether it was there."""
        copy = self.dead.find(number)
        if copy is None:
            return False
        self.dead.remove(copy)
        self.end(copy, DROPPED if copy.place is Place.PARKED else None, True, now, touched)
        return True

    # Time

    def promote(self, now: float, touched: Touched) -> None:
        """Let what is due be received."""
        for copy in self._delayed.due(now):
            line = self.lines[copy.queue]
            line.remove(copy)
            line.add(copy, now)
            self.wake(line, touched)

    def expire(self, line: Line, copy: Copy, now: float, touched: Touched) -> None:
        """Put a waiting copy aside whose time is over."""
        self._take_out(line, copy)
        self.bury(line, copy, "expired", now, touched)

    def sweep(self, now: float, touched: Touched) -> None:
        """All that time brings to messages and queues."""
        for copy in self._expiring.due(now):
            self.expire(self.lines[copy.queue], copy, now, touched)
        self.promote(now, touched)
        for name in self._idle.due(now):
            self.delete(name, now, touched)
        self.joins.sweep(now)
        self.results.sweep(now)
        for forgotten in self._forgetting.due(now):
            kept = self.results.until(forgotten)
            if kept is None:
                del self._known[forgotten]
            else:
                self._forgetting.set(forgotten, kept)

    def next_due(self) -> list[float | None]:
        """When the next of each kind is due."""
        return [self._delayed.next(), self._expiring.next(), self._idle.next(), self.joins.next()]

    def set_back(self, now: float) -> None:
        """The clock was set back: let nothing outlive its span for that."""
        self._forgetting.cap(now + self._remember)
        self.joins.set_back(now)
        self.results.set_back(now)
        for name, line in self.lines.items():
            if name in self._idle:
                self.idle(line, now)
