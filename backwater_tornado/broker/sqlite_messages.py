"""The life of messages in a database: they come into queues, wait, end, and something follows from it.

A method that takes a copy of a message from one place to another says in its name where to; taking it out of a lease or
from among the dead is its caller's. What a message's end has published comes into its queues in `follow_up`, once all
else is done: so ends never call each other, however long a chain of them is.

Rule: this is one operation at one moment; it knows no sessions and no batches.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from . import sqlite_ends as ends
from .sqlite_columns import pack, pack_outcome, unpack, unpack_names, unpack_outcome
from .sqlite_rows import Copy, Known, Line, Rows
from .sqlite_schema import DEAD, DELAYED, LEASED, PARKED, READY
from .values import (
    Effects,
    Join,
    Message,
    Outcome,
    Publication,
    Published,
    PublishState,
    Queue,
    replaced,
    timed,
)

Reason = Literal["rejected", "expired", "max_deliveries", "lost", "parked", "dropped"]

DROPPED: Final = Outcome("dropped", failed=True)

_encode: Final = msgspec.msgpack.Encoder().encode


def digest_of(publication: Publication) -> bytes:
    """What tells another message of the same id."""
    message = publication.message
    routing = publication.exchange, publication.routing_key
    around = _encode((message.headers, message.content_type, message.content_encoding, *routing))
    return hashlib.blake2b(around + message.body, digest_size=16).digest()


class Messages:
    """All queues, and all messages in them, during one operation.

    Args:
        remember: how long ids are, after their end, in seconds.
    """

    def __init__(self, rows: Rows, now: float, remember: float) -> None:
        self.rows: Final = rows
        self.now: Final = now
        self.joins: Final = ends.Joins(rows.db, now, remember)
        self._until: Final = now + remember
        self._pending: Final[deque[Publication]] = deque()
        self._queues: Final[set[str]] = set()
        self._results: Final[set[str]] = set()
        self.sessions: Final[set[str]] = set()

    def effects(self) -> Effects:
        """Whom all of it concerns."""
        return Effects(frozenset(self._queues), frozenset(self._results), frozenset(self.sessions))

    def finish(self) -> None:
        """Do what follows, and write all of it."""
        self.follow_up(())
        self.rows.finish()

    # Queues

    def declare(self, spec: Queue) -> None:
        """Make a queue, or change its limits."""
        new = self.rows.line(spec.name) is None
        self.rows.topology.add(self.rows.db, spec)
        line = self.rows.line(spec.name)
        assert line is not None
        line.deleted = 0
        if new:
            count = "SELECT count(*) FROM dead WHERE queue = ?"
            (line.dead,) = self.rows.db.execute(count, (spec.name,)).fetchone()
        self.idle(line)
        self.wake(spec.name)

    def idle(self, line: Line) -> None:
        """Count from now how long nobody uses a queue, if nobody does."""
        spec = self.rows.topology.queues[line.name]
        used = self.rows.db.execute("SELECT 1 FROM receivers WHERE queue = ? LIMIT 1", (line.name,)).fetchone()
        line.expires = None if spec.expires is None or used else self.now + spec.expires

    def delete(self, name: str) -> int:
        """Delete a queue, if it is there; gives the number of messages dropped."""
        line = self.rows.line(name)
        if line is None or line.deleted:
            return 0
        self.rows.durable = True
        dropped = self.purge(line)
        self.rows.topology.remove_queue(self.rows.db, name)
        self.rows.drop_receivers(name)
        line.published = line.delivered = line.acked = 0
        line.expires, line.deleted = None, 1
        if not line.leased:
            self.rows.drop_line(name)
        return dropped

    def purge(self, line: Line) -> int:
        """Drop what waits in a queue."""
        waiting = self.rows.find(f"c.queue = ? AND c.state = {READY}", line.name) if line.ready else []
        if line.delayed:
            waiting += self.rows.find(f"c.queue = ? AND c.state = {DELAYED}", line.name)
        for copy in waiting:
            self._take_out(line, copy)
            self.end(copy, DROPPED, True)
        return len(waiting)

    def wake(self, name: str) -> None:
        """Name a queue that may have something to hand out."""
        if name not in self._queues and self.rows.is_open(name):
            self._queues.add(name)

    # Arriving

    def publish(self, publications: Sequence[Publication], joins: Sequence[Join]) -> list[Published]:
        """Route them; a full queue refuses."""
        self.rows.durable |= bool(joins)
        for join in joins:
            self._pending.extend(self.joins.add(join))
        self.rows.learn(publication.message.id for publication in publications)
        return [self._publish(publication) for publication in publications]

    def _publish(self, publication: Publication, forced: bool = False) -> Published:
        publication = timed(publication, self.now)
        message, rows = publication.message, self.rows
        known = rows.known(message.id)
        digest = digest_of(publication)
        if known is not None and known.digest is not None:
            if known.digest == digest:
                return Published(PublishState.DUPLICATE, unpack_names(known.queues))
            return Published(PublishState.REFUSED, reason="id_of_another_message")
        if known is not None and known.cancelled is not None:
            self._arrive_ended(publication, digest, unpack_outcome(known.cancelled))
            return Published(PublishState.ACCEPTED)
        queues = rows.topology.route(publication)
        if queues is None:
            return Published(PublishState.REFUSED, reason="unknown_exchange")
        if not queues:
            return Published(PublishState.UNROUTED)
        if message.unique is not None and not ends.is_free(rows.db, message.unique, self.now):
            return Published(PublishState.REFUSED, reason="unique_key_held")
        specs = [rows.topology.queues[name] for name in queues]
        if not forced and any(map(self._refuses, specs)):
            return Published(PublishState.REFUSED, reason="queue_full")
        ends.hold(rows.db, message.unique, message.id, message.unique_until)
        first = rows.next_seq(len(queues))
        known = rows.introduce(first, publication, digest, queues)
        for seq, spec in enumerate(specs, first):
            copy = Copy(seq, spec.name, READY, 0, self.now, self.now, None, message.keep_result, 0, None, 0, known)
            self._arrive(copy, spec, message)
        return Published(PublishState.ACCEPTED, queues)

    def _refuses(self, spec: Queue) -> bool:
        return spec.max_length is not None and spec.overflow == "refuse" and self._is_full(spec)

    def _is_full(self, spec: Queue) -> bool:
        if spec.max_length is None:
            return False
        line = self.rows.there(spec.name)
        return line.ready + line.delayed >= spec.max_length

    def _arrive(self, copy: Copy, spec: Queue, message: Message) -> None:
        line = self.rows.there(spec.name)
        line.published += 1
        dropping = spec.overflow == "drop_head"
        while dropping and self._is_full(spec) and (head := self._next_to_drop(line)) is not None:
            self._take_out(line, head)
            self.bury(head, "dropped")
        self._place(copy, spec, message)
        if dropping and self._is_full(spec):  # there is room for none
            self.rows.insert(copy)
            self.bury(copy, "dropped")
            return
        self._wait(line, copy)
        self.rows.insert(copy)
        self.wake(spec.name)

    def _next_to_drop(self, line: Line) -> Copy | None:
        """What a full queue drops: what would be received next."""
        if line.ready:
            return self.rows.find_one(f"c.queue = ? AND c.state = {READY} ORDER BY c.rank, c.seq", line.name)
        if line.delayed:
            return self.rows.find_one(f"c.queue = ? AND c.state = {DELAYED} ORDER BY c.due, c.seq", line.name)
        return None

    def _enter(self, copy: Copy, message: Message) -> None:
        """Let a copy wait, with the times and the priority that its message has now."""
        self._place(copy, self.rows.topology.queues[copy.queue], message)
        self._wait(self.rows.there(copy.queue), copy)

    def _place(self, copy: Copy, spec: Queue, message: Message) -> None:
        copy.rank = -min(message.priority, spec.max_priority)
        copy.due = max(self.now, copy.due, message.not_before or 0.0)
        copy.expires = message.expires
        if spec.message_ttl is not None:
            ttl = copy.due + spec.message_ttl
            copy.expires = ttl if copy.expires is None else min(copy.expires, ttl)

    def _wait(self, line: Line, copy: Copy) -> None:
        if copy.due > self.now:
            copy.state = DELAYED
            line.delayed += 1
        else:
            copy.state = READY
            line.ready += 1

    def _arrive_ended(self, publication: Publication, digest: bytes, outcome: Outcome) -> None:
        """Take note of a message that goes into no queue."""
        message = publication.message
        self.rows.durable = True
        cancelled = self.rows.known(message.id)
        number = self.rows.next_seq(1) if cancelled is None else cancelled.number
        known = self.rows.introduce(number, publication, digest, ())
        known.until = self._until
        self.rows.change(known)
        self._tell(known, message.keep_result, outcome, True)
        self._count(known, outcome.failed)

    # Leaving the queue, and coming back

    def release(self, copy: Copy) -> Line:
        """A lease is over; gives the queue that it was of, deleted or not."""
        line = self.rows.there(copy.queue)
        line.leased -= 1
        if line.deleted:
            if not line.leased:
                self.rows.drop_line(copy.queue)
        elif self.rows.spec(copy.queue).max_running is not None:
            self.wake(copy.queue)
        return line

    def come_back(self, copy: Copy, delay: float = 0.0, replacement: Message | None = None) -> None:
        """Put what was leased into its old place."""
        known = copy.known
        spec = self.rows.spec(copy.queue)
        line = self.release(copy)
        if known.cancelled is not None:
            cancelled = unpack_outcome(known.cancelled)
            self.end(copy, cancelled, cancelled.failed)
        elif line.deleted:
            self.end(copy, DROPPED, True)
        elif replacement is None and spec.max_deliveries is not None and copy.count >= spec.max_deliveries:
            self.bury(copy, "max_deliveries")
        elif replacement is None and copy.once:
            self.bury(copy, "lost")
        else:
            self._come_back_alive(copy, delay, replacement)
        if not line.deleted:
            self.wake(copy.queue)

    def _come_back_alive(self, copy: Copy, delay: float, replacement: Message | None) -> None:
        copy.due = self.now + delay
        if replacement is None and delay <= 0:
            copy.due = self.now
            self._wait(self.rows.there(copy.queue), copy)
        else:
            publication = unpack(copy.known.id, *self.rows.content(copy))
            if replacement is not None:
                publication = replace(publication, message=replaced(publication.message, replacement))
                copy.count, copy.keep_result = 0, replacement.keep_result
                self.rows.replace(copy, pack(publication), replacement.body)
            self._enter(copy, publication.message)
        self.rows.write(copy)

    def _take_out(self, line: Line, copy: Copy) -> None:
        """Take a waiting copy out of its queue."""
        if copy.state == DELAYED:
            line.delayed -= 1
        else:
            line.ready -= 1

    # Ending

    def tell(self, copy: Copy, outcome: Outcome, final: bool) -> None:
        """Write a result, if the message keeps it and it is not final yet."""
        self._tell(copy.known, copy.keep_result, outcome, final)

    def _tell(self, known: Known, keep: float | None, outcome: Outcome, final: bool) -> None:
        if keep is None:
            return
        if self.rows.tell(known, pack_outcome(outcome), final, self.now, self.now + keep):
            self._results.add(known.id)
            self.rows.durable = True

    def end(self, copy: Copy, outcome: Outcome | None, failed: bool) -> None:
        """A copy is gone."""
        if outcome is not None:
            self.tell(copy, outcome, True)
        known = copy.known
        if copy.state != DEAD:
            self._end_one(known, failed)
        self.rows.delete(copy)
        known.kept -= 1
        if not known.kept:
            known.until = self._until
        self.rows.change(known)

    def bury(
        self,
        copy: Copy,
        reason: Reason,
        detail: str = "",
        outcome: Outcome | None = None,
        spec: Queue | None = None,
    ) -> None:
        """Put a copy aside, if its queue (`spec`, where that may be gone) keeps such."""
        parked = reason == "parked"
        if not (spec or self.rows.spec(copy.queue)).keep_dead:
            self.end(copy, outcome or Outcome(reason, failed=True), True)
            return
        if outcome is None and not parked:
            outcome = Outcome(reason, failed=True)
        if outcome is not None:
            self.tell(copy, outcome, not parked)
        if not parked:
            self._end_one(copy.known, True)
        copy.state = PARKED if parked else DEAD
        self.rows.write(copy)
        line = self.rows.line(copy.queue)
        if line is not None:
            line.dead += 1
        self.rows.db.execute(
            "INSERT INTO dead (seq, queue, reason, detail, at) VALUES (?, ?, ?, ?, ?)",
            (copy.seq, copy.queue, reason, detail, self.now),
        )

    def _end_one(self, known: Known, failed: bool) -> None:
        """One copy of a message has ended."""
        known.going -= 1
        known.failed |= failed
        self.rows.change(known)
        if not known.going:
            self._count(known, bool(known.failed))

    def _count(self, known: Known, failed: bool) -> None:
        """A message has ended: free its key, count it for its joins."""
        ends.release(self.rows.db, known.unique_key, known.id)
        self.rows.durable |= known.joins is not None
        for join in unpack_names(known.joins):
            self._pending.extend(self.joins.count(join, known.id, failed))

    def cancel(self, id: str, outcome: Outcome) -> None:
        """See `Store.cancel`, for one."""
        rows = self.rows
        known = rows.known(id)
        if known is None:
            known = rows.expect(id)
            known.until = self._until
            rows.change(known)
        packed = known.cancelled or pack_outcome(outcome)
        if known.digest is None:
            known.cancelled = packed
            rows.change(known)
        if not known.kept:
            return
        for copy in rows.copies_of(known):
            if copy.state == LEASED:
                known.cancelled = packed
                rows.change(known)
                self.sessions.add(rows.cancel(copy))
            elif copy.state != DEAD:
                if copy.state == PARKED:
                    self._exhume(copy)
                else:
                    self._take_out(rows.there(copy.queue), copy)
                self.end(copy, outcome, outcome.failed)

    # What follows

    def follow_up(self, publications: Iterable[Publication]) -> None:
        """Publish these, and what has come together meanwhile; nobody can be told of a refusal."""
        self._pending.extend(publications)
        while self._pending:
            publication = self._pending.popleft()
            published = self._publish(publication, forced=True)
            if published.state is PublishState.UNROUTED or published.reason in ("unknown_exchange", "unique_key_held"):
                failed = Outcome(published.reason or "unrouted", failed=True)
                self._arrive_ended(publication, digest_of(publication), failed)

    # The dead

    def _exhume(self, copy: Copy) -> None:
        """Take it from among the dead."""
        self.rows.db.execute("DELETE FROM dead WHERE seq = ?", (copy.seq,))
        line = self.rows.line(copy.queue)
        if line is not None:
            line.dead -= 1

    def replay(self, number: int) -> bool:
        """Put one of the dead at the end of its queue; whether that could be done."""
        copy = self.rows.dead(number)
        if copy is None or copy.queue not in self.rows.topology.queues:
            return False
        known = copy.known
        publication = unpack(known.id, *self.rows.content(copy))
        self._exhume(copy)
        self.rows.forget_results([known.number])
        if copy.state == DEAD:
            known.cancelled = known.cancelled if known.going else None
            known.going += 1
            if ends.is_free(self.rows.db, known.unique_key, self.now):
                ends.hold(self.rows.db, known.unique_key, known.id, publication.message.unique_until)
            self.rows.change(known)
        self.rows.delete(copy)
        message = replace(publication.message, not_before=None, expires=None)
        again = replace(copy, seq=self.rows.next_seq(1), published=self.now, due=self.now, count=0)
        self._enter(again, message)
        self.rows.insert_replayed(again, pack(replace(publication, message=message)), message.body)
        self.wake(copy.queue)
        return True

    def drop(self, number: int) -> bool:
        """Drop one of the dead; whether it was there."""
        copy = self.rows.dead(number)
        if copy is None:
            return False
        self._exhume(copy)
        self.end(copy, DROPPED if copy.state == PARKED else None, True)
        return True

    # Time

    def promote(self) -> None:
        """Let what is due be received."""
        for copy in self.rows.due(self.now):
            line = self.rows.there(copy.queue)
            self._take_out(line, copy)
            self._wait(line, copy)
            self.rows.write(copy)
            self.wake(copy.queue)

    def expire(self, copy: Copy) -> None:
        """Put a waiting copy aside whose time is over."""
        self._take_out(self.rows.there(copy.queue), copy)
        self.bury(copy, "expired")

    def sweep(self) -> None:
        """All that time brings to messages and queues."""
        db, now = self.rows.db, self.now
        expired = self.rows.find("c.state < 2 AND c.expires IS NOT NULL AND c.expires <= ? ORDER BY c.expires", now)
        for copy in expired:
            self.expire(copy)
        self.promote()
        self.rows.finish()
        for (name,) in db.execute("SELECT name FROM queues WHERE expires <= ? ORDER BY expires", (now,)).fetchall():
            self.delete(name)
        self.joins.sweep()
        db.execute("DELETE FROM results WHERE until <= ?", (now,))
        db.execute("DELETE FROM uniques WHERE until <= ?", (now,))
        self.rows.finish()
        self.rows.forget(now)


__all__ = ["DROPPED", "Messages", "Reason"]
