"""The file in which a worker keeps outcomes that its broker has not taken: a SQLite database of one process.

What `exchange` has put in is on disk when it returns. What it takes out is not synced: outcomes that come back by that
are told again, and known to the broker. Of what was superseded the file has the names only, and of the last ones.

Rule: an outcome is bytes with the names of what it is about; when one is kept, and for how long, is `keeping`'s.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from backwater_tornado.broker.sqlite_file import Kind, SqliteFile
from backwater_tornado.errors import ConfigurationError

#: Bytes of outcomes where nothing is said.
SIZE: Final = 1 << 30
#: Names of what was superseded.
REMEMBERED: Final = 1000
#: In one portion: outcomes, and bytes of them, unless it is a single one.
MOST, MOST_BYTES = 1000, 1 << 20

SPOOL: Final = Kind("spool", "worker", 0x62777370, "move it away, with the outcomes that it holds")
MIGRATIONS: Final = (
    """
CREATE TABLE outcomes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, token INTEGER NOT NULL,
    at REAL NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL, queue TEXT NOT NULL,
    size INTEGER NOT NULL, settlement BLOB NOT NULL
);
CREATE TABLE superseded (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL,
    queue TEXT NOT NULL
)
""",
)


class About(NamedTuple):
    """A task that has ended here."""

    #: Unix seconds.
    at: float
    #: Of its message.
    id: str
    #: Empty where the delivery could not be read.
    task: str
    queue: str

    @property
    def label(self) -> str:
        """As the log names it."""
        return f"{self.task or '?'}[{self.id}]"


class Kept(NamedTuple):
    """An outcome."""

    #: Of the delivery: the session that had it, and its lease.
    session: str
    token: int
    about: About
    #: The `Settlement`, packed.
    settlement: bytes
    #: In the file.
    number: int = 0


class Status(NamedTuple):
    """A spool at one moment."""

    waiting: int
    #: When the oldest of those has ended, Unix seconds.
    oldest: float | None
    #: Bytes of the outcomes.
    size: int
    superseded: int


class Spool:
    """See the head of this module.

    Args:
        path: the file; it is made if it is missing, readable by its owner only.
        size: bytes of outcomes that it holds at most.

    Raises: ConfigurationError when the file cannot be used, as another worker does, say.
    """

    def __init__(self, path: str | os.PathLike[str], size: int = SIZE) -> None:
        self._file: Final = SqliteFile(path, MIGRATIONS, SPOOL)
        self._limit: Final = size
        with self._file.reading() as db:
            ((self._size,),) = db.execute("SELECT total(size) FROM outcomes").fetchall()

    def exchange(self, outcomes: Sequence[Kept], gone: Iterable[int], superseded: Iterable[About] = ()) -> list[int]:
        """Put outcomes in, take others out by their numbers, note what was superseded; raises `StorageFailed`.

        Returns: the numbers of the first outcomes, of those that there was room for.
        """
        added = []
        with self._file.writing(durable=bool(outcomes)) as db:
            size = self._size - _sum(db.execute(_REMOVE, (number,)) for number in gone)
            for each in outcomes:
                size += len(each.settlement)
                if size > self._limit:
                    size -= len(each.settlement)
                    break
                row = each.session, each.token, *each.about, len(each.settlement), each.settlement
                added.append(int(db.execute(_ADD, row).lastrowid or 0))
            if noted := list(superseded):
                db.executemany("INSERT INTO superseded (at, id, task, queue) VALUES (?, ?, ?, ?)", noted)
                db.execute(_FORGET, (REMEMBERED,))
        self._size = size
        return added

    def sessions(self) -> dict[str, list[int]]:
        """The sessions of which outcomes are here, in their order, with the tokens of those."""
        found: dict[str, list[int]] = {}
        with self._file.reading() as db:
            for session, token in db.execute("SELECT session, token FROM outcomes ORDER BY number"):
                found.setdefault(session, []).append(token)
        return found

    def portion(self, session: str, after: int) -> list[Kept]:
        """The next outcomes of a session, with numbers above `after`."""
        found: list[Kept] = []
        size = 0
        with self._file.reading() as db:
            for row in db.execute(_NEXT, (session, after, MOST)):
                size += len(row[-1])
                if found and size > MOST_BYTES:
                    break
                found.append(_kept(row))
        return found

    def close(self) -> None:
        """Give it back; another worker may have it."""
        self._file.close()


_ADD: Final = (
    "INSERT INTO outcomes (session, token, at, id, task, queue, size, settlement) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_FORGET: Final = "DELETE FROM superseded WHERE number <= (SELECT max(number) FROM superseded) - ?"
_REMOVE: Final = "DELETE FROM outcomes WHERE number = ? RETURNING size"
_NEXT: Final = (
    "SELECT number, session, token, at, id, task, queue, settlement FROM outcomes"
    " WHERE session = ? AND number > ? ORDER BY number LIMIT ?"
)


def _sum(answers: Iterable[sqlite3.Cursor]) -> int:
    return sum(size for cursor in answers for (size,) in cursor.fetchall())


def _kept(row: tuple[Any, ...]) -> Kept:
    number, session, token, *about, settlement = row
    return Kept(session, token, About(*about), settlement, number)


# Looking, from outside -----------------------------------------------------------------------------------------------


def read_status(path: str | os.PathLike[str]) -> Status:
    """How much there is, whoever has the spool; raises `ConfigurationError`."""
    with _looking(path) as db:
        waiting, oldest, size = db.execute("SELECT count(*), min(at), total(size) FROM outcomes").fetchone()
        (superseded,) = db.execute("SELECT count(*) FROM superseded").fetchone()
    return Status(waiting, oldest, int(size), superseded)


def read_waiting(path: str | os.PathLike[str], limit: int) -> list[About]:
    """The tasks whose outcomes wait, oldest first; raises `ConfigurationError`."""
    with _looking(path) as db:
        rows = db.execute("SELECT at, id, task, queue FROM outcomes ORDER BY number LIMIT ?", (limit,)).fetchall()
    return [About(*row) for row in rows]


def read_superseded(path: str | os.PathLike[str], limit: int) -> list[About]:
    """The tasks that were superseded, the last first; raises `ConfigurationError`."""
    with _looking(path) as db:
        rows = db.execute(
            "SELECT at, id, task, queue FROM superseded ORDER BY number DESC LIMIT ?", (limit,)
        ).fetchall()
    return [About(*row) for row in rows]


@contextlib.contextmanager
def _looking(path: str | os.PathLike[str]) -> Iterator[sqlite3.Connection]:
    name = str(path)
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=rw", uri=True)) as db:
            db.execute("PRAGMA query_only = ON")
            (application,) = db.execute("PRAGMA application_id").fetchone()
            if application != SPOOL.application:
                raise ConfigurationError(f"{name!r} is not a spool of a worker")
            yield db
    except sqlite3.Error as exc:
        raise ConfigurationError(f"the spool {name!r} cannot be read: {exc}") from exc
