"""The rows of the store's tables that one operation works on: read once, changed in memory, written at its end.

Rule: it knows how rows are read and written, not why they change. Whoever looks for copies by anything but their
places calls `flush` before, so that the database knows of the new ones.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from .sqlite_schema import LEASED
from .sqlite_topology import Topology
from .values import Delivery, Message, Publication, Queue

#: Values in one list of a statement.
_CHUNK: Final = 64

COPY: Final = (
    "c.seq, c.id, c.queue, c.state, c.rank, c.published, c.due, c.expires, c.keep_result, c.count, c.token, c.once"
)
CONTENT: Final = "x.envelope, x.body"
_COPIES: Final = f"SELECT {COPY} FROM copies c"
_KNOWN: Final = "number, id, digest, queues, copies, going, kept, failed, cancelled, unique_key, joins, until"
_LINE: Final = "name, deleted, expires, next_at, ready, delayed, leased, dead, published, delivered, acked"


class Known(msgspec.Struct):
    """A row of `ids`."""

    number: int
    id: str
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
    id: str
    queue: str
    state: int
    rank: int
    published: float
    due: float
    expires: float | None
    keep_result: float | None
    count: int
    token: int | None
    once: int = 0


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


class _Envelope(msgspec.Struct, array_like=True):
    """A publication without the message's id and body."""

    exchange: str
    routing_key: str
    headers: bytes
    content_type: str
    content_encoding: str
    priority: int
    not_before: float | None
    expires: float | None
    unique: str | None
    unique_until: float | None
    joins: tuple[str, ...]
    keep_result: float | None


_NEXT: Final = """
SELECT 1 + max((SELECT coalesce(max(seq), 0) FROM copies), (SELECT coalesce(max(number), 0) FROM ids))
"""

_encode: Final = msgspec.msgpack.Encoder().encode
_ENVELOPE: Final = msgspec.msgpack.Decoder(_Envelope)
_QUEUE: Final = msgspec.msgpack.Decoder(Queue)
_NAMES: Final = msgspec.msgpack.Decoder(tuple[str, ...])


def pack(publication: Publication) -> bytes:
    """All of a publication but its message's id and body."""
    message = publication.message
    return _encode(
        (
            publication.exchange,
            publication.routing_key,
            message.headers,
            message.content_type,
            message.content_encoding,
            message.priority,
            message.not_before,
            message.expires,
            message.unique,
            message.unique_until,
            message.joins,
            message.keep_result,
        )
    )


def unpack(id: str, envelope: bytes, body: bytes) -> Publication:
    """The publication again."""
    found = _ENVELOPE.decode(envelope)
    message = Message(
        id,
        body,
        found.headers,
        found.content_type,
        found.content_encoding,
        found.priority,
        found.not_before,
        found.expires,
        found.unique,
        found.unique_until,
        found.joins,
        found.keep_result,
    )
    return Publication(message, found.routing_key, found.exchange)


def pack_names(names: tuple[str, ...]) -> bytes | None:
    """Names for a column; None for none."""
    return _encode(names) if names else None


def unpack_names(packed: bytes | None) -> tuple[str, ...]:
    """The names again."""
    return _NAMES.decode(packed) if packed is not None else ()


def delivery(copy: Copy, envelope: bytes, body: bytes) -> Delivery:
    """A leased copy as it is handed out."""
    publication = unpack(copy.id, envelope, body)
    return Delivery(
        copy.token or 0,
        copy.queue,
        publication.message,
        publication.exchange,
        publication.routing_key,
        copy.count,
        copy.published,
    )


def _shorten(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=6).digest(), "big", signed=True)


def chosen(db: sqlite3.Connection, select: str, first: Sequence[Any], values: Iterable[Any]) -> Iterator[Any]:
    """The rows of a SELECT that ends in `IN`, for any number of values, by statements that are prepared once."""
    left = iter(values)
    while chunk := list(islice(left, _CHUNK)):
        size = 1 if len(chunk) == 1 else _CHUNK
        marks = ",".join("?" * size)
        yield from db.execute(f"{select} ({marks})", (*first, *chunk, *([None] * (size - len(chunk)))))


class Rows:
    """The rows that one operation has read, and those that it has made.

    Attributes:
        durable: whether a change concerns more than transient queues, so that it must not be lost.
    """

    def __init__(self, db: sqlite3.Connection, topology: Topology) -> None:
        self.db: Final = db
        self.topology: Final = topology
        self.durable = False
        self._known: Final[dict[str, Known | None]] = {}
        self._introduced: Final[dict[str, Known]] = {}
        self._changed: Final[dict[str, Known]] = {}
        self._lines: Final[dict[str, Line]] = {}
        self._next_seq = 0
        self._copies: list[tuple[Any, ...]] = []
        self._contents: list[tuple[Any, ...]] = []
        self._written: list[tuple[Any, ...]] = []
        self._gone: list[tuple[int]] = []

    # Messages

    def learn(self, ids: Iterable[str]) -> None:
        """Read what is known of these at once."""
        missing = [name for name in dict.fromkeys(ids) if name not in self._known]
        wanted = set(missing)
        self._known.update(dict.fromkeys(wanted))
        for row in chosen(self.db, f"SELECT {_KNOWN} FROM ids WHERE short IN", (), map(_shorten, missing)):
            if row[1] in wanted:  # another id may be shortened to the same
                self._known[row[1]] = Known(*row)

    def known(self, id: str) -> Known | None:
        """What is known of a message."""
        if id not in self._known:
            self.learn([id])
        return self._known[id]

    def sure(self, id: str) -> Known:
        """What is known of a message that is there."""
        known = self.known(id)
        assert known is not None, id
        return known

    def forget(self, now: float) -> None:
        """Forget the ids whose time is over."""
        self.db.execute("DELETE FROM ids WHERE until <= ?", (now,))
        self._known.clear()

    def change(self, known: Known) -> None:
        """Have it written."""
        if known.id not in self._introduced:
            self._changed[known.id] = known

    def introduce(self, known: Known) -> None:
        """Have a new one written, or in the place of one that was cancelled before it came."""
        self._known[known.id] = self._introduced[known.id] = known
        self._changed.pop(known.id, None)

    # Queues

    def line(self, name: str) -> Line | None:
        """A queue, if it is there, or is deleted with deliveries out."""
        line = self._lines.get(name)
        if line is None:
            row = self.db.execute(f"SELECT {_LINE} FROM queues WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            line = self._lines[name] = Line(*row)
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
        self._lines.pop(name, None)
        self.db.execute("DELETE FROM queues WHERE name = ?", (name,))

    # Copies

    def next_seq(self, copies: int) -> int:
        """The next place in the order of publication, with room for so many."""
        if not self._next_seq:
            (self._next_seq,) = self.db.execute(_NEXT).fetchone()
        self._next_seq += copies
        return self._next_seq - copies

    def _concern(self, queue: str) -> None:
        if not self.durable:
            spec = self.topology.queues.get(queue)
            self.durable = spec is None or not spec.transient

    def insert(self, copy: Copy, envelope: bytes, body: bytes, *, replayed: bool = False) -> None:
        """A new copy."""
        self._concern(copy.queue)
        self._contents.append((copy.seq, envelope, body))
        times = copy.published, copy.due, copy.expires, copy.keep_result, copy.count
        self._copies.append((copy.seq, copy.id, copy.queue, copy.state, copy.rank, *times, replayed))

    def delete(self, copy: Copy) -> None:
        """A copy is gone."""
        self._concern(copy.queue)
        self._gone.append((copy.seq,))

    def write(self, copy: Copy) -> None:
        """A copy that was there has changed; it is in no session's hands."""
        self._concern(copy.queue)
        self._written.append(
            (copy.state, copy.rank, copy.due, copy.expires, copy.keep_result, copy.count, copy.seq),
        )

    def lease(self, queue: str, copies: Sequence[Copy], session: str) -> None:
        """These, of one queue, are in a session's hands."""
        if copies:
            self._concern(queue)
        self.db.executemany(
            f"UPDATE copies SET state = {LEASED}, count = ?, token = ?, session = ? WHERE seq = ?",
            [(copy.count, copy.token, session, copy.seq) for copy in copies],
        )

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

    def copies_of(self, known: Known) -> list[Copy]:
        """All that are left of a message, in their order."""
        where = "c.id = ? AND c.seq BETWEEN ? AND ? AND NOT c.replayed"
        first = self.find(where, known.id, known.number, known.number + known.copies - 1)
        return first + self.find("c.id = ? AND c.replayed = 1 ORDER BY c.seq", known.id)

    def dead(self, number: int) -> Copy | None:
        """The copy of that number among the dead."""
        return self.find_one("c.seq = (SELECT seq FROM dead WHERE number = ?)", number)

    def content(self, copy: Copy) -> tuple[bytes, bytes]:
        """Envelope and body of a copy."""
        self.flush()
        found: tuple[bytes, bytes] = self.db.execute(
            "SELECT envelope, body FROM contents WHERE seq = ?", (copy.seq,)
        ).fetchone()
        return found

    def replace(self, copy: Copy, envelope: bytes, body: bytes) -> None:
        """Another content for a copy."""
        self.flush()
        self.db.execute("UPDATE contents SET envelope = ?, body = ? WHERE seq = ?", (envelope, body, copy.seq))

    def find(self, where: str, *values: Any) -> list[Copy]:
        """The copies for which this holds."""
        self.flush()
        return [Copy(*row) for row in self.db.execute(f"{_COPIES} WHERE {where}", values)]

    def find_one(self, where: str, *values: Any) -> Copy | None:
        """The first copy for which this holds."""
        found = self.find(f"{where} LIMIT 1", *values)
        return found[0] if found else None

    def held(self, session: str, tokens: Iterable[int]) -> dict[int, Copy]:
        """Of these deliveries, those that the session has."""
        self.flush()
        where = f"{_COPIES} WHERE c.state = {LEASED} AND c.session = ? AND c.token IN"
        return {row[10]: Copy(*row) for row in chosen(self.db, where, (session,), tokens)}

    # The end

    def flush(self) -> None:
        """Write the copies, so that statements see them."""
        if self._copies:
            self.db.executemany("INSERT INTO contents VALUES (?, ?, ?)", self._contents)
            self.db.executemany(
                "INSERT INTO copies"
                " (seq, id, queue, state, rank, published, due, expires, keep_result, count, replayed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._copies,
            )
            self._copies, self._contents = [], []
        if self._written:
            self.db.executemany(
                "UPDATE copies SET state = ?, rank = ?, due = ?, expires = ?, keep_result = ?, count = ?, token = NULL,"
                " session = NULL, cancelled = 0, once = 0 WHERE seq = ?",
                self._written,
            )
            self._written = []
        if self._gone:
            self.db.executemany("DELETE FROM copies WHERE seq = ?", self._gone)
            self.db.executemany("DELETE FROM contents WHERE seq = ?", self._gone)
            self._gone = []

    def finish(self) -> None:
        """Write all that has changed."""
        self.flush()
        if self._introduced:
            self.db.executemany(
                f"INSERT OR REPLACE INTO ids (short, {_KNOWN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(_shorten(known.id), *msgspec.structs.astuple(known)) for known in self._introduced.values()],
            )
            self._introduced.clear()
        if self._changed:
            self.db.executemany(
                "UPDATE ids SET going = ?, kept = ?, failed = ?, cancelled = ?, until = ? WHERE number = ?",
                [(it.going, it.kept, it.failed, it.cancelled, it.until, it.number) for it in self._changed.values()],
            )
            self._changed.clear()
        if self._lines:
            self.db.executemany(
                "UPDATE queues SET name = ?, deleted = ?, expires = ?, next_at = ?, ready = ?, delayed = ?, leased = ?,"
                " dead = ?, published = ?, delivered = ?, acked = ? WHERE name = ?",
                [(*msgspec.structs.astuple(line), line.name) for line in self._lines.values()],
            )
