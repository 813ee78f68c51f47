"""Exchanges, bindings and queues of a database, kept in memory as well: into which queues a publication goes.

Rule: whoever rolls the database back drops this too, and reads it anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from backwater_tornado.errors import DeclarationConflict, SessionGone, UnknownExchange, UnknownQueue

from .routing import fits
from .values import DEFAULT_EXCHANGE, Binding, Exchange, Publication, Queue

Thing = Exchange | Queue | Binding

#: Routes that are remembered.
_ROUTES: Final = 10_000

_EXCHANGE: Final = msgspec.msgpack.Decoder(Exchange)
_QUEUE: Final = msgspec.msgpack.Decoder(Queue)
_encode: Final = msgspec.msgpack.Encoder().encode


class Topology:
    """All of it, as the database has it.

    Attributes:
        queues: those that are there, by name.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.queues: Final[dict[str, Queue]] = {
            name: _QUEUE.decode(value) for name, value in db.execute("SELECT name, value FROM queues WHERE NOT deleted")
        }
        self._exchanges: Final[dict[str, Exchange]] = {
            name: _EXCHANGE.decode(value) for name, value in db.execute("SELECT name, value FROM exchanges")
        }
        self._bindings: Final[dict[str, dict[Binding, None]]] = {name: {} for name in self._exchanges}
        for row in db.execute("SELECT exchange, queue, pattern FROM bindings ORDER BY number"):
            self._bindings[row[0]][Binding(*row)] = None
        self._routes: dict[tuple[str, str], tuple[str, ...] | None] = {}

    def check(self, db: sqlite3.Connection, things: Sequence[Thing]) -> None:
        """Whether all of it can be declared, in this order. Raises as `Store.declare` does."""
        exchanges, queues = dict(self._exchanges), dict(self.queues)
        for thing in things:
            if isinstance(thing, Exchange):
                if exchanges.setdefault(thing.name, thing) != thing or thing.name == DEFAULT_EXCHANGE:
                    raise DeclarationConflict(f"The exchange {thing.name!r} is there, and another")
            elif isinstance(thing, Queue):
                if thing.exclusive is not None and not _is_open(db, thing.exclusive):
                    raise SessionGone
                if queues.setdefault(thing.name, thing).exclusive != thing.exclusive:
                    raise DeclarationConflict(f"The queue {thing.name!r} is not this session's alone")
            elif thing.exchange not in exchanges:
                raise UnknownExchange(thing.exchange)
            elif thing.queue not in queues:
                raise UnknownQueue(thing.queue)

    def add(self, db: sqlite3.Connection, thing: Thing) -> None:
        """Write what was checked."""
        self._routes.clear()
        if isinstance(thing, Queue):
            db.execute(
                "INSERT INTO queues (name, value) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value, deleted = 0",
                (thing.name, _encode(thing)),
            )
            self.queues[thing.name] = thing
        elif isinstance(thing, Exchange):
            db.execute("INSERT OR IGNORE INTO exchanges VALUES (?, ?)", (thing.name, _encode(thing)))
            self._exchanges[thing.name] = thing
            self._bindings.setdefault(thing.name, {})
        else:
            db.execute(
                "INSERT OR IGNORE INTO bindings (exchange, queue, pattern) VALUES (?, ?, ?)",
                (thing.exchange, thing.queue, thing.pattern),
            )
            self._bindings[thing.exchange][thing] = None

    def remove(self, db: sqlite3.Connection, thing: Exchange | Binding) -> None:
        """Delete it, if it is there."""
        self._routes.clear()
        if isinstance(thing, Exchange):
            db.execute("DELETE FROM exchanges WHERE name = ?", (thing.name,))
            db.execute("DELETE FROM bindings WHERE exchange = ?", (thing.name,))
            self._exchanges.pop(thing.name, None)
            self._bindings.pop(thing.name, None)
        elif thing in self._bindings.get(thing.exchange, ()):
            db.execute(
                "DELETE FROM bindings WHERE exchange = ? AND queue = ? AND pattern = ?",
                (thing.exchange, thing.queue, thing.pattern),
            )
            del self._bindings[thing.exchange][thing]
            exchange = self._exchanges[thing.exchange]
            if exchange.auto_delete and not self._bindings[thing.exchange]:
                self.remove(db, exchange)

    def remove_queue(self, db: sqlite3.Connection, name: str) -> None:
        """Forget a queue that is deleted, with its bindings."""
        self._routes.clear()
        del self.queues[name]
        for binding in [binding for found in self._bindings.values() for binding in found if binding.queue == name]:
            self.remove(db, binding)

    def route(self, publication: Publication) -> tuple[str, ...] | None:
        """The queues that it goes into, each once; None if there is no such exchange."""
        key = publication.routing_key
        if publication.exchange == DEFAULT_EXCHANGE:
            return (key,) if key in self.queues else ()
        way = publication.exchange, key
        if way not in self._routes:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[way] = self._find(*way)
        return self._routes[way]

    def _find(self, name: str, key: str) -> tuple[str, ...] | None:
        exchange = self._exchanges.get(name)
        if exchange is None:
            return None
        bindings = self._bindings[name]
        return tuple(dict.fromkeys(found.queue for found in bindings if fits(exchange.kind, found.pattern, key)))


def exchanges(db: sqlite3.Connection) -> list[Exchange]:
    """See `Store.exchanges`."""
    return [_EXCHANGE.decode(value) for (value,) in db.execute("SELECT value FROM exchanges ORDER BY name")]


def bindings(db: sqlite3.Connection) -> list[Binding]:
    """See `Store.bindings`."""
    return [
        Binding(*row)
        for row in db.execute("SELECT exchange, queue, pattern FROM bindings ORDER BY exchange, queue, pattern")
    ]


def _is_open(db: sqlite3.Connection, session: str) -> bool:
    return db.execute("SELECT 1 FROM sessions WHERE id = ?", (session,)).fetchone() is not None
