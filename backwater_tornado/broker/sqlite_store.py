"""The store in a file: what was accepted survives `kill -9`, and power loss where the medium does.

Each operation is one transaction (or a part of one, see `transaction`) and one `Messages`: rows are read, changed in
memory, and written at its end. What is read only (results, lists, counts) has a connection of its own and waits for no
writer. Any thread may use it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Final

import msgspec

from backwater_tornado.errors import UnknownQueue

from . import sqlite_ends as ends
from . import sqlite_topology as topology
from .sqlite_file import SqliteFile
from .sqlite_leases import Leases, end_session, open_session, restart
from .sqlite_listing import count_queues, list_dead
from .sqlite_messages import Messages
from .sqlite_rows import OF_MESSAGE, Cache, Rows
from .sqlite_schema import LEASED, MIGRATIONS
from .sqlite_topology import Thing
from .store import REMEMBER
from .values import (
    Batch,
    Binding,
    DeadLetter,
    Effects,
    Entry,
    Exchange,
    Join,
    Outcome,
    Poll,
    Publication,
    Published,
    Queue,
    QueueStats,
    Result,
    Session,
    Settlement,
    SettleState,
)

#: A clock that is set back by no more, in seconds, is not worth looking at every session, id and result.
JITTER: Final = 1.0

_ENTRY: Final = msgspec.msgpack.Decoder(Entry)
_encode: Final = msgspec.msgpack.Encoder().encode

#: What has been done, and when, as far as it shows: for a clock that was set back while nothing was open.
_LATEST: Final = """
SELECT max((SELECT coalesce(max(until), -9e999) FROM settled) - :remember,
    (SELECT coalesce(max(expires - ttl), -9e999) FROM sessions),
    coalesce((SELECT published FROM copies ORDER BY seq DESC LIMIT 1), -9e999))
"""

#: When time brings the next of each kind; first those that somebody may wait for.
_NEXT: Final = """
SELECT (SELECT min(due) FROM copies WHERE state = 1),
    (SELECT min(expires) FROM copies WHERE state < 2 AND expires IS NOT NULL),
    (SELECT min(expires) FROM sessions),
    (SELECT min(expires) FROM joins WHERE expires IS NOT NULL),
    (SELECT min(expires) FROM queues WHERE expires IS NOT NULL),
    (SELECT min(until) FROM joins WHERE until IS NOT NULL),
    (SELECT min(until) FROM uniques WHERE until IS NOT NULL),
    (SELECT min(until) FROM messages WHERE until IS NOT NULL),
    (SELECT min(until) FROM results),
    (SELECT min(until) FROM settled)
"""
_AWAITED: Final = 5

#: The clock was set back: nothing lives longer for that.
_SET_BACK: Final = (
    "UPDATE sessions SET expires = :now + ttl WHERE expires > :now + ttl",
    "UPDATE settled SET until = :now + :remember WHERE until > :now + :remember",
    "UPDATE messages SET until = :now + :remember WHERE until > :now + :remember",
    "UPDATE joins SET until = :now + :remember WHERE until > :now + :remember",
    "UPDATE results SET until = :now + until - at, at = :now WHERE at > :now",
)


class SqliteStore:
    """See `Store`.

    Args:
        path: the database; see `SqliteFile`.
        remember: how long ids and tokens are remembered after their end, in seconds.

    Raises: ConfigurationError when the file cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], remember: float = REMEMBER) -> None:
        self._remember: Final = remember
        self._file: Final = SqliteFile(path, MIGRATIONS)
        self._cache: Cache | None = None
        self._undone = 0
        #: Never back: what was rolled back has used them up.
        self._tokens = count(1)
        #: Queues whose rate held back a poll.
        self._held_back: dict[str, float] = {}
        with self._file.reading() as db:
            (self._latest,) = db.execute(_LATEST, {"remember": remember}).fetchone()
        with self._operation(self._latest) as messages:  # the moment at which what is transient was lost
            self._tokens = count(restart(messages))

    def transaction(self) -> AbstractContextManager[None]:
        """Make one transaction of all operations in the block; see `SqliteFile.transaction`."""
        return self._file.transaction()

    @contextmanager
    def _operation(self, now: float, *, durable: bool = True) -> Iterator[Messages]:
        """One operation; `durable` unless it finds out that it concerns transient queues only."""
        with self._file.writing(durable=durable) as db:
            messages = Messages(Rows(db, self._cache_of(db), self._tokens), now, self._remember)
            yield messages
            messages.finish()
            if messages.rows.durable:
                self._file.make_durable()
        self._latest = max(self._latest, now)

    def _cache_of(self, db: sqlite3.Connection) -> Cache:
        if self._cache is None or self._undone != self._file.undone:
            self._cache = Cache(db)
            self._undone = self._file.undone
        return self._cache

    # Topology

    def declare(self, things: Sequence[Thing], now: float) -> Effects:
        """See `Store.declare`."""
        with self._operation(now) as messages:
            db = messages.rows.db
            messages.rows.topology.check(db, things)
            for thing in things:
                if isinstance(thing, Queue):
                    messages.declare(thing)
                else:
                    messages.rows.topology.add(db, thing)
        return messages.effects()

    def delete(self, things: Sequence[Thing], now: float) -> tuple[int, Effects]:
        """See `Store.delete`."""
        dropped = 0
        with self._operation(now) as messages:
            for thing in things:
                if isinstance(thing, Queue):
                    dropped += messages.delete(thing.name)
                else:
                    messages.rows.topology.remove(messages.rows.db, thing)
        return dropped, messages.effects()

    def purge(self, queue: str, now: float) -> tuple[int, Effects]:
        """See `Store.purge`."""
        with self._operation(now) as messages:
            if queue not in messages.rows.topology.queues:
                raise UnknownQueue(queue)
            dropped = messages.purge(messages.rows.there(queue))
        return dropped, messages.effects()

    # Messages

    def publish(
        self, publications: Sequence[Publication], now: float, joins: Sequence[Join] = ()
    ) -> tuple[list[Published], Effects]:
        """See `Store.publish`."""
        with self._operation(now, durable=False) as messages:
            published = messages.publish(publications, joins)
        return published, messages.effects()

    def receive(self, session: str, poll: Poll, now: float) -> tuple[Batch, Effects]:
        """See `Store.receive`."""
        with self._operation(now, durable=False) as messages:
            leases = Leases(messages, session)
            batch = leases.receive(poll)
        self._held_back.update(leases.held_back)
        return batch, messages.effects()

    def settle(self, session: str, settlements: Sequence[Settlement], now: float) -> tuple[list[SettleState], Effects]:
        """See `Store.settle`."""
        with self._operation(now, durable=False) as messages:
            states = Leases(messages, session).settle(settlements, now + self._remember)
        return states, messages.effects()

    def cancel(self, ids: Sequence[str], outcome: Outcome, now: float) -> Effects:
        """See `Store.cancel`."""
        with self._operation(now) as messages:
            messages.rows.learn(ids)
            for message in ids:
                messages.cancel(message, outcome)
        return messages.effects()

    # Sessions

    def open_session(self, session: Session, now: float, claim: Sequence[int] = ()) -> list[int]:
        """See `Store.open_session`."""
        with self._operation(now) as messages:
            return open_session(messages, session, claim)

    def close_session(self, session: str, now: float) -> Effects:
        """See `Store.close_session`."""
        with self._operation(now) as messages:
            end_session(messages, session)
        return messages.effects()

    def resume(self, now: float) -> None:
        """See `Store.resume`."""
        with self._operation(now, durable=False) as messages:
            messages.rows.db.execute("UPDATE sessions SET expires = ? + ttl", (now,))

    def sweep(self, now: float) -> Effects:
        """See `Store.sweep`."""
        if not self._is_due(now):
            self._latest = now
            return Effects()
        with self._operation(now, durable=False) as messages:
            db = messages.rows.db
            if now < self._latest - JITTER:
                self._set_back(messages)
            gone = "SELECT id FROM sessions WHERE expires <= ? ORDER BY expires"
            for (session,) in db.execute(gone, (now,)).fetchall():
                end_session(messages, session)
            messages.sweep()
            for name in [name for name, moment in self._held_back.items() if moment <= now]:
                messages.wake(name)
            db.execute("DELETE FROM settled WHERE until <= ?", (now,))
        self._held_back = {name: moment for name, moment in self._held_back.items() if moment > now}
        self._latest = now
        return messages.effects()

    def _is_due(self, now: float) -> bool:
        """Whether time has brought anything, so that an idle store writes nothing."""
        if now < self._latest - JITTER or any(moment <= now for moment in self._held_back.values()):
            return True
        with self._file.reading() as db:
            return any(moment is not None and moment <= now for moment in db.execute(_NEXT).fetchone())

    def _set_back(self, messages: Messages) -> None:
        for statement in _SET_BACK:
            messages.rows.db.execute(statement, {"now": messages.now, "remember": self._remember})
        self._held_back = {name: min(moment, messages.now) for name, moment in self._held_back.items()}
        for (name,) in messages.rows.db.execute("SELECT name FROM queues WHERE expires IS NOT NULL").fetchall():
            messages.idle(messages.rows.there(name))

    def next_due(self, now: float) -> float | None:
        """See `Store.next_due`."""
        with self._file.reading() as db:
            awaited = db.execute(_NEXT).fetchone()[:_AWAITED]
        moments = [*awaited, *self._held_back.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    # Results, the dead, the schedule

    def results(self, ids: Sequence[str], now: float) -> list[Result | None]:
        """See `Store.results`."""
        with self._file.reading() as db:
            return ends.read_results(db, ids, now)

    def forget_results(self, ids: Sequence[str], now: float) -> None:
        """See `Store.forget_results`."""
        with self._operation(now) as messages:
            messages.rows.learn(ids)
            known = [messages.rows.known(message) for message in ids]
            messages.rows.forget_results(found.number for found in known if found is not None)

    def dead_letters(self, queue: str | None, after: int, limit: int) -> list[DeadLetter]:
        """See `Store.dead_letters`."""
        with self._file.reading() as db:
            return list_dead(db, queue, after, limit)

    def replay(self, numbers: Sequence[int], now: float) -> tuple[int, Effects]:
        """See `Store.replay`."""
        with self._operation(now) as messages:
            replayed = sum([messages.replay(number) for number in numbers])
        return replayed, messages.effects()

    def drop(self, numbers: Sequence[int], now: float) -> tuple[int, Effects]:
        """See `Store.drop`."""
        with self._operation(now) as messages:
            dropped = sum([messages.drop(number) for number in numbers])
        return dropped, messages.effects()

    def schedule(self) -> list[Entry]:
        """See `Store.schedule`."""
        with self._file.reading() as db:
            return [_ENTRY.decode(value) for (value,) in db.execute("SELECT value FROM entries ORDER BY due, name")]

    def plan(
        self, entry: Entry, expected: float | None, now: float, publish: Publication | None
    ) -> tuple[bool, Effects]:
        """See `Store.plan`."""
        with self._operation(now) as messages:
            db = messages.rows.db
            there = db.execute("SELECT due FROM entries WHERE name = ?", (entry.name,)).fetchone()
            if (None if there is None else there[0]) != expected:
                return False, Effects()
            db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (entry.name, entry.due, _encode(entry)))
            if publish is not None:
                messages.follow_up([publish])
        return True, messages.effects()

    def unplan(self, name: str) -> bool:
        """See `Store.unplan`."""
        with self._file.writing() as db:
            return db.execute("DELETE FROM entries WHERE name = ?", (name,)).rowcount > 0

    # Looking

    def exchanges(self) -> list[Exchange]:
        """See `Store.exchanges`."""
        with self._file.reading() as db:
            return topology.exchanges(db)

    def bindings(self) -> list[Binding]:
        """See `Store.bindings`."""
        with self._file.reading() as db:
            return topology.bindings(db)

    def stats(self, queues: Sequence[str] | None, now: float) -> list[QueueStats]:
        """See `Store.stats`."""
        with self._file.reading() as db:
            return count_queues(db, queues)

    def leased(self, session: str | None) -> list[tuple[str, int, str]]:
        """See `Store.leased`."""
        of = "" if session is None else "AND c.session = ?"
        select = f"SELECT c.session, c.token, m.id FROM {OF_MESSAGE} WHERE c.state = {LEASED} {of} ORDER BY c.token"
        with self._file.reading() as db:
            return db.execute(select, () if session is None else (session,)).fetchall()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()
