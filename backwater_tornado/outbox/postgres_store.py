"""An outbox in PostgreSQL: tasks are written in the transactions of an application, and lie there until they have gone.

Rules:

* The tables are made by whoever makes the application's (`backwater outbox schema --dialect postgresql`).
* A forwarder's seat is an advisory lock of a connection of its own, which the server gives back when that ends. `put`
  notifies it; a transaction of somebody else's does not, as notifying makes commits wait for each other.
* A connection that was found dead when a transaction begins is replaced by a new one, once. It must be one to the
  server itself: a pooler that hands out connections by the transaction loses the seat.

What the rows mean is in `postgres_rows`; what an outbox has to do, in `store`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict

from backwater_tornado.errors import ConfigurationError, StorageFailed

from . import postgres_rows
from .amounts import Bounds
from .parcels import Kept, Parcel, Place
from .postgres_rows import Connection, Gauge
from .postgres_schema import VERSION
from .store import OutboxStore

#: What a URL may say otherwise: a server that does not answer is given up after so many seconds, or milliseconds.
_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "backwater outbox",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_CHANNEL: Final = "backwater_outbox"
_LOCK: Final = "SELECT pg_try_advisory_lock(726921, 'backwater_outbox'::regclass::oid::integer)"


class PostgresOutbox(OutboxStore[Connection]):
    """See the head of this module.

    Args:
        url: `postgresql://db.example/app`, as libpq reads it.
        bounds: how much it holds, more or less; transactions of the application's own may exceed it.

    Raises: ConfigurationError when it cannot be used, or has no tables.
    """

    _failures = (OSError, psycopg.Error)

    def __init__(self, url: str, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - it is frozen
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._gauge = Gauge()
        try:
            given = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
        except psycopg.Error as exc:
            raise ConfigurationError(f"an outbox's URL cannot be read: {exc}") from exc
        self._given: Final = _DEFAULTS | given
        super().__init__(f"postgresql://{given.get('host', '')}/{given.get('dbname', '')}", postgres_rows, bounds)
        try:
            found = self.read(postgres_rows.version)
        except StorageFailed as exc:
            raise ConfigurationError(f"the outbox {self.name!r} cannot be opened: {exc.__cause__}") from exc
        if found != VERSION:
            self.close()
            said = "was made by a newer version of this package" if found else "has no tables"
            raise ConfigurationError(
                f"the outbox {self.name!r} {said}; `backwater outbox schema --dialect postgresql` prints them"
            )

    def seat(self) -> PostgresSeat:
        """An advisory lock."""
        return PostgresSeat(self._open)

    def reader(self) -> Callable[[int], list[Place]]:
        """What is committed late may have a lower number: all that waits is looked at."""
        known: set[int] = set()
        return lambda limit: self.read(lambda db: postgres_rows.places(db, known, limit))

    def keep(self, refused: Iterable[Kept]) -> None:
        """See `Rows.keep`."""
        self._gauge.forget()
        super().keep(refused)

    def remove(self, numbers: Iterable[int]) -> int:
        """See `Rows.remove`."""
        self._gauge.forget()
        return super().remove(numbers)

    def drop(self, ids: Sequence[str]) -> int:
        """See `Rows.drop`."""
        self._gauge.forget()
        return super().drop(ids)

    def drop_refused(self) -> int:
        """See `Rows.drop_refused`."""
        self._gauge.forget()
        return super().drop_refused()

    def _insert(self, db: Connection, parcels: Sequence[Parcel]) -> int:
        dropped = 0
        if not self._gauge.has_room(db, parcels, self.bounds):
            if self.bounds.when_full == "drop_oldest":
                dropped = postgres_rows.make_room(db, parcels, self.bounds)
                self._gauge.forget()
            if not dropped:
                raise self.bounds.full()
        postgres_rows.insert(db, parcels)
        db.execute(f"NOTIFY {_CHANNEL}")
        return dropped

    def _ring(self) -> None:
        """The commit does."""

    # Transactions

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[Connection]:
        self._writer = db = self._begun(durable=durable)
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                db.execute("ROLLBACK")
            raise

    def _begun(self, *, durable: bool) -> Connection:
        begin = "BEGIN" if durable else "BEGIN; SET LOCAL synchronous_commit = off"
        if self._writer is not None:
            with contextlib.suppress(psycopg.OperationalError):
                self._writer.execute(cast("Any", begin))
                return self._writer
            self._writer.close()
        db = self._open()
        db.execute(cast("Any", begin))
        return db

    def _reading(self) -> Connection:
        if self._reader is None or self._reader.closed:
            self._reader = self._open()
        return self._reader

    # Connections

    def _open(self) -> Connection:
        return psycopg.connect(**self._given, autocommit=True)

    def _disconnect(self) -> None:
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()
        self._reader = self._writer = None

    def _part(self, *, child: bool) -> None:
        if child:  # the parent's: not to be closed here
            self._reader = self._writer = None


class PostgresSeat:
    """The seat at an outbox, and the notifications that ring for it; see `store.Seat`."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._db: Connection | None = None
        self.fd = -1

    def take(self) -> bool:
        """Take it, unless another has it; raises `StorageFailed`."""
        try:
            if self._db is None:
                self._db = self._connect()
            ((is_mine,),) = self._db.execute(_LOCK).fetchall()
            if is_mine:
                self._db.execute(f"LISTEN {_CHANNEL}")
                self.fd = self._db.fileno()
        except psycopg.Error as exc:
            self.leave()
            raise StorageFailed(f"the seat of the outbox cannot be taken now: {exc}") from exc
        return bool(is_mine)

    def hush(self) -> bool:
        """Hear all notifications so far as one; gives whether the connection, and so the seat, is still there."""
        assert self._db is not None
        try:
            self._db.pgconn.consume_input()
        except psycopg.Error:
            return False
        while self._db.pgconn.notifies() is not None:
            pass
        return True

    def leave(self) -> None:
        """Another may have it."""
        if self._db is not None:
            with contextlib.suppress(psycopg.Error):  # said aloud: a server hears late that a connection was closed
                self._db.execute("SELECT pg_advisory_unlock_all()")
            self._db.close()
        self.abandon()

    def abandon(self) -> None:
        """In a child process: it is the parent's, and must not be closed here."""
        self._db = None
        self.fd = -1
