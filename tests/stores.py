"""The stores that the shared tests run on, and a hand to work them with.

A new store is one line in `STORES`; whether it survives a restart is said there, and `Hand.reopen` restarts those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.store import REMEMBER, Store
from backwater_tornado.broker.values import (
    Batch,
    Binding,
    Delivery,
    Effects,
    Exchange,
    Join,
    Message,
    Outcome,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    QueueStats,
    Result,
    Session,
    Settlement,
    SettleState,
    Verdict,
)
from backwater_tornado.errors import UnknownQueue


@dataclass(frozen=True)
class StoreKind:
    """How one make of store is opened.

    Attributes:
        open: from a folder of its own, and the span for which ids and tokens are remembered.
        survives: whether what it holds is there again after `close` and `open`.
    """

    name: str
    open: Callable[[Path, float], Store]
    survives: bool = False


class SharedTransactions:
    """Each operation of a store as part of a transaction, together with others that do nothing and one that fails."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)
        if name == "close":
            return operation

        def run(*arguments: Any) -> Any:
            with self._store.transaction():
                self._store.unplan("an entry that nobody has planned")
                try:
                    return operation(*arguments)
                finally:
                    with suppress(UnknownQueue):
                        self._store.purge("a queue that nobody has declared", START)

        return run


class TransientQueues:
    """A store all of whose queues are transient."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def declare(self, things: Sequence[Exchange | Queue | Binding], now: float) -> Effects:
        made = [replace(thing, transient=True) if isinstance(thing, Queue) else thing for thing in things]
        return self._store.declare(made, now)

    def stats(self, queues: Sequence[str] | None, now: float) -> list[QueueStats]:
        found = self._store.stats(queues, now)
        return [replace(stats, queue=replace(stats.queue, transient=False)) for stats in found]


def transient(path: Path, remember: float) -> Store:
    return cast("Store", TransientQueues(SqliteStore(path, remember)))


def grouped(path: Path, remember: float) -> Store:
    return cast("Store", SharedTransactions(SqliteStore(path, remember)))


STORES = [
    StoreKind("memory", lambda folder, remember: MemoryStore(remember)),
    StoreKind("sqlite", lambda folder, remember: SqliteStore(folder / "broker.db", remember), survives=True),
    StoreKind("sqlite, grouped", lambda folder, remember: grouped(folder / "broker.db", remember), survives=True),
    StoreKind("sqlite, transient", lambda folder, remember: transient(folder / "broker.db", remember)),
]

START = 1_000_000.0
OK = Outcome("SUCCESS", b"3")
FAILED = Outcome("FAILURE", b"no", failed=True)
STOPPED = Outcome("REVOKED", failed=True)
ANY = 1_000_000


def publication(id: str, queue: str = "q", exchange: str = "", body: bytes = b"", **message: Any) -> Publication:
    """One whose body is its id, unless said otherwise."""
    return Publication(Message(id, body or id.encode(), **message), queue, exchange)


class Hand:
    """A store with a clock and with sessions that confirm what they get."""

    def __init__(self, kind: StoreKind, folder: Path, remember: float = REMEMBER) -> None:
        self.kind, self.folder, self.remember = kind, folder, remember
        self.store = kind.open(folder, remember)
        self.now = START
        self.confirmed: dict[str, int] = {}
        #: Of the last call.
        self.effects = Effects()

    def reopen(self) -> None:
        """Restart a store that survives it."""
        if self.kind.survives:
            self.store.close()
            self.store = self.kind.open(self.folder, self.remember)

    def later(self, seconds: float) -> Effects:
        """Time passes, and is swept."""
        self.now += seconds
        self.effects = self.store.sweep(self.now)
        return self.effects

    def declare(self, *things: Exchange | Queue | Binding) -> Effects:
        self.effects = self.store.declare(things, self.now)
        return self.effects

    def queue(self, name: str = "q", **limits: Any) -> Effects:
        return self.declare(Queue(name, **limits))

    def delete(self, *things: Exchange | Queue | Binding) -> int:
        dropped, self.effects = self.store.delete(things, self.now)
        return dropped

    def purge(self, queue: str = "q") -> int:
        dropped, self.effects = self.store.purge(queue, self.now)
        return dropped

    def send(self, *publications: Publication, joins: tuple[Join, ...] = ()) -> list[Published]:
        published, self.effects = self.store.publish(publications, self.now, joins)
        return published

    def put(self, *ids: str, **more: Any) -> None:
        """Publish messages that have to be accepted."""
        for published in self.send(*[publication(name, **more) for name in ids]):
            assert published.state is PublishState.ACCEPTED, published

    def open(self, session: str = "s", ttl: float = 30.0, owner: str = "me", claim: Sequence[int] = ()) -> list[int]:
        return self.store.open_session(Session(session, owner, ttl), self.now, claim)

    def close(self, session: str = "s") -> Effects:
        self.effects = self.store.close_session(session, self.now)
        return self.effects

    def poll(self, session: str = "s", *queues: str, credit: int = ANY, confirm: bool = True, **poll: Any) -> Batch:
        """One poll; its batch is confirmed by the next one with `confirm`."""
        wants = poll.pop("wants", tuple((queue, ANY) for queue in queues or ("q",)))
        confirmed = poll.pop("confirmed", self.confirmed.get(session, 0))
        batch, self.effects = self.store.receive(session, Poll(wants, credit, confirmed, **poll), self.now)
        if confirm:
            self.confirmed[session] = batch.number
        return batch

    def take(self, session: str = "s", *queues: str, credit: int = ANY) -> list[Delivery]:
        return list(self.poll(session, *queues, credit=credit).deliveries)

    def one(self, session: str = "s", queue: str = "q") -> Delivery:
        (delivery,) = self.take(session, queue, credit=1)
        return delivery

    def ids(self, session: str = "s", *queues: str, credit: int = ANY) -> list[str]:
        """What a poll gives, by its ids."""
        return [delivery.message.id for delivery in self.take(session, *queues, credit=credit)]

    def settle(
        self,
        delivery: Delivery | int,
        verdict: Verdict = Verdict.ACK,
        outcome: Outcome | None = None,
        session: str = "s",
        **more: Any,
    ) -> SettleState:
        token = delivery if isinstance(delivery, int) else delivery.token
        settlement = Settlement(token, verdict, outcome, **more)
        (state,), self.effects = self.store.settle(session, [settlement], self.now)
        return state

    def cancel(self, *ids: str, outcome: Outcome = STOPPED) -> Effects:
        self.effects = self.store.cancel(ids, outcome, self.now)
        return self.effects

    def result(self, id: str) -> Result | None:
        (result,) = self.store.results([id], self.now)
        return result

    def state(self, id: str) -> str | None:
        result = self.result(id)
        return None if result is None else result.outcome.state

    def stats(self, queue: str = "q") -> QueueStats:
        (stats,) = self.store.stats([queue], self.now)
        return stats

    def counts(self, queue: str = "q") -> tuple[int, int, int, int]:
        """Ready, delayed, leased, dead."""
        stats = self.stats(queue)
        return stats.ready, stats.delayed, stats.leased, stats.dead

    def dead(self, queue: str | None = None) -> list[tuple[str, str]]:
        """(id, reason) of all."""
        return [(letter.message.id, letter.reason) for letter in self.store.dead_letters(queue, 0, ANY)]

    def numbers(self) -> list[int]:
        return [letter.number for letter in self.store.dead_letters(None, 0, ANY)]

    def replay(self, *numbers: int) -> int:
        replayed, self.effects = self.store.replay(numbers, self.now)
        return replayed

    def drop(self, *numbers: int) -> int:
        dropped, self.effects = self.store.drop(numbers, self.now)
        return dropped
