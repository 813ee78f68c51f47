"""Sessions in a database, and the deliveries that they hold.

A delivery's token is a number higher than any before, and a batch's number is its highest token: so the last batch of a
session are its leases above the number that it had confirmed before.

Rule: what happens to messages is `sqlite_messages`'; this says whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backwater_tornado.errors import SessionGone, SessionTaken

from .sqlite_columns import chosen, unpack, unpack_outcome
from .sqlite_messages import Messages, Reason
from .sqlite_rows import Copy, Line, Rows
from .sqlite_schema import LEASED, READY
from .store import BATCH_BYTES
from .values import Batch, Delivery, Poll, Queue, Session, Settlement, SettleState, Verdict

#: A queue with a rate hands out at most what it may in so many seconds at once; one message in any case.
BURST: Final = 0.1

#: Messages read at once: their bodies may be large, and too many for a batch.
_AT_ONCE: Final = 250
#: Tokens that a store may give away while it is open.
ERA: Final = 1 << 40


def open_session(messages: Messages, session: Session, claim: Sequence[int]) -> list[int]:
    """See `Store.open_session`."""
    messages.rows.forget_receiver(session.id)
    db = messages.rows.db
    row = db.execute("SELECT owner FROM sessions WHERE id = ?", (session.id,)).fetchone()
    if row is not None and row[0] != session.owner:
        raise SessionTaken
    db.execute(
        "INSERT INTO sessions (id, owner, ttl, expires) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET ttl = excluded.ttl, expires = excluded.expires",
        (session.id, session.owner, session.ttl, messages.now + session.ttl),
    )
    _take_again(messages.rows, session.id, claim)
    held = messages.rows.held(session.id, claim)
    return [token for token in claim if token in held]


def _take_again(rows: Rows, session: str, claim: Sequence[int]) -> None:
    """Lease what has come back to a session, under the old tokens."""
    left = rows.held(session, claim, READY)
    for copy in left.values():
        line = rows.there(copy.queue)
        line.ready -= 1
        line.leased += 1
        rows.lease([copy], session)
    # They are in no batch that may be repeated.
    seen = "UPDATE sessions SET batch = ?, confirmed = ? WHERE id = ? AND batch < ?"
    latest = max(left, default=0)
    rows.db.execute(seen, (latest, latest, session, latest))


def end_session(messages: Messages, session: str) -> None:
    """Let all that it has go back."""
    rows = messages.rows
    if not rows.db.execute("DELETE FROM sessions WHERE id = ?", (session,)).rowcount:
        return
    rows.durable = True
    rows.forget_receiver(session)
    for name in [name for name, spec in rows.topology.queues.items() if spec.exclusive == session]:
        messages.delete(name)
    leases = rows.find(f"c.state = {LEASED} AND c.session = ? ORDER BY c.token", session)
    for copy in leases:
        messages.come_back(copy)
    left = rows.db.execute("SELECT queue FROM receivers WHERE session = ?", (session,)).fetchall()
    rows.db.execute("DELETE FROM receivers WHERE session = ?", (session,))
    for (name,) in left:
        if rows.db.execute("SELECT 1 FROM receivers WHERE queue = ?", (name,)).fetchone() is not None:
            continue
        messages.idle(rows.there(name))
        if rows.topology.queues[name].auto_delete:
            messages.delete(name)


def restart(messages: Messages) -> int:
    """The store is opened: drop what is transient; gives the first token that was never given away."""
    rows = messages.rows
    for name in [name for name, spec in rows.topology.queues.items() if spec.transient]:
        for (number,) in rows.db.execute("SELECT number FROM dead WHERE queue = ?", (name,)).fetchall():
            messages.drop(number)
        messages.delete(name)
        out = f"c.state = {LEASED} AND c.session IN (SELECT id FROM sessions) AND c.queue = ?"
        for copy in rows.find(out, name):
            messages.come_back(copy)
    era = "UPDATE counters SET value = value + ? WHERE name = 'token' RETURNING value"
    ((first,),) = rows.db.execute(era, (ERA,)).fetchall()
    return int(first)


class Leases:
    """The deliveries of one session during one operation; the session is alive.

    Attributes:
        held_back: queues whose rate held back a poll, and when they may hand out the next.

    Raises: SessionGone.
    """

    def __init__(self, messages: Messages, session: str) -> None:
        self._messages: Final = messages
        self._rows: Final = messages.rows
        self._session: Final = session
        self.held_back: Final[dict[str, float]] = {}
        #: Room in the batch.
        self._bytes = BATCH_BYTES
        receiver = self._rows.receiver(session)
        if receiver is None:
            raise SessionGone
        self._receiver: Final = receiver

    # Receiving

    def receive(self, poll: Poll) -> Batch:
        """See `Store.receive`."""
        messages = self._messages
        if poll.held is not None:
            self._take_back(poll.confirmed, frozenset(poll.held))
        messages.promote()
        lines = self._attend(poll)
        receiver = self._receiver
        deliveries = self._last_batch() if poll.confirmed < receiver.batch else []
        if not deliveries:
            deliveries = self._lease(lines, poll.credit)
            receiver.confirmed = receiver.batch
            if deliveries:
                receiver.batch = deliveries[-1].token
        self._rows.keep_alive(receiver, messages.now)
        return Batch(receiver.batch, tuple(deliveries), self._cancelled())

    def _take_back(self, confirmed: int, held: frozenset[int]) -> None:
        self._rows.flush()
        # The index alone answers this; the rows, which may be thousands, are read of those only that go back.
        leased = f"SELECT token FROM copies WHERE state = {LEASED} AND session = ? AND token <= ? ORDER BY token"
        tokens = [token for (token,) in self._rows.db.execute(leased, (self._session, confirmed)) if token not in held]
        copies = self._rows.held(self._session, tokens) if tokens else {}
        for token in tokens:
            self._messages.come_back(copies[token])

    def _attend(self, poll: Poll) -> list[tuple[Line, Queue, int]]:
        """The queues that a poll is for, of those that it may receive from; the session is theirs from now on."""
        found, rows = [], self._rows
        for name, wanted in poll.wants:
            spec = rows.topology.queues.get(name)
            if spec is None or spec.exclusive not in (None, self._session):
                continue
            line = rows.there(name)
            found.append((line, spec, wanted))
            if rows.attend(self._receiver, name):
                self._messages.idle(line)
        return found

    def _last_batch(self) -> list[Delivery]:
        """What is left of it."""
        where = f"c.state = {LEASED} AND c.session = ? AND c.token > ? ORDER BY c.token"
        return [
            _delivery(*found) for found in self._rows.find_with_content(where, self._session, self._receiver.confirmed)
        ]

    def _cancelled(self) -> tuple[int, ...]:
        self._rows.flush()
        where = f"state = {LEASED} AND session = ? AND cancelled ORDER BY token"
        found = self._rows.db.execute(f"SELECT token FROM copies WHERE {where}", (self._session,))
        return tuple(token for (token,) in found)

    def _lease(self, lines: list[tuple[Line, Queue, int]], credit: int) -> list[Delivery]:
        batch: list[Delivery] = []
        for line, spec, wanted_of_it in lines:
            wanted = min(wanted_of_it, credit - len(batch)) if self._bytes else 0
            taken = self._take(line, room(line, spec, wanted, self._messages.now))
            batch += taken
            if spec.rate:
                line.next_at += len(taken) / spec.rate
                if len(taken) < wanted and self._rows.is_open(line.name):
                    self.held_back[line.name] = line.next_at
        return batch

    def _take(self, line: Line, room: int) -> list[Delivery]:
        where = f"c.queue = ? AND c.state = {READY} ORDER BY c.rank, c.seq LIMIT ?"
        taken: list[Delivery] = []
        now = self._messages.now
        while line.ready and len(taken) < room and self._bytes:
            copies = []
            limit = min(room - len(taken), _AT_ONCE)
            for copy, envelope, body in self._rows.find_with_content(where, line.name, limit):
                if copy.expires is not None and copy.expires <= now:
                    self._messages.expire(copy)
                    continue
                size = len(body)
                if size > self._bytes < BATCH_BYTES:
                    self._bytes = 0
                    break
                self._bytes = max(0, self._bytes - size)
                copy.count += 1
                copy.token, copy.state = next(self._rows.tokens), LEASED
                copies.append(copy)
                taken.append(_delivery(copy, envelope, body))
            line.ready -= len(copies)
            line.leased += len(copies)
            line.delivered += len(copies)
            self._rows.lease(copies, self._session)
        return taken

    # Settling

    def settle(self, settlements: Sequence[Settlement], until: float) -> list[SettleState]:
        """See `Store.settle`; tokens are remembered until then."""
        rows = self._rows
        tokens = [settlement.token for settlement in settlements]
        held = rows.held(self._session, tokens)
        strange = (token for token in tokens if token not in held)
        settled = {token for (token,) in chosen(rows.db, "SELECT token FROM settled WHERE token IN", (), strange)}
        new = []
        states = []
        for settlement in settlements:
            token = settlement.token
            copy = held.get(token)
            if copy is None:
                states.append(SettleState.DONE if token in settled else SettleState.STALE)
                continue
            if settlement.verdict is not Verdict.KEEP:
                del held[token]
                settled.add(token)
                new.append((token, until))
            self._settle(copy, settlement)
            if settlement.then:
                self._messages.follow_up(settlement.then)
            states.append(SettleState.DONE)
        rows.db.executemany("INSERT INTO settled VALUES (?, ?)", new)
        rows.keep_alive(self._receiver, self._messages.now)
        return states

    def _settle(self, copy: Copy, settlement: Settlement) -> None:
        messages, verdict, outcome = self._messages, settlement.verdict, settlement.outcome
        if verdict is Verdict.ACK:
            messages.release(copy).acked += 1
            messages.end(copy, outcome, outcome is not None and outcome.failed)
        elif verdict is Verdict.KEEP:
            if settlement.once:
                self._rows.begin_once(copy)
            if outcome is not None:
                messages.tell(copy, outcome, False)
        elif verdict in (Verdict.REQUEUE, Verdict.RETURN):
            copy.count -= verdict is Verdict.RETURN
            copy.token = None  # nobody may claim it
            if outcome is not None:
                messages.tell(copy, outcome, False)
            messages.come_back(copy, settlement.delay, settlement.replacement)
        else:
            self._put_aside(copy, settlement)

    def _put_aside(self, copy: Copy, settlement: Settlement) -> None:
        messages, cancelled = self._messages, copy.known.cancelled
        spec = self._rows.spec(copy.queue)
        messages.release(copy)
        if settlement.verdict is Verdict.PARK and cancelled is not None:
            outcome = unpack_outcome(cancelled)
            messages.end(copy, outcome, outcome.failed)
        else:
            reason: Reason = "rejected" if settlement.verdict is Verdict.REJECT else "parked"
            messages.bury(copy, reason, settlement.reason, settlement.outcome, spec=spec)


def _delivery(copy: Copy, envelope: bytes, body: bytes) -> Delivery:
    """A leased copy as it is handed out."""
    publication = unpack(copy.known.id, envelope, body)
    return Delivery(
        copy.token or 0,
        copy.queue,
        publication.message,
        publication.exchange,
        publication.routing_key,
        copy.count,
        copy.published,
    )


def room(line: Line, spec: Queue, wanted: int, now: float) -> int:
    """How many of so many a queue may hand out now."""
    if spec.paused:
        return 0
    if spec.max_running is not None:
        wanted = min(wanted, spec.max_running - line.leased)
    if spec.rate is not None:
        wanted = min(wanted, _allowance(line, spec.rate, now))
    return wanted


def _allowance(line: Line, rate: float, now: float) -> int:
    # Never later than one message from now: the clock may have been set back, or the rate raised.
    line.next_at = min(max(line.next_at, now - BURST), now + 1 / rate)
    return int((now - line.next_at) * rate + 1e-6) + 1 if line.next_at <= now else 0
