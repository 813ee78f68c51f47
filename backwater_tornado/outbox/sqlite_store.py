"""The file of an outbox: a SQLite database that several processes of one application may use at once.

Rules:

* Durable. SQLite would sync its log with all that goes with it; a `fdatasync` of the log, here, is enough. What a
  forwarder writes is not synced: what it forgets is sent again, and known to the broker.
* Short. No transaction waits for anything but the disk; another process's is waited for, `patience` seconds at most.
* SQLite's connections must not cross a fork: they are closed before it.
* The database may be one of the application's own, with other tables in it; then its journal stays as it is.

What the rows mean is in `sqlite_rows`; what an outbox has to do, in `store`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from backwater_tornado.errors import ConfigurationError, InvalidOption, OutboxFull, StorageFailed

from . import sqlite_rows
from .amounts import Bounds
from .parcels import Parcel, Place
from .seat import Seat, make_seat, ring
from .store import OutboxStore

#: Pages in the log that make a commit move them into the database.
_CHECKPOINT: Final = 4000
#: Between two looks at a file that another process is just making, seconds; and how often.
_WHILE_MADE: Final = 0.02
_LOOKS: Final = 250
_sync: Final = getattr(os, "fdatasync", os.fsync)


def path_of(url: str) -> str:
    """The file that a URL names: `sqlite:///var/lib/myapp/outbox.db`, or `sqlite:outbox.db`; raises `InvalidOption`."""
    try:
        parts = urlsplit(url)
    except (ValueError, AttributeError):
        raise InvalidOption(f"an outbox is named by a URL, not {url!r}") from None
    path = unquote(parts.path)
    if parts.scheme != "sqlite" or parts.netloc or parts.query or not path or path.endswith("/") or "\0" in path:
        raise InvalidOption(
            "an outbox is named sqlite:///var/lib/myapp/outbox.db, by its absolute path, sqlite:outbox.db, from the"
            " current directory, or postgresql://db.example/app"
        )
    return path


class SqliteOutbox(OutboxStore[sqlite3.Connection]):
    """See the head of this module.

    Args:
        path: the database; it is made if it is missing, readable by its owner only.
        bounds: how much it holds.
        patience: how long to wait for another process that writes, seconds.

    Raises: ConfigurationError when the file cannot be used.
    """

    _failures = (OSError, sqlite3.Error)

    def __init__(self, path: str | os.PathLike[str], bounds: Bounds = Bounds(), patience: float = 5.0) -> None:  # noqa: B008 - it is frozen
        self.path: Final = Path(path).resolve()
        self._patience: Final = patience
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._log_fd = -1
        self._syncs = True
        self._failed = ""
        super().__init__(str(self.path), sqlite_rows, bounds)
        with self.lock:  # a fork waits until all is open
            try:
                self._make()
            except (OSError, sqlite3.Error) as exc:
                self._disconnect()
                raise ConfigurationError(f"the outbox {self.name!r} cannot be opened: {exc}") from exc
            except ConfigurationError:
                self._disconnect()
                raise

    def seat(self) -> Seat:
        """The pipe beside the file."""
        return Seat(self.path)

    def reader(self) -> Callable[[int], list[Place]]:
        """Numbers are given in the order of commits: what is new has a higher one."""
        after = 0

        def more(limit: int) -> list[Place]:
            nonlocal after
            found = self.read(lambda db: sqlite_rows.places(db, after, limit))
            after = found[-1].number if found else after
            return found

        return more

    def _insert(self, db: sqlite3.Connection, parcels: Sequence[Parcel]) -> int:
        try:
            sqlite_rows.insert(db, parcels, self.bounds)
        except OutboxFull:
            if self.bounds.when_full != "drop_oldest":
                raise
            dropped = sqlite_rows.make_room(db, parcels, self.bounds)
            if not dropped:
                raise
            sqlite_rows.insert(db, parcels, self.bounds)
            return dropped
        return 0

    def _ring(self) -> None:
        ring(self.path)

    # Transactions

    def _reading(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = self._open()
        return self._reader

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        if self._failed:
            raise StorageFailed(self._failed)
        if self._writer is None:
            self._writer = self._open()
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if durable and self._syncs:
            self._sync_log()

    def _sync_log(self) -> None:
        try:
            if self._log_fd < 0:
                self._log_fd = os.open(f"{self.path}-wal", os.O_RDONLY)
                _sync_folder(self.path)  # the log may be new, and after a power failure nobody would find it
            _sync(self._log_fd)
        except OSError:  # a disk says so once only, and may have lost any of it
            self._failed = f"the disk of the outbox {self.name!r} has failed to keep what was written"
            raise

    # Connections

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=self._patience, isolation_level=None, check_same_thread=False)
        try:
            (mode,) = db.execute("PRAGMA journal_mode").fetchone()
            self._syncs = mode == "wal"  # any other journal is SQLite's to sync
            db.execute(f"PRAGMA synchronous = {'NORMAL' if self._syncs else 'FULL'}")
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        except BaseException:
            db.close()
            raise
        return db

    def _disconnect(self) -> None:
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()
        self._reader = self._writer = None
        if self._log_fd >= 0:  # the log may be another one afterwards
            os.close(self._log_fd)
            self._log_fd = -1

    def _make(self) -> None:
        """Make the file and its tables where they are missing; several processes may do so at once."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        make_seat(self.path)
        for look in range(_LOOKS):
            try:
                self._make_tables()
                return
            except sqlite3.OperationalError as exc:
                if "locked" not in str(exc) or look == _LOOKS - 1:
                    raise
                time.sleep(_WHILE_MADE)

    def _make_tables(self) -> None:
        with contextlib.closing(self._open()) as db:
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                db.execute("PRAGMA journal_mode = WAL")
            known = sqlite_rows.version(db)
            if known > sqlite_rows.VERSION:
                raise ConfigurationError(
                    f"the outbox {self.name!r} was made by a newer version of this package; it is left as it is"
                )
            if not known:
                db.executescript(f"BEGIN IMMEDIATE; {sqlite_rows.SCHEMA} COMMIT")

    def _part(self, *, child: bool) -> None:
        self._disconnect()


def _sync_folder(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
