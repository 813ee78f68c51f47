"""What is known of messages' ends in a database: results, unique keys, and the joins that count them.

Rule: told that something has ended, these say what follows from it; they neither route nor queue.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from .sqlite_columns import chosen, shorten, unpack_outcome
from .values import Join, Publication, Result

_JOIN: Final = msgspec.msgpack.Decoder(Join)
_encode: Final = msgspec.msgpack.Encoder().encode


# Results


def read_results(db: sqlite3.Connection, ids: Sequence[str], now: float) -> list[Result | None]:
    """The result of each of these, if it has not expired."""
    select = (
        "SELECT id, outcome, final, at FROM messages JOIN results USING (number) WHERE results.until > ? AND short IN"
    )
    found = {
        name: Result(name, unpack_outcome(outcome), bool(final), at)
        for name, outcome, final, at in chosen(db, select, (now,), map(shorten, ids))
    }
    return [found.get(name) for name in ids]


# Unique keys


def is_free(db: sqlite3.Connection, key: str | None, now: float) -> bool:
    """Whether nobody holds a key."""
    if key is None:
        return True
    held = "SELECT 1 FROM uniques WHERE key = ? AND (until IS NULL OR until > ?)"
    return db.execute(held, (key, now)).fetchone() is None


def hold(db: sqlite3.Connection, key: str | None, id: str, until: float | None) -> None:
    """Hold a key that is free."""
    if key is not None:
        db.execute("INSERT OR REPLACE INTO uniques VALUES (?, ?, ?)", (key, id, until))


def release(db: sqlite3.Connection, key: str | None, id: str) -> None:
    """Free a key, if this message is who holds it."""
    if key is not None:
        db.execute("DELETE FROM uniques WHERE key = ? AND id = ?", (key, id))


# Joins


class Joins:
    """Each counts a message once, and comes together once.

    Args:
        remember: for how long one that is closed, or has yet to come, is known.
    """

    def __init__(self, db: sqlite3.Connection, now: float, remember: float) -> None:
        self._db: Final = db
        self._now: Final = now
        self._until: Final = now + remember

    def add(self, join: Join) -> Sequence[Publication]:
        """Begin to wait, if it is new; gives what to publish if all has ended already."""
        added = self._db.execute(
            "INSERT INTO joins (id, size, value, expires) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " size = excluded.size, value = excluded.value, expires = excluded.expires, until = NULL"
            " WHERE size IS NULL AND NOT closed",
            (join.id, join.size, _encode(join), join.expires),
        )
        return self._together(join.id) if added.rowcount > 0 else ()

    def count(self, id: str, member: str, failed: bool) -> Sequence[Publication]:
        """A message has ended; gives what to publish if that was the last."""
        self._db.execute("INSERT OR IGNORE INTO joins (id, until) VALUES (?, ?)", (id, self._until))
        (closed,) = self._db.execute("SELECT closed FROM joins WHERE id = ?", (id,)).fetchone()
        if closed or not self._db.execute("INSERT OR IGNORE INTO members VALUES (?, ?)", (id, member)).rowcount:
            return ()
        self._db.execute("UPDATE joins SET ended = ended + 1, failed = failed OR ? WHERE id = ?", (failed, id))
        return self._together(id)

    def sweep(self) -> None:
        """Close what did not come together in time, forget what was closed long ago."""
        for (late,) in self._db.execute("SELECT id FROM joins WHERE expires <= ?", (self._now,)).fetchall():
            self._close(late)
        for old in self._db.execute("SELECT id FROM joins WHERE until <= ?", (self._now,)).fetchall():
            self._db.execute("DELETE FROM members WHERE part_of = ?", old)
            self._db.execute("DELETE FROM joins WHERE id = ?", old)

    def _together(self, id: str) -> Sequence[Publication]:
        value, failed = self._db.execute(
            "SELECT CASE WHEN ended >= size THEN value END, failed FROM joins WHERE id = ?", (id,)
        ).fetchone()
        if value is None:
            return ()
        self._close(id)
        join = _JOIN.decode(value)
        return join.otherwise if failed and join.otherwise is not None else join.then

    def _close(self, id: str) -> None:
        self._db.execute("DELETE FROM members WHERE part_of = ?", (id,))
        self._db.execute(
            "UPDATE joins SET closed = 1, value = NULL, expires = NULL, until = ? WHERE id = ?", (self._until, id)
        )
