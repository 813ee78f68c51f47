"""A database file of which this process is the only user: its lock, its version, its transactions.

Rules:

* One process. Whoever opens the file holds a `flock` on a file beside it, which the kernel releases when the process
  dies, however it dies.
* One writer. Every operation is a transaction, with the write lock from its start. `transaction` makes one of several
  operations: each is a savepoint of it, so that one that raises has done nothing and the others are not disturbed; with
  none it is nothing. Readers have a connection of their own and wait for nobody.
* Durable. What has to be is synced to disk before its transaction returns, with all that was committed before. SQLite
  could only sync every commit or none; so the log is synced here, after a commit that asks for it. A disk that fails
  to do that may have lost any of it, and says so once only: then the file is closed for good.
* Versions. The schema is a list of migrations; `user_version` says how many of them a file has seen.
* SQLite's connections must not cross a fork, not even idle: they are closed before it, and opened again in the parent
  when they are next used. In the child the file is closed.

Failures of the medium are `StorageFailed`; this module does not know what is stored.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backwater_tornado.errors import ConfigurationError, StorageFailed

#: KiB of pages kept in memory by each connection.
_CACHE: Final = 64 * 1024
_sync: Final = getattr(os, "fdatasync", os.fsync)
_GIVEN_UP: Final = "an operation of the same transaction has failed"
#: Pages in the log that make a commit move them into the database.
_CHECKPOINT: Final = 4000


@dataclass(frozen=True)
class Kind:
    """What a file is for: how it is told from others, and spoken of."""

    name: str
    #: The program that it is one of.
    owner: str
    #: In the file's header: what is ours.
    application: int
    #: What to do with one that is damaged.
    advice: str


STORE: Final = Kind("store", "broker", 0x62776272, "restore it from a backup")


class SqliteFile:
    """A database that is open.

    Args:
        path: the database; it and what goes with it (`-wal`, `-shm`, `-lock`) are readable by their owner only.
        migrations: scripts; the first makes the schema, every other one changes what those before it have made.
        kind: what it is for.
        patience: how many seconds to wait for a program (a backup, a shell) that writes to the file.

    Attributes:
        undone: how often anything was rolled back: what was remembered of the database before is not to be trusted.

    Raises: ConfigurationError when the file cannot be used.
    """

    def __init__(
        self, path: str | os.PathLike[str], migrations: Sequence[str], kind: Kind = STORE, *, patience: float = 5.0
    ) -> None:
        self._path: Final = Path(path).resolve()
        self._kind: Final = kind
        self._named: Final = f"the {kind.name} {str(self._path)!r}"
        self._patience: Final = patience
        self._lock: Final = threading.RLock()
        self._read_lock: Final = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._closed = ""
        self._grouped_by: int | None = None
        #: Of the transaction that goes on: whether it has begun to write, and whether it has to be synced.
        self._begun = False
        self._durable = False
        self._log_fd = -1
        self.undone = 0
        with self._lock:  # a fork waits until all is open
            self._lock_fd = self._lock_file()
            try:
                self._enter(migrations)
            except ConfigurationError:
                self.close()
                raise
            except (OSError, sqlite3.Error) as exc:
                self.close()
                advice = f"; {kind.advice}" if "malformed" in str(exc) else ""
                raise ConfigurationError(f"{self._named} cannot be opened: {exc}{advice}") from exc
            _OPEN.add(self)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make one transaction of all operations in the block; when it raises, none of them has happened.

        An operation in it that raises has done nothing, and the block may go on with others.
        """
        with self._lock:
            if self._grouped_by is not None:
                raise RuntimeError("transactions of a store do not nest")
            self._check_open()
            self._grouped_by = threading.get_ident()
            try:
                yield
                if self._begun:
                    with self._translated():
                        self._commit()
            except BaseException:
                self._roll_back("ROLLBACK")
                raise
            finally:
                self._grouped_by = None
                self._begun = False

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One operation: alone a transaction, a savepoint of one within `transaction`.

        It is synced before the transaction returns, unless it is not `durable` and nobody calls `make_durable`.
        """
        with self._lock, self._translated():
            grouped = self._grouped_by is not None
            try:
                db = self._begin()
                self._durable |= durable
                if grouped:
                    db.execute("SAVEPOINT operation")
                yield db
                if grouped:
                    db.execute("RELEASE operation")
                else:
                    self._commit()
            except BaseException:
                self._roll_back("ROLLBACK TO operation" if grouped else "ROLLBACK")
                raise
            finally:
                self._begun = self._begun and grouped

    def make_durable(self) -> None:
        """The operation that goes on has to be synced."""
        self._durable = True

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file as the last commit left it; within `transaction`, as that has left it so far."""
        if self._grouped_by == threading.get_ident():
            with self._translated():
                yield self._connect()
            return
        with self._read_lock, self._translated():
            db = self._reader
            if db is None:
                self._check_open()
                db = self._reader = self._open()
                db.execute("PRAGMA query_only = ON")
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def close(self) -> None:
        """Give it back; another process may open it."""
        with self._lock, self._read_lock:
            self._closed = self._closed or f"the {self._kind.name} is closed"
            self._disconnect()
            if self._lock_fd >= 0:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)  # said aloud: a child forked meanwhile has the descriptor too
                os.close(self._lock_fd)
                self._lock_fd = -1

    # Transactions

    def _begin(self) -> sqlite3.Connection:
        db = self._connect()
        if not self._begun:
            self._begun, self._durable = True, False
            db.execute("BEGIN IMMEDIATE")  # if it fails, nobody else in the same transaction waits for the lock again
        elif not db.in_transaction:  # SQLite itself has given up all of it
            raise StorageFailed(_GIVEN_UP)
        return db

    def _commit(self) -> None:
        self._connect().execute("COMMIT")
        if not self._durable:
            return
        try:
            if self._log_fd < 0:
                self._log_fd = os.open(f"{self._path}-wal", os.O_RDONLY)
                _sync_folder(self._path)  # the log may be new, and after a power failure nobody would find it
            _sync(self._log_fd)
        except OSError:
            self._closed = f"the disk has failed to keep what was written; start the {self._kind.owner} again"
            with self._read_lock:
                self._disconnect()
            raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as exc:
            raise StorageFailed(f"{self._named} cannot do it now: {exc}") from exc

    def _roll_back(self, how: str) -> None:
        self.undone += 1
        if self._writer is None or not self._writer.in_transaction:
            return
        try:
            self._writer.execute(how)
        except sqlite3.Error:
            self._close_writer()  # which rolls back

    def _check_open(self) -> None:
        if self._closed:
            raise StorageFailed(self._closed)

    def _connect(self) -> sqlite3.Connection:
        if self._writer is None:
            self._check_open()
            if self._begun:
                raise StorageFailed(_GIVEN_UP)
            self._writer = self._open()
        return self._writer

    def _disconnect(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._close_writer()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._log_fd >= 0:  # the log may be another one afterwards
            os.close(self._log_fd)
            self._log_fd = -1

    def _open(self) -> sqlite3.Connection:
        # Never creates the file: a store that somebody deleted must not come back empty.
        db = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,  # there are locks
            cached_statements=512,
        )
        try:
            db.execute("PRAGMA synchronous = NORMAL")  # see above
            db.execute(f"PRAGMA cache_size = -{_CACHE}")
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        except BaseException:
            db.close()
            raise
        return db

    # Opening

    def _lock_file(self) -> int:
        try:
            fd = os.open(self._path.with_name(f"{self._path.name}-lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as exc:
            raise ConfigurationError(f"{self._named} cannot be opened: {exc}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            owner, name = self._kind.owner, self._kind.name
            raise ConfigurationError(
                f"{self._named} is in use by another {owner}; stop that one, or name another {name}"
            ) from exc
        return fd

    def _enter(self, migrations: Sequence[str]) -> None:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        db = self._connect()
        version = self._check_version(db, len(migrations))
        if version and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise ConfigurationError(f"{self._named} is damaged; {self._kind.advice}")
        db.execute("PRAGMA journal_mode = WAL")
        for number in range(version, len(migrations)):
            migrate(db, number + 1, migrations[number], self._kind.application)

    def _check_version(self, db: sqlite3.Connection, known: int) -> int:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        kind = self._kind
        if application != kind.application and (application or version or tables):
            raise ConfigurationError(f"{str(self._path)!r} is not a {kind.name} of a {kind.owner}; name another file")
        if version > known:
            raise ConfigurationError(
                f"{self._named} was made by a newer version of this package"
                f" (its schema is {version}, known here is {known}); it is left as it is"
            )
        return int(version)

    # Forks

    def before_fork(self) -> None:
        """Wait until nobody uses the connections, and close them."""
        self._lock.acquire()
        self._read_lock.acquire()
        self._disconnect()

    def after_fork(self, *, child: bool) -> None:
        """Go on; a child has the file closed, without taking the lock away from its parent."""
        if child:
            self._closed = f"the {self._kind.name} was opened before the fork, by the parent"
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
            self._lock_fd = -1
        self._read_lock.release()
        self._lock.release()


def migrate(db: sqlite3.Connection, number: int, script: str, application: int = STORE.application) -> None:
    """Bring a database to this version, from the one before it, or leave it as it is."""
    try:
        db.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {application}; PRAGMA user_version = {number}; COMMIT"
        )
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _sync_folder(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_OPEN: Final[weakref.WeakSet[SqliteFile]] = weakref.WeakSet()
_forking: list[SqliteFile] = []


def _before_fork() -> None:
    _forking[:] = _OPEN
    for file in _forking:
        file.before_fork()


def _after_fork(*, child: bool) -> None:
    for file in _forking:
        file.after_fork(child=child)
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(child=False),
    after_in_child=lambda: _after_fork(child=True),
)
