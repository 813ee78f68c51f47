"""The memory of nonces and calls in a file that several processes of one machine share.

It keeps the contract of `protocol.memory.CallMemory` across processes, and across the death of any of them at any
moment, `kill -9` included. It does not outlive the machine: nothing is ever synced to disk (which is what makes it
fast), so after a boot the file, of which the last changes may be missing, is not believed but started afresh. From
then on it reaches back to that moment only, and says so: a later attempt of a call from before gets OutcomeUnknown.

Rules:

* Each operation is one transaction that takes the write lock at its start. A refusal commits as well: what was learned
  on the way to it (a settled mark) is kept.
* A running call belongs to an *owner*, one opened memory. An owner holds a lock on a file of its own in the directory
  beside the database, which the kernel releases when the process dies (see `owners`); a record left running by a dead
  owner is never run again, it gets OutcomeUnknown.
* SQLite's connections must not cross a fork, not even idle. So they are closed before it and opened again when they
  are next used; a child becomes an owner of its own.
* Opening, with all that it decides (whose file is this, is it of this boot, who is alive), is serialised by the gate
  of the owners. Where the system does not name its boots (it is not Linux), the file is started afresh whenever nobody
  has it open.
* Failures of the file are no holes: what cannot be remembered is refused.

Any thread may use it. `now` is given, as in the contract.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from backwater_tornado.errors import (
    BackwaterError,
    CallFailed,
    IdempotencyConflict,
    InternalError,
    InvalidOption,
    MemoryFull,
    OutcomeUnknown,
)
from backwater_tornado.owners import Owners
from backwater_tornado.protocol.memory import (
    DEFAULT_LIMITS,
    SWEEP_PAUSE,
    Begin,
    CallId,
    MemoryLimits,
    Recorded,
    check_new,
    forgotten_nonce,
    short_name,
    shortage,
    slide,
    split_nonce,
)

_VERSION: Final = 1
_APPLICATION: Final = 0x62773243  # in the file's header: what we may delete
_HEADER: Final = 100

_SCHEMA: Final = """
CREATE TABLE about (started REAL NOT NULL);
CREATE TABLE keys (
    key TEXT PRIMARY KEY, reach REAL NOT NULL,
    windows INTEGER NOT NULL DEFAULT 0, streams INTEGER NOT NULL DEFAULT 0,
    records INTEGER NOT NULL DEFAULT 0, answer_bytes INTEGER NOT NULL DEFAULT 0,
    nonces_forgotten REAL NOT NULL DEFAULT -9e999, calls_forgotten REAL NOT NULL DEFAULT -9e999
) WITHOUT ROWID;
CREATE TABLE windows (
    key TEXT, stream TEXT, highest INTEGER NOT NULL, seen BLOB NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY (key, stream)
) WITHOUT ROWID;
CREATE TABLE streams (
    key TEXT, stream TEXT, settled INTEGER NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY (key, stream)
) WITHOUT ROWID;
CREATE TABLE calls (
    key TEXT, stream TEXT, number INTEGER, state TEXT NOT NULL, owner TEXT NOT NULL,
    begun REAL NOT NULL, kept REAL NOT NULL, expires REAL NOT NULL, size INTEGER NOT NULL DEFAULT 0,
    digest BLOB NOT NULL, ok INTEGER, status INTEGER, media_type TEXT, body BLOB,
    PRIMARY KEY (key, stream, number)
) WITHOUT ROWID;
"""

#: Counting what has expired, key by key; taking it off; deleting it. Streams come after their calls.
_FORGET: Final = (
    (
        "SELECT max(expires), count(*), key FROM windows WHERE expires < ? GROUP BY key",
        "UPDATE keys SET nonces_forgotten = max(nonces_forgotten, ?), windows = windows - ? WHERE key = ?",
        "DELETE FROM windows WHERE expires < ?",
    ),
    (
        """
        SELECT max(begun), max(expires), count(*), total(size), key FROM calls
        WHERE expires < ? AND state != 'running' GROUP BY key
        """,
        """
        UPDATE keys SET reach = max(reach, ?), calls_forgotten = max(calls_forgotten, ?),
            records = records - ?, answer_bytes = answer_bytes - ? WHERE key = ?
        """,
        "DELETE FROM calls WHERE expires < ? AND state != 'running'",
    ),
    (
        """
        SELECT max(expires), count(*), key FROM streams WHERE expires < ? AND NOT EXISTS
            (SELECT 1 FROM calls WHERE calls.key = streams.key AND calls.stream = streams.stream) GROUP BY key
        """,
        "UPDATE keys SET calls_forgotten = max(calls_forgotten, ?), streams = streams - ? WHERE key = ?",
        """
        DELETE FROM streams WHERE expires < ? AND NOT EXISTS
            (SELECT 1 FROM calls WHERE calls.key = streams.key AND calls.stream = streams.stream)
        """,
    ),
)

_OF: Final = """
SELECT key, reach, windows, streams, records, answer_bytes, nonces_forgotten, calls_forgotten FROM keys WHERE key = ?
"""


class _Of(NamedTuple):
    key: str
    reach: float
    windows: int
    streams: int
    records: int
    answer_bytes: int
    nonces_forgotten: float
    calls_forgotten: float


class SqliteMemory:
    """A `CallMemory` in a file.

    Args:
        path: the database; it and what goes with it (`-wal`, `-shm`, `-owners/`) are readable by their owner only.
        now: the moment, from which on it remembers if the file is new.
        limits: how much it remembers for each key.
        patience: how many seconds to wait for another process that writes.

    Raises: InvalidOption when the file cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        now: float,
        limits: MemoryLimits = DEFAULT_LIMITS,
        *,
        patience: float = 5.0,
    ) -> None:
        self._path: Final = Path(path).absolute()
        self._limits: Final = limits
        self._patience: Final = patience
        self._owners: Final = Owners(self._path.with_name(f"{self._path.name}-owners"), _VERSION)
        self._lock: Final = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._swept = float("-inf")
        self._started = now
        with self._lock:  # a fork waits until all is open
            _OPEN.add(self)
            try:
                self._enter(now)
                (self._started,) = self._connect().execute("SELECT started FROM about").fetchone()
            except (OSError, sqlite3.Error) as exc:
                self.close()
                raise InvalidOption(f"the memory {str(self._path)!r} cannot be opened: {exc}") from exc
            except InvalidOption:
                self.close()
                raise

    # The contract

    @property
    def started(self) -> float:
        """See `CallMemory.started`."""
        return self._started

    def admit(self, key_id: str, nonce: str, expires: float, now: float) -> None:
        """See `CallMemory.admit`."""
        stream, number = split_nonce(nonce)
        with self._transaction(MemoryFull) as db:
            row = db.execute(
                "SELECT highest, seen, expires FROM windows WHERE key = ? AND stream = ?", (key_id, stream)
            ).fetchone()
            if row is None:
                of = self._of(db, key_id)
                if expires <= of.nonces_forgotten:
                    raise forgotten_nonce()
                self._make_room(db, of, now, lambda of: shortage(self._limits, of.windows, 0, 0))
                db.execute("INSERT INTO windows VALUES (?, ?, ?, ?, ?)", (key_id, stream, number, _bits(1), expires))
                db.execute("UPDATE keys SET windows = windows + 1 WHERE key = ?", (key_id,))
                return
            highest, seen = slide(row[0], int.from_bytes(row[1], "little"), number)
            db.execute(
                "UPDATE windows SET highest = ?, seen = ?, expires = ? WHERE key = ? AND stream = ?",
                (highest, _bits(seen), max(row[2], expires), key_id, stream),
            )

    def begin(self, key_id: str, call: CallId, digest: bytes, expires: float, now: float) -> Begin | Recorded:
        """See `CallMemory.begin`."""
        this = (key_id, short_name(call.stream), call.number)
        expires = max(expires, now)  # so that no sweep on the way drops what this call stands on
        with self._transaction(MemoryFull) as db:
            stream = db.execute(
                "SELECT settled, expires FROM streams WHERE key = ? AND stream = ?", this[:2]
            ).fetchone()
            settled = call.settled
            if stream is not None:
                settled = _settle(db, this[:2], stream, settled, expires)
                record = db.execute(
                    "SELECT digest, state, owner, ok, status, media_type, body FROM calls"
                    " WHERE key = ? AND stream = ? AND number = ?",
                    this,
                ).fetchone()
                if record is not None:
                    return self._known(db, this, record, digest, expires)
            of = self._of(db, key_id)
            check_new(call, now, settled, of.reach, of.calls_forgotten)
            new = stream is None
            self._make_room(
                db, of, now, lambda of: shortage(self._limits, new and of.streams, of.records, of.answer_bytes)
            )
            if new:
                db.execute("INSERT INTO streams VALUES (?, ?, ?, ?)", (*this[:2], settled, expires))
            db.execute(
                "INSERT INTO calls (key, stream, number, state, owner, begun, kept, expires, digest)"
                " VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?)",
                (*this, self._owners.me, now, expires - now, expires, digest),
            )
            db.execute("UPDATE keys SET records = records + 1, streams = streams + ? WHERE key = ?", (new, key_id))
            return Begin.RUN

    def finish(self, key_id: str, call: CallId, answer: Recorded, now: float) -> None:
        """See `CallMemory.finish`."""
        this = (key_id, short_name(call.stream), call.number)
        with self._transaction(InternalError) as db:
            row = db.execute(
                "SELECT max(calls.expires, calls.kept + ?), streams.settled FROM calls JOIN streams USING (key, stream)"
                " WHERE key = ? AND stream = ? AND number = ? AND state = 'running'",
                (now, *this),
            ).fetchone()
            if row is None:
                return
            expires, settled = row
            if call.number < settled:
                _drop(db, this)
                return
            size = len(answer.body)
            db.execute(
                "UPDATE calls SET state = 'finished', expires = ?, size = ?, ok = ?, status = ?, media_type = ?,"
                " body = ? WHERE key = ? AND stream = ? AND number = ?",
                (expires, size, answer.ok, answer.status, answer.media_type, answer.body, *this),
            )
            db.execute("UPDATE keys SET answer_bytes = answer_bytes + ? WHERE key = ?", (size, key_id))

    def abandon(self, key_id: str, call: CallId) -> None:
        """See `CallMemory.abandon`."""
        with self._transaction(InternalError) as db:
            _drop(db, (key_id, short_name(call.stream), call.number))

    def sweep(self, now: float) -> None:
        """See `CallMemory.sweep`; also finds the calls whose process has died."""
        with self._transaction(InternalError) as db:
            self._sweep(db, now)

    def close(self) -> None:
        """See `CallMemory.close`; what this process has begun and not finished has an unknown outcome from now on."""
        with self._lock:
            self._closed = True
            self._disconnect()
            self._owners.leave()

    # Parts of the operations; each within its transaction

    def _of(self, db: sqlite3.Connection, key_id: str) -> _Of:
        row = db.execute(_OF, (key_id,)).fetchone()
        if row is None:
            db.execute("INSERT INTO keys (key, reach) VALUES (?, ?)", (key_id, self._started))
            row = db.execute(_OF, (key_id,)).fetchone()
        return _Of._make(row)

    def _known(
        self, db: sqlite3.Connection, this: tuple[str, str, int], record: tuple[Any, ...], digest: bytes, expires: float
    ) -> Begin | Recorded:
        known_digest, state, owner, ok, status, media_type, body = record
        if known_digest != digest:
            raise IdempotencyConflict
        if state == "running" and not self._owners.alive(owner):
            state = "lost"
        db.execute(
            "UPDATE calls SET state = ?, expires = max(expires, ?) WHERE key = ? AND stream = ? AND number = ?",
            (state, expires, *this),
        )
        if state == "lost":
            raise OutcomeUnknown("The process that ran the call died before its end")
        return Begin.WAIT if state == "running" else Recorded(bool(ok), status, media_type, body)

    def _make_room(self, db: sqlite3.Connection, of: _Of, now: float, missing: Callable[[_Of], str]) -> None:
        if missing(of):
            if abs(now - self._swept) >= SWEEP_PAUSE:  # abs: the clock may have been set back
                self._sweep(db, now)
            if reason := missing(self._of(db, of.key)):
                raise MemoryFull(reason)

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        self._swept = now
        for (owner,) in db.execute("SELECT DISTINCT owner FROM calls WHERE state = 'running'").fetchall():
            if not self._owners.alive(owner):
                db.execute("UPDATE calls SET state = 'lost' WHERE state = 'running' AND owner = ?", (owner,))
        for count, subtract, delete in _FORGET:
            db.executemany(subtract, db.execute(count, (now,)).fetchall())
            db.execute(delete, (now,))

    # The connection

    @contextlib.contextmanager
    def _transaction(self, failure: type[CallFailed]) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                db = self._connect()
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                except BackwaterError:
                    db.execute("COMMIT")
                    raise
                except BaseException:
                    self._disconnect()  # which rolls back
                    raise
                db.execute("COMMIT")
            except (sqlite3.Error, OSError) as exc:
                self._disconnect()
                raise failure(f"The server's memory cannot be used now: {exc}") from exc

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            if self._closed:
                raise sqlite3.ProgrammingError("it is closed")
            if not self._owners.me:
                with self._owners.gate() as gate:
                    if not gate.fits():
                        raise sqlite3.ProgrammingError("it was started afresh after the fork")
                    self._owners.join()
            self._db = self._open()
        return self._db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        # Never creates the file: a memory that somebody deleted must not come back empty.
        db = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,  # there is a lock
        )
        db.execute("PRAGMA synchronous = OFF")
        return db

    def _enter(self, now: float) -> None:
        with self._owners.gate() as gate:
            fits = gate.fits() and self._path.exists()
            if self._owners.anyone_alive():
                if not fits:
                    raise InvalidOption(f"the memory {str(self._path)!r} is in use by another version, or was deleted")
            elif not fits or not gate.boot:
                self._create(now)
                gate.claim()
            self._owners.join()

    def _create(self, now: float) -> None:
        # Nobody has the file open, so that opening and closing it here takes no lock of SQLite's away.
        if self._path.exists():
            with self._path.open("rb") as file:
                header = file.read(_HEADER)
            if header and header[68:72] != _APPLICATION.to_bytes(4, "big"):
                raise InvalidOption(f"{str(self._path)!r} is not a memory of calls; name another file")
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(self._open()) as db:
            db.execute("PRAGMA synchronous = FULL")  # so that the header tells whose file it is in any event
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute("PRAGMA synchronous = OFF")
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            db.execute("INSERT INTO about VALUES (?)", (now,))

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._disconnect()

    def _after_fork(self) -> None:
        self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._owners.forget()
        self._lock.release()


def _settle(
    db: sqlite3.Connection, this: tuple[str, str], stream: tuple[int, float], settled: int, expires: float
) -> int:
    mark, latest = stream
    if settled > mark:
        below = (*this, settled)
        count, size = db.execute(
            "SELECT count(*), total(size) FROM calls"
            " WHERE key = ? AND stream = ? AND number < ? AND state != 'running'",
            below,
        ).fetchone()
        if count:
            db.execute("DELETE FROM calls WHERE key = ? AND stream = ? AND number < ? AND state != 'running'", below)
            db.execute(
                "UPDATE keys SET records = records - ?, answer_bytes = answer_bytes - ? WHERE key = ?",
                (count, size, this[0]),
            )
    if settled > mark or expires > latest:
        mark, latest = max(mark, settled), max(latest, expires)
        db.execute("UPDATE streams SET settled = ?, expires = ? WHERE key = ? AND stream = ?", (mark, latest, *this))
    return mark


def _drop(db: sqlite3.Connection, this: tuple[str, str, int]) -> None:
    dropped = db.execute("DELETE FROM calls WHERE key = ? AND stream = ? AND number = ? AND state = 'running'", this)
    if dropped.rowcount:
        db.execute("UPDATE keys SET records = records - 1 WHERE key = ?", this[:1])


def _bits(seen: int) -> bytes:
    return seen.to_bytes((seen.bit_length() + 7) // 8, "little")


# Forks

_OPEN: Final[weakref.WeakSet[SqliteMemory]] = weakref.WeakSet()
_forking: list[SqliteMemory] = []


def _before_fork() -> None:
    _forking[:] = _OPEN
    for memory in _forking:
        memory._before_fork()


def _after_fork() -> None:
    for memory in _forking:
        memory._after_fork()
    _forking.clear()


def _after_fork_in_child() -> None:
    for memory in _forking:
        memory._after_fork_in_child()
    _forking.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
