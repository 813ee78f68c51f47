"""The broker as callers see it: a store that is asked on behalf of sessions, and polls that wait.

Every method is a function to call from elsewhere, `Exposed(broker=Broker(…))`, and may be repeated without harm: what
it does is idempotent in the store. So calls may get lost and be sent again on a bad link, with no memory of calls
beside it.

A poll that finds nothing waits here, and wakes when a transaction has been committed that concerns it. While it waits
its session stays alive; the next poll of a session supersedes the one before it.

Rule: no SQL and no bytes of a message; whom a change concerns the store says (`Effects`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

import msgspec

from backwater_tornado.context import current_call
from backwater_tornado.errors import CallFailed, QueueNotInScope, SessionGone
from backwater_tornado.marks import expose
from backwater_tornado.protocol.keys import Scopes

from .group_commit import GroupCommit, Grouping
from .store import Store
from .values import (
    DEFAULT_EXCHANGE,
    Batch,
    Binding,
    DeadLetter,
    Effects,
    Exchange,
    Join,
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
    pack,
    unpack,
)

log = logging.getLogger("backwater.broker")

T = TypeVar("T")
#: How long a session that is not heard of keeps what it holds, seconds.
TTL = 30.0
#: The longest that a poll waits, seconds: below the idle limit of every proxy.
MAX_WAIT = 50.0
#: A waiting poll keeps its session alive this many times within the session's time to live.
BEATS = 3
#: Between two looks at what time brings when nothing is known to be due, seconds.
SWEEP_PERIOD = 1.0
#: Messages in one batch, whatever the credit.
MAX_CREDIT = 1000


class Performer(Protocol):
    """Runs operations on a store: at once (`Direct`), or many together in one transaction (`group_commit`)."""

    def perform(self, operation: Callable[[Store], T]) -> Awaitable[T]:
        """The operation's result once it is durable; raises what it raised, or `StorageFailed`."""
        ...

    async def close(self) -> None:
        """Finish what was begun, and close the store."""
        ...


class GroupedStore(Store, Grouping, Protocol):
    """A store that can make one transaction of several operations."""


class Direct:
    """A `Performer` for a store in memory: each operation at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def perform(self, operation: Callable[[Store], T]) -> T:
        """See `Performer`."""
        return operation(self._store)

    async def close(self) -> None:
        """See `Performer`."""
        self._store.close()


class Grouped:
    """A `Performer` for a store on disk: what waits at the same moment shares a transaction, see `group_commit`."""

    def __init__(self, store: GroupedStore) -> None:
        self._store = store
        self._group = GroupCommit(store)

    async def perform(self, operation: Callable[[Store], T]) -> T:
        """See `Performer`."""
        return await self._group.run(lambda: operation(self._store))

    async def close(self) -> None:
        """See `Performer`."""
        await self._group.close()
        self._store.close()


class _Waiting:
    """One poll, or one caller who waits for results."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.superseded = False


class Broker:
    """See the head of this module.

    Args:
        performer: the store, and how it is asked.
        scopes: what a key may do, by its id; None: everybody may do all (a broker in the same process).
        clock: Unix seconds.
    """

    def __init__(
        self,
        performer: Performer,
        scopes: Callable[[str], Scopes] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._performer = performer
        self._scopes = scopes
        self._clock = clock
        self._by_queue: dict[str, set[_Waiting]] = defaultdict(set)
        self._by_result: dict[str, set[_Waiting]] = defaultdict(set)
        self._polls: dict[str, _Waiting] = {}
        self._lives: dict[str, float] = {}
        #: What each session was told is cancelled: every batch says it again, and only news end a poll.
        self._told: dict[str, tuple[int, ...]] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._closing = False

    # Topology --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def declare(self, exchanges: list[Exchange], queues: list[Queue], bindings: list[Binding]) -> None:
        """Make what is not there yet; a queue that is there takes the limits given."""
        self._check_consume(queue.name for queue in queues)
        self._check_consume(binding.queue for binding in bindings)
        own = [queue if queue.exclusive is None else self._exclusive(queue) for queue in queues]
        things: list[Exchange | Queue | Binding] = [*exchanges, *own, *bindings]
        self._wake(await self._performer.perform(lambda store: store.declare(things, self._clock())))

    @expose(idempotent=True)
    async def delete(self, exchanges: list[str], queues: list[str], bindings: list[Binding]) -> int:
        """Delete by name, with what is in a queue; gives the number of messages dropped."""
        self._check_consume(queues)
        self._check_consume(binding.queue for binding in bindings)
        things: list[Exchange | Queue | Binding] = [*map(Exchange, exchanges), *map(Queue, queues), *bindings]
        count, effects = await self._performer.perform(lambda store: store.delete(things, self._clock()))
        self._wake(effects)
        return count

    @expose(idempotent=True)
    async def purge(self, queue: str) -> int:
        """Drop what waits in a queue; gives how many that were."""
        self._check_consume([queue])
        count, effects = await self._performer.perform(lambda store: store.purge(queue, self._clock()))
        self._wake(effects)
        return count

    # Messages --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def publish(
        self, publications: list[Publication] | bytes, joins: list[Join] | bytes | None = None, create: bool = False
    ) -> list[Published]:
        """Route messages into queues; when this returns they are safe. Each has its own answer, in order.

        Args:
            publications, joins: as lists, or packed (`values.pack`).
            create: make the queues that are named as routing keys of the default exchange and are not there.
        """
        listed = unpack(publications, list[Publication]) if isinstance(publications, bytes) else publications
        joining = unpack(joins, list[Join]) if isinstance(joins, bytes) else joins or []
        joined = [each for join in joining for each in (*join.then, *(join.otherwise or ()))]
        self._check_publish([*listed, *joined])

        def publish(store: Store) -> tuple[list[Published], Effects]:
            now = self._clock()
            if create and joined:
                _create(store, joined, now)
            found, effects = store.publish(listed, now, joining)
            lost = [place for place, each in enumerate(found) if create and each.state is PublishState.UNROUTED]
            if lost:
                again = [listed[place] for place in lost]
                _create(store, again, now)
                answers, more = store.publish(again, now)
                for place, answer in zip(lost, answers, strict=True):
                    found[place] = answer
                effects |= more
            return found, effects

        found, effects = await self._performer.perform(publish)
        self._wake(effects)
        return found

    @expose(idempotent=True)
    async def receive(self, session: str, poll: Poll, wait: float = 0.0, packed: bool = False) -> Batch | bytes:
        """The next messages of a session, at once or within `wait` seconds; what a poll says, see `Poll`.

        `packed`: as one binary, see `values.pack`.
        """
        batch = await self._wait_for_batch(session, poll, wait)
        return pack(batch) if packed else batch

    async def _wait_for_batch(self, session: str, poll: Poll, wait: float) -> Batch:
        self._check_consume(queue for queue, _ in poll.wants)
        session = self._named(session)
        waiting = self._supersede(session)
        until = time.monotonic() + min(wait, MAX_WAIT)
        queues = [queue for queue, _ in poll.wants]
        for queue in queues:
            self._by_queue[queue].add(waiting)
        try:
            while True:
                waiting.woken.clear()
                batch = await self._receive(session, poll)
                news = batch.cancelled and batch.cancelled != self._told.get(session)
                self._told[session] = batch.cancelled
                if batch.deliveries or news:
                    return batch
                left = until - time.monotonic()
                if left <= 0 or self._closing:
                    return batch
                beat = self._lives.get(session, TTL) / BEATS
                await _wait(waiting.woken, min(left, beat))
                if waiting.superseded:
                    return batch
        finally:
            for queue in queues:
                _discard(self._by_queue, queue, waiting)
            if self._polls.get(session) is waiting:
                del self._polls[session]

    async def _receive(self, session: str, poll: Poll) -> Batch:
        bounded = poll if poll.credit <= MAX_CREDIT else Poll(poll.wants, MAX_CREDIT, poll.confirmed, poll.held)
        try:
            batch, effects = await self._performer.perform(lambda store: store.receive(session, bounded, self._clock()))
        except SessionGone:
            self._forget(session)
            raise
        self._wake(effects)
        return batch

    def _forget(self, session: str) -> None:
        self._lives.pop(session, None)
        self._told.pop(session, None)

    def _supersede(self, session: str) -> _Waiting:
        before = self._polls.get(session)
        if before is not None:
            before.superseded = True
            before.woken.set()
        self._polls[session] = waiting = _Waiting()
        return waiting

    @expose(idempotent=True)
    async def settle(self, session: str, settlements: list[Settlement] | bytes) -> list[SettleState]:
        """End deliveries of a session, or tell of them, as a list or packed; each has its own answer, in order."""
        listed = unpack(settlements, list[Settlement]) if isinstance(settlements, bytes) else settlements
        self._check_publish(publication for settlement in listed for publication in settlement.then)
        named = self._named(session)
        found, effects = await self._performer.perform(lambda store: store.settle(named, listed, self._clock()))
        self._wake(effects)
        return found

    @expose(idempotent=True)
    async def cancel(self, ids: list[str], outcome: Outcome) -> None:
        """End messages wherever they are: those that wait at once, those that run are marked for their session."""
        self._wake(await self._performer.perform(lambda store: store.cancel(ids, outcome, self._clock())))

    # Sessions --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def open_session(self, session: str, ttl: float = TTL, about: bytes = b"") -> None:
        """A receiver, which holds what it receives for as long as it is heard of within `ttl` seconds."""
        made = Session(self._named(session), self._caller(), ttl)
        await self._performer.perform(lambda store: store.open_session(made, self._clock()))
        self._lives[made.id] = ttl

    @expose(idempotent=True)
    async def close_session(self, session: str) -> None:
        """What it holds goes back at once."""
        named = self._named(session)
        self._forget(named)
        self._wake(await self._performer.perform(lambda store: store.close_session(named, self._clock())))

    # Results ---------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def results(self, ids: list[str], wait: float = 0.0) -> list[Result | None]:
        """The last known of each; with `wait`, as soon as one of them is final."""
        waiting = _Waiting()
        until = time.monotonic() + min(wait, MAX_WAIT)
        for each in ids:
            self._by_result[each].add(waiting)
        try:
            while True:
                waiting.woken.clear()
                found = await self._performer.perform(lambda store: store.results(ids, self._clock()))
                left = until - time.monotonic()
                if left <= 0 or self._closing or any(result is not None and result.final for result in found):
                    return found
                await _wait(waiting.woken, left)
        finally:
            for each in ids:
                _discard(self._by_result, each, waiting)

    @expose(idempotent=True)
    async def forget(self, ids: list[str]) -> None:
        """Drop results before their time."""
        await self._performer.perform(lambda store: store.forget_results(ids, self._clock()))

    # The dead, and looking -------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def dead_letters(self, queue: str | None = None, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        """Messages put aside, in order; the next page is `after` the last number."""
        if queue is None:
            self._check_all()
        else:
            self._check_consume([queue])
        return await self._performer.perform(lambda store: store.dead_letters(queue, after, min(limit, MAX_CREDIT)))

    @expose(idempotent=True)
    async def replay(self, numbers: list[int]) -> int:
        """Put dead letters back into their queues; gives how many were there."""
        self._check_all()
        count, effects = await self._performer.perform(lambda store: store.replay(numbers, self._clock()))
        self._wake(effects)
        return count

    @expose(idempotent=True)
    async def drop(self, numbers: list[int]) -> int:
        """Drop dead letters for good; gives how many were there."""
        self._check_all()
        count, effects = await self._performer.perform(lambda store: store.drop(numbers, self._clock()))
        self._wake(effects)
        return count

    @expose(idempotent=True)
    async def stats(self, queues: list[str] | None = None) -> list[QueueStats]:
        """Queues with their limits and numbers."""
        return await self._performer.perform(lambda store: store.stats(queues, self._clock()))

    # The life of the broker ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look at what time brings; on the loop that serves."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        """Send every waiting poll home, and close the store when what was begun is done."""
        self.drain()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self._performer.close()

    def drain(self) -> None:
        """Send every waiting poll home, and let none wait any more."""
        self._closing = True
        for waiting in [*self._polls.values(), *(each for several in self._by_result.values() for each in several)]:
            waiting.woken.set()

    async def _sweep(self) -> None:
        while True:
            pause = SWEEP_PERIOD
            try:
                self._wake(await self._performer.perform(lambda store: store.sweep(self._clock())))
                due = await self._performer.perform(lambda store: store.next_due(self._clock()))
                if due is not None:
                    pause = min(pause, max(0.0, due - self._clock()))
            except CallFailed:
                log.exception("what time brings could not be looked at; it is tried again")
            await asyncio.sleep(max(pause, 0.005))

    def _wake(self, effects: Effects) -> None:
        """Wake whom a committed transaction concerns."""
        for queue in effects.queues:
            for waiting in self._by_queue.get(queue, ()):
                waiting.woken.set()
        for each in effects.results:
            for waiting in self._by_result.get(each, ()):
                waiting.woken.set()
        for session in effects.sessions:
            if session in self._polls:
                self._polls[session].woken.set()

    # Who may what ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _caller() -> str:
        call = current_call()
        return "" if call is None else call.key_id

    def _exclusive(self, queue: Queue) -> Queue:
        assert queue.exclusive is not None
        return msgspec.structs.replace(queue, exclusive=self._named(queue.exclusive))

    def _named(self, session: str) -> str:
        """A session as the store knows it: with its owner in front, so that nobody can name another's."""
        return f"{self._caller()}\n{session}"

    def _check_publish(self, publications: Iterable[Publication]) -> None:
        """By the queue that a publication names or, if it names one, by its exchange."""
        if self._scopes is not None:
            names = (each.exchange or each.routing_key for each in publications)
            _check(names, self._scopes(self._caller()).allows_publish, "publish to")

    def _check_all(self) -> None:
        """For what is not of one queue: a pattern that happens to fit a name is not enough."""
        if self._scopes is not None and "*" not in self._scopes(self._caller()).consume:
            raise QueueNotInScope("the key may not receive from every queue")

    def _check_consume(self, names: Iterable[str]) -> None:
        if self._scopes is not None:
            scopes = self._scopes(self._caller())
            _check(names, scopes.allows_consume, "receive from")


def _check(names: Iterable[str], allows: Callable[[str], bool], verb: str) -> None:
    for name in names:
        if not allows(name):
            raise QueueNotInScope(f"the key may not {verb} {name[:100]!r}")


def _create(store: Store, publications: Iterable[Publication], now: float) -> None:
    """Make the queues that these name and that are not there."""
    names = {each.routing_key for each in publications if each.exchange == DEFAULT_EXCHANGE}
    there = {each.queue.name for each in store.stats(sorted(names), now)}
    missing = [Queue(name) for name in sorted(names - there)]
    if missing:
        store.declare(missing, now)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _discard(waiting: dict[str, set[_Waiting]], name: str, one: _Waiting) -> None:
    several = waiting.get(name)
    if several is not None:
        several.discard(one)
        if not several:
            del waiting[name]
