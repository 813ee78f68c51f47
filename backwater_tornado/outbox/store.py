"""The file of an outbox: a SQLite database that several processes of one application may use at once.

Rules:

* Durable. What `put` has returned from is on disk. Threads that put something at the same moment share a commit: the
  first writes for all who wait. SQLite would sync its log with all that goes with it; a `fdatasync` of the log, here,
  is enough. What a forwarder writes is not synced: what it forgets is sent again, and known to the broker.
* Short. No transaction waits for anything but the disk; another process's is waited for, `patience` seconds at most.
* SQLite's connections must not cross a fork: they are closed before it, and opened again when they are next used.
* The database may be one of the application's own, with other tables in it; then its journal stays as it is.

Failures of the medium are `StorageFailed`; what the rows mean is in `rows`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from backwater_tornado.errors import ConfigurationError, InvalidOption, OutboxFull, StorageFailed

from . import rows
from .parcels import Kept, Parcel, Place, Taken
from .rows import Bounds, Status
from .seat import make_seat, ring

T = TypeVar("T")

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
            "an outbox is named sqlite:///var/lib/myapp/outbox.db, by its absolute path, or sqlite:outbox.db, from the"
            " current directory"
        )
    return path


class _Waiting:
    """What one caller puts in, and what came of it."""

    __slots__ = ("ended", "error", "parcels")

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self.parcels = parcels
        self.ended = False
        self.error: Exception | None = None


class OutboxStore:
    """See the head of this module.

    Args:
        path: the database; it is made if it is missing, readable by its owner only.
        bounds: how much it holds.
        patience: how long to wait for another process that writes, seconds.

    Raises: ConfigurationError when the file cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], bounds: Bounds = Bounds(), patience: float = 5.0) -> None:  # noqa: B008 - it is frozen
        self.path: Final = Path(path).resolve()
        self._bounds: Final = bounds
        self._patience: Final = patience
        self._lock: Final = threading.Lock()
        self._read_lock: Final = threading.Lock()
        self._line: Final[deque[_Waiting]] = deque()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._log_fd = -1
        self._syncs = True
        self._failed = ""
        with self._lock:  # a fork waits until all is open
            try:
                self._make()
            except (OSError, sqlite3.Error) as exc:
                self._disconnect()
                raise ConfigurationError(f"the outbox {str(self.path)!r} cannot be opened: {exc}") from exc
            except ConfigurationError:
                self._disconnect()
                raise
            _OPEN.add(self)

    # Sending

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Put parcels in, all or none; they are on disk when this returns.

        Raises:
            OutboxFull: there is no room for all of them.
            StorageFailed: the disk has failed, or others were writing for too long.
        """
        waiting = _Waiting(parcels)
        self._line.append(waiting)
        with self._lock:
            if not waiting.ended:
                self._put_all()
        if waiting.error is not None:
            raise waiting.error
        ring(self.path)

    def _put_all(self) -> None:
        """Commit for all who wait."""
        group: list[_Waiting] = []
        with contextlib.suppress(IndexError):
            while True:
                group.append(self._line.popleft())
        try:
            with self._transaction(durable=True) as db:
                for each in group:
                    try:
                        rows.insert(db, each.parcels, self._bounds)
                    except OutboxFull as error:
                        each.error = error
        except Exception as exc:  # noqa: BLE001 - it is everybody's, whatever it is
            for each in group:
                each.error = StorageFailed(str(exc))
                each.error.__cause__ = exc
        finally:
            for each in group:
                each.ended = True

    # Forwarding

    def places(self, after: int, limit: int) -> list[Place]:
        """See `rows.places`."""
        return self._read(lambda db: rows.places(db, after, limit))

    def take(self, numbers: Iterable[int], now: float) -> list[Taken]:
        """See `rows.take`."""
        return self._write(lambda db: rows.take(db, numbers, now))

    def keep(self, refused: Iterable[Kept]) -> None:
        """See `rows.keep`."""
        self._write(lambda db: rows.keep(db, refused))

    def remove(self, numbers: Iterable[int]) -> int:
        """See `rows.remove`."""
        return self._write(lambda db: rows.remove(db, numbers))

    # Looking

    def last_number(self) -> int:
        """See `rows.last_number`."""
        return self._read(rows.last_number)

    def is_waiting(self, until: int) -> bool:
        """See `rows.is_waiting`."""
        return self._read(lambda db: rows.is_waiting(db, until))

    def status(self) -> Status:
        """See `rows.status`."""
        return self._read(rows.status)

    def waiting(self, after: int, limit: int) -> list[Taken]:
        """See `rows.waiting`."""
        return self._read(lambda db: rows.waiting(db, after, limit))

    def refused(self, limit: int) -> list[Kept]:
        """See `rows.refused`."""
        return self._read(lambda db: rows.refused(db, limit))

    def drop(self, ids: Sequence[str]) -> int:
        """See `rows.drop`."""
        return self._write(lambda db: rows.drop(db, ids))

    def drop_refused(self) -> int:
        """See `rows.drop_refused`."""
        return self._write(rows.drop_refused)

    def close(self) -> None:
        """Close the connections; they are opened again when it is used again."""
        with self._lock, self._read_lock:
            self._disconnect()

    # Transactions

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._lock, self._transaction(durable=False) as db:
                return work(db)
        except (OSError, sqlite3.Error) as exc:
            raise self._failure(exc) from exc

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._read_lock:
                if self._reader is None:
                    self._reader = self._open()
                return work(self._reader)
        except (OSError, sqlite3.Error) as exc:
            raise self._failure(exc) from exc

    def _failure(self, exc: Exception) -> StorageFailed:
        return StorageFailed(f"the outbox {str(self.path)!r} cannot do it now: {exc}")

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
            self._failed = f"the disk of the outbox {str(self.path)!r} has failed to keep what was written"
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
            known = rows.version(db)
            if known > rows.VERSION:
                raise ConfigurationError(
                    f"the outbox {str(self.path)!r} was made by a newer version of this package; it is left as it is"
                )
            if not known:
                db.executescript(f"BEGIN IMMEDIATE; {rows.SCHEMA} COMMIT")

    # Forks

    def before_fork(self) -> None:
        """Wait until nobody uses the connections, and close them."""
        self._lock.acquire()
        self._read_lock.acquire()
        self._disconnect()

    def after_fork(self, *, child: bool) -> None:
        """Go on; whoever waited in another thread is not in a child."""
        if child:
            self._line.clear()
        self._read_lock.release()
        self._lock.release()


def _sync_folder(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_OPEN: Final[weakref.WeakSet[OutboxStore]] = weakref.WeakSet()
_forking: list[OutboxStore] = []


def _before_fork() -> None:
    _forking[:] = _OPEN
    for store in _forking:
        store.before_fork()


def _after_fork(**child: Any) -> None:
    for store in _forking:
        store.after_fork(**child)
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(child=False),
    after_in_child=lambda: _after_fork(child=True),
)
