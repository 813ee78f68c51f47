"""The tables of an outbox in SQLite, and what is done with them within somebody else's transaction.

So a parcel can be written in a transaction of the sender's own, in a database of its own, together with what the task
is about: both are there, or neither is.

Numbers are given in the order of commits, as SQLite has one writer; they are never given twice.

Rule: no transaction begins or ends here, and nothing is decided.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from .amounts import Bounds, Status
from .parcels import Kept, Parcel, Place, Taken

#: What `SCHEMA` makes.
VERSION: Final = 1
SCHEMA: Final = """\
CREATE TABLE IF NOT EXISTS backwater_outbox (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    id TEXT NOT NULL,
    queues TEXT NOT NULL,
    messages INTEGER NOT NULL,
    size INTEGER NOT NULL,
    tried REAL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS backwater_outbox_refused (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    queues TEXT NOT NULL,
    messages INTEGER NOT NULL,
    size INTEGER NOT NULL,
    reason TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS backwater_outbox_tally (
    version INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    dropped INTEGER NOT NULL
);
INSERT OR IGNORE INTO backwater_outbox_tally VALUES (1, 0, 0, 0, 0);
"""


# Sending -------------------------------------------------------------------------------------------------------------


def insert(db: sqlite3.Connection, parcels: Sequence[Parcel], bounds: Bounds) -> None:
    """Put parcels at the end; raises `OutboxFull`, and has done nothing then."""
    messages, size = sum(each.messages for each in parcels), sum(len(each.body) for each in parcels)
    last = _rows(
        db,
        "UPDATE backwater_outbox_tally SET last = last + ?, messages = messages + ?, bytes = bytes + ?"
        " WHERE messages + ? <= ? AND bytes + ? <= ? RETURNING last",
        (len(parcels), messages, size, messages, bounds.messages, size, bounds.size),
    )
    if not last:
        raise bounds.full()
    first = last[0][0] - len(parcels) + 1
    db.executemany(
        "INSERT INTO backwater_outbox (number, at, id, queues, messages, size, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (first + place, each.at, each.id, _joined(each.queues), each.messages, len(each.body), each.body)
            for place, each in enumerate(parcels)
        ],
    )


def make_room(db: sqlite3.Connection, parcels: Sequence[Parcel], bounds: Bounds) -> int:
    """Drop the oldest that were never tried until these fit; gives how many messages, 0 if that would not be enough."""
    ((messages, size),) = _rows(db, "SELECT messages, bytes FROM backwater_outbox_tally")
    messages += sum(each.messages for each in parcels)
    size += sum(len(each.body) for each in parcels)
    dropped: list[int] = []
    before: int = messages
    oldest = db.execute("SELECT number, messages, size FROM backwater_outbox WHERE tried IS NULL ORDER BY number")
    with contextlib.closing(oldest):
        while not bounds.fits(messages, size) and (row := oldest.fetchone()) is not None:
            dropped.append(row[0])
            messages, size = messages - row[1], size - row[2]
    if not bounds.fits(messages, size):
        return 0
    remove(db, dropped)
    db.execute("UPDATE backwater_outbox_tally SET dropped = dropped + ?", (before - messages,))
    return int(before - messages)


# Forwarding ----------------------------------------------------------------------------------------------------------


def places(db: sqlite3.Connection, after: int, limit: int) -> list[Place]:
    """What waits behind a number, in order."""
    found = _rows(
        db,
        "SELECT number, queues, messages, size FROM backwater_outbox WHERE number > ? ORDER BY number LIMIT ?",
        (after, limit),
    )
    return [Place(number, _split(queues), messages, size) for number, queues, messages, size in found]


def take(db: sqlite3.Connection, numbers: Iterable[int], now: float) -> list[Taken]:
    """Parcels that are about to be forwarded, marked as that; what has been dropped is left out."""
    chosen = json.dumps(list(numbers))
    found = _rows(
        db,
        "SELECT number, id, queues, messages, body, at, tried FROM backwater_outbox"
        " WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number",
        (chosen,),
    )
    if any(row[-1] is None for row in found):
        db.execute(
            "UPDATE backwater_outbox SET tried = ? WHERE tried IS NULL AND number IN (SELECT value FROM json_each(?))",
            (now, chosen),
        )
    return [
        Taken(number, Parcel(own, _split(queues), messages, body, at), tried)
        for number, own, queues, messages, body, at, tried in found
    ]


def keep(db: sqlite3.Connection, refused: Iterable[Kept]) -> None:
    """Keep what was refused, each once."""
    for parcel, reason in ((each.parcel, each.reason) for each in refused):
        added = db.execute(
            "INSERT OR IGNORE INTO backwater_outbox_refused VALUES (?, ?, ?, ?, ?, ?, ?)",
            (parcel.id, parcel.at, _joined(parcel.queues), parcel.messages, len(parcel.body), reason, parcel.body),
        ).rowcount
        if added:
            _count(db, parcel.messages, len(parcel.body))


def remove(db: sqlite3.Connection, numbers: Iterable[int]) -> int:
    """Parcels have gone; gives how many were there."""
    chosen = json.dumps(list(numbers))
    return _uncount(
        db,
        _rows(
            db,
            "DELETE FROM backwater_outbox WHERE number IN (SELECT value FROM json_each(?)) RETURNING messages, size",
            (chosen,),
        ),
    )


def drop(db: sqlite3.Connection, ids: Sequence[str]) -> int:
    """Forget what waits or was refused, by the id of its first message; gives how many were there."""
    chosen = json.dumps(ids)
    waiting = _rows(db, "SELECT number FROM backwater_outbox WHERE id IN (SELECT value FROM json_each(?))", (chosen,))
    refused = _rows(
        db,
        "DELETE FROM backwater_outbox_refused WHERE id IN (SELECT value FROM json_each(?)) RETURNING messages, size",
        (chosen,),
    )
    return remove(db, [number for (number,) in waiting]) + _uncount(db, refused)


def drop_refused(db: sqlite3.Connection) -> int:
    """Forget all that was refused; gives how many there were."""
    return _uncount(db, _rows(db, "DELETE FROM backwater_outbox_refused RETURNING messages, size"))


def _uncount(db: sqlite3.Connection, gone: Sequence[tuple[Any, ...]]) -> int:
    _count(db, -sum(messages for messages, _ in gone), -sum(size for _, size in gone))
    return len(gone)


# Looking -------------------------------------------------------------------------------------------------------------


def last_number(db: sqlite3.Connection) -> int:
    """The highest number that was given."""
    ((last,),) = _rows(db, "SELECT last FROM backwater_outbox_tally")
    return int(last)


def is_waiting(db: sqlite3.Connection, until: int) -> bool:
    """Whether anything up to this number waits."""
    return bool(_rows(db, "SELECT 1 FROM backwater_outbox WHERE number <= ? LIMIT 1", (until,)))


def status(db: sqlite3.Connection) -> Status:
    """How much there is."""
    waiting = _rows(db, "SELECT queues, sum(messages) FROM backwater_outbox GROUP BY queues ORDER BY queues")
    ((oldest,),) = _rows(db, "SELECT min(at) FROM backwater_outbox")
    ((refused,),) = _rows(db, "SELECT total(messages) FROM backwater_outbox_refused")
    ((size, dropped),) = _rows(db, "SELECT bytes, dropped FROM backwater_outbox_tally")
    return Status({", ".join(_split(queues)): count for queues, count in waiting}, oldest, int(refused), size, dropped)


def waiting(db: sqlite3.Connection, after: int, limit: int) -> list[Taken]:
    """Parcels that wait behind a number, in order."""
    found = _rows(
        db,
        "SELECT number, id, queues, messages, body, at, tried FROM backwater_outbox"
        " WHERE number > ? ORDER BY number LIMIT ?",
        (after, limit),
    )
    return [
        Taken(number, Parcel(own, _split(queues), messages, body, at), tried)
        for number, own, queues, messages, body, at, tried in found
    ]


def refused(db: sqlite3.Connection, limit: int) -> list[Kept]:
    """What was refused, oldest first."""
    found = _rows(
        db,
        "SELECT id, queues, messages, body, at, reason FROM backwater_outbox_refused ORDER BY at, id LIMIT ?",
        (limit,),
    )
    return [
        Kept(Parcel(own, _split(queues), messages, body, at), reason)
        for own, queues, messages, body, at, reason in found
    ]


# Both ----------------------------------------------------------------------------------------------------------------


def version(db: sqlite3.Connection) -> int:
    """The version of the tables; 0: there are none."""
    there = _rows(db, "SELECT 1 FROM sqlite_master WHERE name = 'backwater_outbox_tally'")
    return int(_rows(db, "SELECT max(version) FROM backwater_outbox_tally")[0][0]) if there else 0


def _count(db: sqlite3.Connection, messages: int, size: int) -> None:
    db.execute("UPDATE backwater_outbox_tally SET messages = messages + ?, bytes = bytes + ?", (messages, size))


def _rows(db: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    cursor = db.cursor()
    cursor.row_factory = None  # the connection may be the sender's own, and its rows of any kind
    return cursor.execute(statement, values).fetchall()


def _joined(queues: Iterable[str]) -> str:
    return json.dumps(list(queues), ensure_ascii=False)


def _split(queues: str) -> tuple[str, ...]:
    return tuple(json.loads(queues))
