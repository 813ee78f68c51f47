"""Exchanges and bindings in memory: into which queues a publication goes.

Rule: it knows queues by their names only, and is told which of them there are.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from backwater_tornado.errors import DeclarationConflict, SessionGone, UnknownExchange, UnknownQueue

from .routing import fits
from .values import DEFAULT_EXCHANGE, Binding, Exchange, Publication, Queue

Thing = Exchange | Queue | Binding


class Topology:
    """The exchanges, each with its bindings."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}
        self._bindings: dict[str, dict[Binding, None]] = {}

    def check(self, things: Sequence[Thing], queues: Mapping[str, Queue], sessions: Container[str]) -> None:
        """Whether all of it can be declared, in this order. Raises as `Store.declare` does."""
        exchanges, queues = dict(self._exchanges), dict(queues)
        for thing in things:
            if isinstance(thing, Exchange):
                there = exchanges.setdefault(thing.name, thing)
                if there != thing or thing.name == DEFAULT_EXCHANGE:
                    raise DeclarationConflict(f"The exchange {thing.name!r} is there, and another")
            elif isinstance(thing, Queue):
                if thing.exclusive is not None and thing.exclusive not in sessions:
                    raise SessionGone
                if queues.setdefault(thing.name, thing).exclusive != thing.exclusive:
                    raise DeclarationConflict(f"The queue {thing.name!r} is not this session's alone")
            elif thing.exchange not in exchanges:
                raise UnknownExchange(thing.exchange)
            elif thing.queue not in queues:
                raise UnknownQueue(thing.queue)

    def add(self, thing: Exchange | Binding) -> None:
        """Declare what was checked."""
        if isinstance(thing, Exchange):
            self._exchanges[thing.name] = thing
            self._bindings.setdefault(thing.name, {})
        else:
            self._bindings[thing.exchange][thing] = None

    def remove(self, thing: Exchange | Binding) -> None:
        """Delete it, if it is there."""
        if isinstance(thing, Exchange):
            self._exchanges.pop(thing.name, None)
            self._bindings.pop(thing.name, None)
        elif thing in self._bindings.get(thing.exchange, ()):
            del self._bindings[thing.exchange][thing]
            if self._exchanges[thing.exchange].auto_delete and not self._bindings[thing.exchange]:
                self.remove(self._exchanges[thing.exchange])

    def remove_queue(self, name: str) -> None:
        """Delete the bindings of a queue that is deleted."""
        for binding in [binding for binding in self._all() if binding.queue == name]:
            self.remove(binding)

    def route(self, publication: Publication, queues: Container[str]) -> tuple[str, ...] | None:
        """The queues that it goes into, each once; None if there is no such exchange."""
        key = publication.routing_key
        if publication.exchange == DEFAULT_EXCHANGE:
            return (key,) if key in queues else ()
        exchange = self._exchanges.get(publication.exchange)
        if exchange is None:
            return None
        found = [
            binding.queue for binding in self._bindings[exchange.name] if fits(exchange.kind, binding.pattern, key)
        ]
        return tuple(dict.fromkeys(found))

    def exchanges(self) -> list[Exchange]:
        """See `Store.exchanges`."""
        return [self._exchanges[name] for name in sorted(self._exchanges)]

    def bindings(self) -> list[Binding]:
        """See `Store.bindings`."""
        return sorted(self._all(), key=lambda binding: (binding.exchange, binding.queue, binding.pattern))

    def _all(self) -> Iterator[Binding]:
        for bindings in self._bindings.values():
            yield from bindings
