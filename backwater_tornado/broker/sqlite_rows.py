"""The rows of the store's tables that one operation works on: read once, changed in memory, written at its end.

Rule: it knows how rows are read and written, not why they change. Whoever looks for copies by anything but their
places calls `flush` before, so that the database knows of the new ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from .sqlite_columns import Insertion, chosen, pack, pack_names, shorten
from .sqlite_schema import DELAYED, LEASED
from .sqlite_topology import Topology
from .values import Publication, Queue

_COPY: Final = "c.seq, c.queue, c.state, c.rank, c.published, c.due, c.expires, c.keep_result, c.count, c.token, c.once"
_KNOWN: Final = "number, id, short, digest, queues, copies, going, kept, failed, cancelled, unique_key, joins, until"
_KNOWN_SIZE: Final = _KNOWN.count(",") + 1
_KNOWN_OF_COPY: Final = ", ".join(f"m.{column}" for column in _KNOWN.split(", "))
#: A message's content, unless the copy has its own.
CONTENT: Final = "coalesce(c.envelope, m.envelope), coalesce(c.body, m.body)"
#: A copy, always found before its message.
OF_MESSAGE: Final = "copies c CROSS JOIN messages m ON m.number = c.message"
_COPIES: Final = f"SELECT {_COPY}, {_KNOWN_OF_COPY} FROM {OF_MESSAGE}"
_CONTENTS: Final = f"SELECT {_COPY}, {_KNOWN_OF_COPY}, {CONTENT} FROM {OF_MESSAGE}"
_LINE: Final = "name, deleted, expires, next_at, ready, delayed, leased, dead, published, delivered, acked"


class Known(msgspec.Struct):
    """A row of `messages`, without the content."""

    number: int
    id: str
    short: int
    digest: bytes | None
    queues: bytes | None = None
    copies: int = 0
    going: int = 0
    kept: int = 0
    failed: int = 0
    cancelled: bytes | None = None
    unique_key: str | None = None
    joins: bytes | None = None
    until: float | None = None


class Copy(msgspec.Struct):
    """A row of `copies`, without what only a statement looks at."""

    seq: int
    queue: str
    state: int
    rank: int
    published: float
    due: float
    expires: float | None
    keep_result: float | None
    count: int
    token: int | None
    once: int
    known: Known


class Line(msgspec.Struct):
    """A row of `queues`."""

    name: str
    deleted: int
    expires: float | None
    next_at: float
    ready: int
    delayed: int
    leased: int
    dead: int
    published: int
    delivered: int
    acked: int


_NEXT: Final = """
SELECT 1 + max((SELECT coalesce(max(seq), 0) FROM copies), (SELECT coalesce(max(number), 0) FROM messages))
"""

_INTRODUCE: Final = Insertion(
    "INSERT OR REPLACE INTO messages"
    " (number, id, short, digest, queues, copies, going, kept, unique_key, joins, envelope, body)",
    columns=12,
)
_INSERT: Final = Insertion(
    "INSERT INTO copies (seq, message, queue, state, rank, published, due, expires, keep_result)", columns=9
)
_WRITE: Final = """
UPDATE copies SET state = ?, rank = ?, due = ?, expires = ?, keep_result = ?, count = ?, token = ?,
session = iif(? IS NULL, NULL, session), cancelled = 0, once = 0 WHERE seq = ?
"""
_LEASE: Final = f"UPDATE copies SET state = {LEASED}, count = ?, token = ?, session = ? WHERE seq = ?"
_CHANGE: Final = "UPDATE messages SET going = ?, kept = ?, failed = ?, cancelled = ?, until = ? WHERE number = ?"
#: A message of which nothing is here any more has no content.
_LEAVE: Final = """
UPDATE messages SET going = ?, kept = ?, failed = ?, cancelled = ?, until = ?, envelope = NULL, body = NULL
WHERE number = ?
"""
#: A final result is never changed, as long as it is kept.
_TELL: Final = """
INSERT INTO results VALUES (?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET outcome = excluded.outcome,
final = excluded.final, at = excluded.at, until = excluded.until WHERE NOT final OR until <= excluded.at
"""
_COUNTED: Final = """
UPDATE queues SET name = ?, deleted = ?, expires = ?, next_at = ?, ready = ?, delayed = ?, leased = ?, dead = ?,
published = ?, delivered = ?, acked = ? WHERE name = ?
"""
#: A message is known as long as its result is.
_OUTLIVE: Final = """
UPDATE messages SET until = (SELECT until FROM results r WHERE r.number = messages.number)
WHERE until <= :now AND EXISTS (SELECT 1 FROM results r WHERE r.number = messages.number AND r.until > :now)
"""

_QUEUE: Final = msgspec.msgpack.Decoder(Queue)


class Receiver(msgspec.Struct):
    """A row of `sessions`, without what only a statement looks at."""

    id: str
    ttl: float
    batch: int
    confirmed: int
    #: Of the queues that it receives from, some.
    queues: set[str]


class Cache:
    """What is known of a database from one operation to the next; not to be trusted once anything was rolled back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.topology: Final = Topology(db)
        self.next_seq: int = db.execute(_NEXT).fetchone()[0]
        #: No delayed message is due before; None: it is not known.
        self.next_due: float | None = None
        self.receivers: Final[dict[str, Receiver]] = {}
        self.lines: Final[dict[str, Line]] = {}
        #: The lines as they were written last.
        self.written: Final[dict[str, tuple[Any, ...]]] = {}


class Rows:
    """The rows that one operation has read, and those that it has made.

    Attributes:
        durable: whether a change concerns more than transient queues, so that it must not be lost.
    """

    def __init__(self, db: sqlite3.Connection, cache: Cache, tokens: Iterator[int]) -> None:
        self.tokens: Final = tokens
        self.db: Final = db
        self.topology: Final = cache.topology
        self.durable = False
        self._cache: Final = cache
        self._by_id: Final[dict[str, Known | None]] = {}
        self._shorts: Final[dict[str, int]] = {}
        self._by_number: Final[dict[int, Known]] = {}
        self._introduced: list[tuple[Any, ...]] = []
        self._changed: Final[dict[int, Known]] = {}
        self._lines: Final[dict[str, Line]] = {}
        self._copies: list[tuple[Any, ...]] = []
        self._written: list[tuple[Any, ...]] = []
        self._gone: list[tuple[int]] = []
        self._told: list[tuple[Any, ...]] = []

    # Messages

    def learn(self, ids: Iterable[str]) -> None:
        """Read what is known of these at once."""
        missing = {name: shorten(name) for name in ids if name not in self._by_id}
        self._by_id.update(dict.fromkeys(missing))
        self._shorts.update(missing)
        for row in chosen(self.db, f"SELECT {_KNOWN} FROM messages WHERE short IN", (), missing.values()):
            if row[1] in self._by_id:  # another id may be shortened to the same
                self._remember(row)

    def _remember(self, row: Sequence[Any]) -> Known:
        """What the row of a message says, unless that is known already and perhaps changed."""
        known = self._by_number.get(row[0])
        if known is None:
            known = self._by_number[row[0]] = self._by_id[row[1]] = Known(*row[:_KNOWN_SIZE])
        return known

    def known(self, id: str) -> Known | None:
        """What is known of a message."""
        if id not in self._by_id:
            self.learn([id])
        return self._by_id[id]

    def forget(self, now: float) -> None:
        """Forget the messages whose time is over."""
        self.db.execute(_OUTLIVE, {"now": now})
        self.db.execute("DELETE FROM messages WHERE until <= ?", (now,))
        self._by_id.clear()
        self._by_number.clear()

    def change(self, known: Known) -> None:
        """Have it written."""
        self._changed[known.number] = known

    def introduce(self, number: int, publication: Publication, digest: bytes, queues: tuple[str, ...]) -> Known:
        """A new message, or in the place of one that was cancelled before it came; into these queues."""
        message, size = publication.message, len(queues)
        content = (pack(publication), message.body) if queues else (None, None)
        known = Known(number, message.id, self._shorts[message.id], digest, pack_names(queues), size, size, size)
        known.unique_key, known.joins = message.unique, pack_names(message.joins)
        identity = number, known.id, known.short, digest, known.queues, size
        self._introduced.append((*identity, known.unique_key, known.joins, *content))
        self._by_id[known.id] = self._by_number[number] = known
        return known

    def expect(self, id: str) -> Known:
        """A message that has yet to come."""
        short = self._shorts[id]
        known = Known(self.next_seq(1), id, short, None)
        self._introduced.append((known.number, id, short, None, None, 0, None, None, None, None))
        self._by_id[id] = self._by_number[known.number] = known
        return known

    # Results

    def tell(self, known: Known, outcome: bytes, final: bool, at: float, until: float) -> bool:
        """Have a result written, unless a final one is there; whether it is new."""
        row = known.number, outcome, final, at, until
        if known.copies > 1:  # another copy's may be there
            return self.db.execute(_TELL, row).rowcount > 0
        self._told.append(row)
        return True

    def forget_results(self, numbers: Iterable[int]) -> None:
        """Drop the results of these messages."""
        self.flush()
        self.db.executemany("DELETE FROM results WHERE number = ?", [(number,) for number in numbers])

    # Queues

    def line(self, name: str) -> Line | None:
        """A queue, if it is there, or is deleted with deliveries out."""
        line = self._lines.get(name)
        if line is not None:
            return line
        line = self._cache.lines.get(name)
        if line is None:
            row = self.db.execute(f"SELECT {_LINE} FROM queues WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            line = self._cache.lines[name] = Line(*row)
            self._cache.written[name] = row
        self._lines[name] = line
        return line

    def there(self, name: str) -> Line:
        """A queue that is known to be there, or to be deleted with deliveries out."""
        line = self.line(name)
        assert line is not None, name
        return line

    def spec(self, name: str) -> Queue:
        """Its limits; of a deleted one those that it had."""
        spec = self.topology.queues.get(name)
        if spec is None:
            (value,) = self.db.execute("SELECT value FROM queues WHERE name = ?", (name,)).fetchone()
            spec = _QUEUE.decode(value)
        return spec

    def is_open(self, name: str) -> bool:
        """Whether a queue has something that it may hand out, rate aside."""
        spec = self.topology.queues.get(name)
        line = self.line(name)
        if spec is None or line is None or not line.ready or spec.paused:
            return False
        return spec.max_running is None or line.leased < spec.max_running

    def drop_line(self, name: str) -> None:
        """A queue is gone for good."""
        for lines in (self._lines, self._cache.lines, self._cache.written):
            lines.pop(name, None)
        self.db.execute("DELETE FROM queues WHERE name = ?", (name,))

    # Receivers

    def receiver(self, session: str) -> Receiver | None:
        """A session that is open."""
        receiver = self._cache.receivers.get(session)
        if receiver is None:
            select = "SELECT id, ttl, batch, confirmed FROM sessions WHERE id = ?"
            row = self.db.execute(select, (session,)).fetchone()
            if row is None:
                return None
            receiver = self._cache.receivers[session] = Receiver(*(*row, set()))
        return receiver

    def keep_alive(self, receiver: Receiver, now: float) -> None:
        """Write what is known of a session that was heard of."""
        write = "UPDATE sessions SET expires = ?, batch = ?, confirmed = ? WHERE id = ?"
        self.db.execute(write, (now + receiver.ttl, receiver.batch, receiver.confirmed, receiver.id))

    def forget_receiver(self, session: str) -> None:
        """Its row changes, or goes."""
        self._cache.receivers.pop(session, None)

    def attend(self, receiver: Receiver, queue: str) -> bool:
        """A session receives from a queue from now on; whether that is new."""
        if queue in receiver.queues:
            return False
        receiver.queues.add(queue)
        new = self.db.execute("INSERT OR IGNORE INTO receivers VALUES (?, ?)", (queue, receiver.id)).rowcount > 0
        self.durable |= new
        return new

    def drop_receivers(self, queue: str) -> None:
        """Nobody receives from a queue any more."""
        self.db.execute("DELETE FROM receivers WHERE queue = ?", (queue,))
        for receiver in self._cache.receivers.values():
            receiver.queues.discard(queue)

    # Copies

    def next_seq(self, copies: int) -> int:
        """The next place in the order of publication, with room for so many."""
        self._cache.next_seq += copies
        return self._cache.next_seq - copies

    def _concern(self, queue: str) -> None:
        if not self.durable:
            spec = self.topology.queues.get(queue)
            self.durable = spec is None or not spec.transient

    def _await(self, copy: Copy) -> None:
        next_due = self._cache.next_due
        if copy.state == DELAYED and next_due is not None and copy.due < next_due:
            self._cache.next_due = copy.due

    def insert(self, copy: Copy) -> None:
        """A new copy of a message."""
        self._concern(copy.queue)
        self._await(copy)
        times = copy.published, copy.due, copy.expires, copy.keep_result
        self._copies.append((copy.seq, copy.known.number, copy.queue, copy.state, copy.rank, *times))

    def insert_replayed(self, copy: Copy, envelope: bytes, body: bytes) -> None:
        """A new copy of a message that has others before it, with a content of its own."""
        self.insert(copy)
        self.flush()
        replay = "UPDATE copies SET replayed = 1, envelope = ?, body = ? WHERE seq = ?"
        self.db.execute(replay, (envelope, body, copy.seq))

    def delete(self, copy: Copy) -> None:
        """A copy is gone."""
        self._concern(copy.queue)
        self._gone.append((copy.seq,))

    def write(self, copy: Copy) -> None:
        """A copy that was there has changed; it is in no session's hands."""
        self._concern(copy.queue)
        self._await(copy)
        times = copy.due, copy.expires, copy.keep_result
        self._written.append((copy.state, copy.rank, *times, copy.count, copy.token, copy.token, copy.seq))

    def lease(self, copies: Sequence[Copy], session: str) -> None:
        """These are in a session's hands; if that is forgotten with the power, they are handed out again."""
        self.db.executemany(_LEASE, [(copy.count, copy.token, session, copy.seq) for copy in copies])

    def begin_once(self, copy: Copy) -> None:
        """Its receiver has begun, and nobody may again."""
        self._concern(copy.queue)
        copy.once = 1
        self.db.execute("UPDATE copies SET once = 1 WHERE seq = ?", (copy.seq,))

    def cancel(self, copy: Copy) -> str:
        """Mark a copy whose message was cancelled while it is leased; gives its session."""
        ((session,),) = self.db.execute(
            "UPDATE copies SET cancelled = 1 WHERE seq = ? RETURNING session", (copy.seq,)
        ).fetchall()
        return str(session)

    def due(self, now: float) -> list[Copy]:
        """The delayed copies whose moment has come."""
        if self._cache.next_due is None:
            self.flush()
            (next_due,) = self.db.execute(f"SELECT min(due) FROM copies WHERE state = {DELAYED}").fetchone()
            self._cache.next_due = float("inf") if next_due is None else next_due
        if self._cache.next_due > now:
            return []
        self._cache.next_due = None
        return self.find(f"c.state = {DELAYED} AND c.due <= ?", now)

    def copies_of(self, known: Known) -> list[Copy]:
        """All that are left of a message, in their order."""
        where = "c.message = ? AND c.seq BETWEEN ? AND ? AND NOT c.replayed"
        first = self.find(where, known.number, known.number, known.number + known.copies - 1)
        return first + self.find("c.message = ? AND c.replayed = 1 ORDER BY c.seq", known.number)

    def dead(self, number: int) -> Copy | None:
        """The copy of that number among the dead."""
        return self.find_one("c.seq = (SELECT seq FROM dead WHERE number = ?)", number)

    def content(self, copy: Copy) -> tuple[bytes, bytes]:
        """Envelope and body of a copy."""
        self.flush()
        select = f"SELECT {CONTENT} FROM {OF_MESSAGE} WHERE c.seq = ?"
        found: tuple[bytes, bytes] = self.db.execute(select, (copy.seq,)).fetchone()
        return found

    def replace(self, copy: Copy, envelope: bytes, body: bytes) -> None:
        """Another content for a copy."""
        self.flush()
        self.db.execute("UPDATE copies SET envelope = ?, body = ? WHERE seq = ?", (envelope, body, copy.seq))

    def find(self, where: str, *values: Any) -> list[Copy]:
        """The copies for which this holds."""
        self.flush()
        return [self._copy(row) for row in self.db.execute(f"{_COPIES} WHERE {where}", values)]

    def find_one(self, where: str, *values: Any) -> Copy | None:
        """The first copy for which this holds."""
        found = self.find(f"{where} LIMIT 1", *values)
        return found[0] if found else None

    def find_with_content(self, where: str, *values: Any) -> list[tuple[Copy, bytes, bytes]]:
        """The copies for which this holds, with envelope and body."""
        self.flush()
        rows = self.db.execute(f"{_CONTENTS} WHERE {where}", values).fetchall()
        return [(self._copy(row), row[-2], row[-1]) for row in rows]

    def held(self, session: str, tokens: Iterable[int], state: int = LEASED) -> dict[int, Copy]:
        """Of these deliveries, those that the session has; or of which it was the last to have them, READY again."""
        self.flush()
        where = f"{_COPIES} WHERE c.state = {state} AND c.session = ? AND c.token IN"
        return {row[9]: self._copy(row) for row in chosen(self.db, where, (session,), tokens)}

    def _copy(self, row: tuple[Any, ...]) -> Copy:
        return Copy(*(*row[:11], self._remember(row[11:])))

    # The end

    def flush(self) -> None:
        """Write the copies and their messages, so that statements see them."""
        db = self.db
        if self._introduced:
            _INTRODUCE.insert(db, [(*row[:6], row[5], *row[5:]) for row in self._introduced])
            self._introduced = []
        if self._copies:
            _INSERT.insert(db, self._copies)
            self._copies = []
        if self._written:
            db.executemany(_WRITE, self._written)
            self._written = []
        if self._gone:
            db.executemany("DELETE FROM copies WHERE seq = ?", self._gone)
            self._gone = []
        if self._told:
            db.executemany(_TELL, self._told)
            self._told = []

    def finish(self) -> None:
        """Write all that has changed."""
        self.flush()
        changed: dict[str, list[tuple[Any, ...]]] = {_CHANGE: [], _LEAVE: []}
        for it in self._changed.values():
            row = it.going, it.kept, it.failed, it.cancelled, it.until, it.number
            changed[_CHANGE if it.kept else _LEAVE].append(row)
        self._changed.clear()
        for statement, rows in changed.items():
            if rows:
                self.db.executemany(statement, rows)
        for name, line in self._lines.items():
            counted = astuple(line)
            if counted != self._cache.written.get(name):
                self.db.execute(_COUNTED, (*counted, name))
                self._cache.written[name] = counted
