"""The broker as callers see it: a store that is asked on behalf of sessions, and polls that wait.

Every method is a function to call from elsewhere, `Exposed(broker=Broker(…))`, and may be repeated without harm: what
it does is idempotent in the store. So calls may get lost and be sent again on a bad link, with no memory of calls
beside it.

A poll that finds nothing waits here, and wakes when a transaction has been committed that concerns it. While it waits
its session stays alive; the next poll of a session supersedes the one before it.

Messages come as values or packed as one binary (`values.pack`), and go packed where that is asked for: many are read
ten times as fast.

Rule: no SQL and no bytes of a message; whom a change concerns the store says (`Effects`), and who may what
`permissions`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from backwater_tornado.errors import (
    BodyUndecodable,
    CallFailed,
    MalformedBatch,
    SessionGone,
)
from backwater_tornado.marks import expose
from backwater_tornado.protocol.keys import Scopes

from . import operations
from .bounds import Count, Life, Moment, Name, Span
from .performers import Performer
from .permissions import Permissions, check, target
from .portions import check_settled, check_sizes, fit, fit_results, portion, size_of
from .receivers import Receivers
from .store import Store
from .traffic import Traffic
from .values import (
    Batch,
    Binding,
    DeadLetter,
    Effects,
    Entry,
    Exchange,
    Join,
    Lease,
    Observation,
    Outcome,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    QueueRates,
    QueueStats,
    Receiver,
    Result,
    Session,
    Settlement,
    SettleState,
    SiteCounts,
    Verdict,
    pack,
    unpack,
)
from .waiting import Waiters

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
#: Bytes of one message, and of what goes in one answer.
LARGEST = 4 << 20


class Broker:
    """See the head of this module.

    Args:
        performer: the store, and how it is asked.
        scopes: what a key may do, by its id; None: everybody may do everything. See `permissions`.
        clock: Unix seconds.
        largest: bytes of one message, and of what goes in one answer.
    """

    def __init__(
        self,
        performer: Performer,
        scopes: Callable[[str], Scopes] | None = None,
        clock: Callable[[], float] = time.time,
        largest: int = LARGEST,
    ) -> None:
        self._largest = largest
        self._performer = performer
        self._may = Permissions(scopes)
        self._clock = clock
        self._waiters = Waiters()
        self._receivers = Receivers(TTL)
        self._traffic = Traffic(time.monotonic())
        self._sweeping: asyncio.Task[None] | None = None

    # Topology --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def declare(self, exchanges: list[Exchange], queues: list[Queue], bindings: list[Binding]) -> None:
        """Make what is not there yet; a queue that is there takes the limits given, and stays paused or not."""
        self._may.check_exchanges(exchange.name for exchange in exchanges)
        self._may.check_consume(queue.name for queue in queues)
        self._may.check_bindings(bindings)
        own = [queue if queue.exclusive is None else self._exclusive(queue) for queue in queues]

        self._waiters.wake(
            await self._perform(lambda store, now: operations.declare(store, exchanges, own, bindings, now))
        )

    @expose(idempotent=True)
    async def delete(self, exchanges: list[Name], queues: list[Name], bindings: list[Binding]) -> int:
        """Delete by name, with what is in a queue; gives the number of messages dropped."""
        self._may.check_exchanges(exchanges)
        self._may.check_consume(queues)
        self._may.check_bindings(bindings)
        things: list[Exchange | Queue | Binding] = [*map(Exchange, exchanges), *map(Queue, queues), *bindings]
        return await self._counted(lambda store, now: store.delete(things, now))

    @expose(idempotent=True)
    async def purge(self, queue: Name) -> int:
        """Drop what waits in a queue; gives how many that were."""
        self._may.check_consume([queue])
        return await self._counted(lambda store, now: store.purge(queue, now))

    @expose(idempotent=True)
    async def pause(self, queues: list[Name]) -> None:
        """Hand out nothing more of these queues; what is out may be settled. Raises `UnknownQueue`."""
        await self._set_paused(queues, paused=True)

    @expose(idempotent=True)
    async def resume(self, queues: list[Name]) -> None:
        """Go on handing out. Raises `UnknownQueue`."""
        await self._set_paused(queues, paused=False)

    async def _set_paused(self, queues: list[str], *, paused: bool) -> None:
        self._may.check_consume(queues)
        self._waiters.wake(await self._perform(lambda store, now: operations.set_paused(store, queues, paused, now)))

    # Messages --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def publish(
        self, publications: list[Publication] | bytes, joins: list[Join] | bytes | None = None, create: bool = False
    ) -> list[Published]:
        """Route messages into queues; when this returns they are safe. Each has its own answer, in order.

        With `create`, queues that are missing are made; those of what the joins will publish, too.
        """
        given, joined = _read(publications, list[Publication]), _read([] if joins is None else joins, list[Join])
        everything = [*given, *(each for join in joined for each in operations.joined(join))]
        self._may.check_publish(everything)
        check_sizes(everything, self._largest)
        publishing = operations.publish_creating if create else _publish
        found, effects = await self._perform(lambda store, now: publishing(store, given, joined, now))
        self._waiters.wake(effects)
        self._count_published(given, found)
        return found

    def _count_published(self, given: Sequence[Publication], found: Sequence[Published]) -> None:
        taken = [each for each, answer in zip(given, found, strict=True) if answer.state is PublishState.ACCEPTED]
        queues = (name for answer in found if answer.state is PublishState.ACCEPTED for name in answer.queues)
        size = sum(size_of(each.message) for each in taken)
        self._traffic.published(self._may.caller(), queues, len(taken), size, time.monotonic())

    @expose(idempotent=True)
    async def receive(self, session: Name, poll: Poll, wait: Span = 0.0, packed: bool = False) -> Batch | bytes:
        """The next messages of a session, at once or within `wait` seconds; what a poll says, see `Poll`."""
        queues = [queue for queue, _ in poll.wants]
        self._may.check_consume(queues)
        session = self._may.own(session)
        until = time.monotonic() + min(wait, MAX_WAIT)
        with self._waiters.polling(session, queues) as waiting:
            while True:
                waiting.begin()
                batch = await self._receive(session, poll)
                known = self._receivers.hear(session, self._clock())
                news = known.tell(batch, self._clock())
                left = until - time.monotonic()
                if batch.deliveries or news or left <= 0 or self._waiters.closing:
                    break
                await waiting.wait(min(left, known.ttl / BEATS))
                if waiting.superseded:
                    break
        if batch.deliveries and known.hand_out(batch, self._clock()):
            size = sum(size_of(each.message) for each in batch.deliveries)
            received = (each.queue for each in batch.deliveries)
            self._traffic.received(self._may.caller(), received, size, time.monotonic())
        return pack(batch) if packed else batch

    async def _receive(self, session: str, poll: Poll) -> Batch:
        bounded = poll if poll.credit <= MAX_CREDIT else Poll(poll.wants, MAX_CREDIT, poll.confirmed, poll.held)
        try:
            batch, effects = await self._perform(lambda store, now: store.receive(session, bounded, now))
        except SessionGone:
            self._receivers.forget(session)
            raise
        self._waiters.wake(effects)
        if poll.held is not None:
            self._receivers.hear(session, self._clock()).keep(poll.confirmed, poll.held)
        timed = msgspec.structs.replace(batch, now=self._clock())
        return portion(timed, poll.confirmed, self._largest)

    @expose(idempotent=True)
    async def settle(self, session: Name, settlements: list[Settlement] | bytes) -> list[SettleState]:
        """End deliveries of a session, or tell of them; each has its own answer, in order."""
        given = _read(settlements, list[Settlement])
        self._may.check_publish(publication for settlement in given for publication in settlement.then)
        check_settled(given, self._largest)
        named = self._may.own(session)
        found, effects = await self._perform(lambda store, now: store.settle(named, given, now))
        self._waiters.wake(effects)
        self._count_settled(named, given, found)
        return found

    def _count_settled(self, session: str, given: Sequence[Settlement], found: Sequence[SettleState]) -> None:
        out = self._receivers.hear(session, self._clock()).out
        ended, acked = 0, []
        for settlement, state in zip(given, found, strict=True):
            if settlement.verdict is Verdict.KEEP or settlement.token not in out:
                continue  # it goes on, or was told before
            queue, _ = out.pop(settlement.token)
            ended += state is SettleState.DONE
            if state is SettleState.DONE and settlement.verdict is Verdict.ACK:
                acked.append(queue)
        self._traffic.settled(self._may.caller(), ended, acked, time.monotonic())

    @expose(idempotent=True)
    async def cancel(self, ids: list[Name], outcome: Outcome) -> None:
        """End messages wherever they are: those that wait at once, those that run are marked for their session."""
        self._waiters.wake(await self._perform(lambda store, now: store.cancel(ids, outcome, now)))

    # Sessions --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def open_session(self, session: Name, ttl: Life = TTL, about: bytes = b"") -> None:
        """A receiver, which holds what it receives for as long as it is heard of within `ttl` seconds.

        Args:
            session: a name of its own; it is its key's alone.
            ttl: seconds.
            about: what `sessions` shows of it.
        """
        made = Session(self._may.own(session), self._may.caller(), ttl)
        await self._perform(lambda store, now: store.open_session(made, now))
        self._receivers.open(made.id, ttl, about, self._clock())

    @expose(idempotent=True)
    async def close_session(self, session: Name) -> None:
        """What it holds goes back at once."""
        named = self._may.own(session)
        self._receivers.forget(named)
        self._waiters.wake(await self._perform(lambda store, now: store.close_session(named, now)))

    @expose(idempotent=True)
    async def sessions(self) -> list[Receiver]:
        """The caller's sessions that are alive or, for a key that may receive from every queue, all of them."""
        return self._receivers.list(self._owner(), self._clock())

    @expose(idempotent=True)
    async def leased(self, session: Name | None = None) -> list[Lease]:
        """What is out, of one session of the caller's, or of all that `sessions` shows; in order of its handing out."""
        named = None if session is None else self._may.own(session)
        owner = self._owner()
        found = await self._perform(lambda store, _: store.leased(named))
        leases = [self._receivers.describe(*each) for each in found]
        return [lease for lease in leases if owner in (None, lease.key_id)]

    def _owner(self) -> str | None:
        """Whose sessions the caller may see; None: everybody's."""
        return None if self._may.allows_all() else self._may.caller()

    # Results ---------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def results(self, ids: list[Name], wait: Span = 0.0) -> list[Result | None]:
        """The last known of each; with `wait`, as soon as one of them is final.

        What does not fit into one answer is None, as what is not known: ask again for those.
        """
        until = time.monotonic() + min(wait, MAX_WAIT)
        with self._waiters.awaiting(ids) as waiting:
            while True:
                waiting.begin()
                found = await self._perform(lambda store, now: store.results(ids, now))
                left = until - time.monotonic()
                if left <= 0 or self._waiters.closing or any(result is not None and result.final for result in found):
                    return fit_results(found, self._largest)
                await waiting.wait(left)

    @expose(idempotent=True)
    async def forget(self, ids: list[Name]) -> None:
        """Drop results before their time."""
        await self._perform(lambda store, now: store.forget_results(ids, now))

    # The dead --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def dead_letters(
        self, queue: Name | None = None, after: Count = 0, limit: Count = 100, brief: bool = False
    ) -> list[DeadLetter]:
        """Messages put aside, in order; the next page is `after` the last number. `brief`: without their bodies."""
        if queue is None:
            self._may.check_all()
        else:
            self._may.check_consume([queue])
        bounded = min(limit, MAX_CREDIT)
        found = await self._perform(lambda store, _: store.dead_letters(queue, after, bounded))
        return [operations.without_body(each) for each in found] if brief else list(fit(found, self._largest))

    @expose(idempotent=True)
    async def replay(self, numbers: list[Count]) -> int:
        """Put dead letters back into their queues; gives how many were there."""
        allows = self._dead_allowed()
        return await self._counted(lambda store, now: operations.replay(store, numbers, allows, now))

    @expose(idempotent=True)
    async def drop(self, numbers: list[Count]) -> int:
        """Drop dead letters for good; gives how many were there."""
        allows = self._dead_allowed()
        return await self._counted(lambda store, now: operations.drop(store, numbers, allows, now))

    def _dead_allowed(self) -> Callable[[str], bool] | None:
        """Of which queues the caller may touch the dead; None: of all."""
        return None if self._may.allows_all() else self._may.allows_consume()

    # The schedule ----------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def schedule(self) -> list[Entry]:
        """The entries that publish where the caller may, the next due first."""
        allows = self._may.allows_publish()
        found = await self._perform(lambda store, _: store.schedule())
        return [entry for entry in found if allows(target(entry.publication))]

    @expose(idempotent=True)
    async def plan(
        self, entry: Entry, expected: Moment | None = None, publish: Publication | None = None, create: bool = False
    ) -> bool:
        """Write an entry if its `due` is still `expected` (None: there is none of the name); publish in the same step.

        Gives False, and publishes nothing, when somebody else was first: so nothing fires twice. With `create`, queues
        that are missing are made.
        """
        both = [entry.publication, *([] if publish is None else [publish])]
        self._may.check_publish(both)
        check_sizes(both, self._largest)
        allows = self._may.allows_publish()

        def operation(store: Store, now: float) -> tuple[bool, Effects]:
            operations.check_entry(store, entry.name, allows)
            if create:
                return operations.plan_creating(store, entry, expected, now, publish)
            return store.plan(entry, expected, now, publish)

        return await self._counted(operation)

    @expose(idempotent=True)
    async def unplan(self, name: Name) -> bool:
        """Remove an entry; whether there was one."""
        allows = self._may.allows_publish()

        def operation(store: Store, now: float) -> bool:
            operations.check_entry(store, name, allows)
            return store.unplan(name)

        return await self._perform(operation)

    # Looking ---------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def stats(self, queues: list[Name] | None = None) -> list[QueueStats]:
        """Queues with their limits and numbers: these, or all that the caller may publish to or receive from."""
        allows = self._may.allows_either()
        check(queues or (), allows, "use")
        found = await self._perform(lambda store, now: store.stats(queues, now))
        return [stats for stats in found if allows(stats.queue.name)]

    @expose(idempotent=True)
    async def rates(self, queues: list[Name] | None = None) -> list[QueueRates]:
        """What went through queues in the last minute, of those that `stats` gives."""
        now = self._clock()
        waited = {
            stats.queue.name: None if stats.oldest is None else max(0.0, now - stats.oldest)
            for stats in await self.stats(queues)
        }
        rates = self._traffic.rates(waited, time.monotonic())
        return [msgspec.structs.replace(each, waited=waited[each.queue]) for each in rates]

    @expose(idempotent=True)
    async def sites(self) -> list[SiteCounts]:
        """What came and went by the caller's key or, for one that may receive from every queue, by all of them."""
        owner = self._owner()
        return [site for site in self._traffic.sites() if owner in (None, site.key_id)]

    async def observe(self) -> Observation:
        """All there is to see, whoever asks: for this process alone."""
        queues = await self._performer.perform(lambda store: store.stats(None, self._clock()))
        now = self._clock()
        return Observation(now, queues, self._traffic.sites(), self._receivers.list(None, now))

    # The life of the broker ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look at what time brings; on the loop that serves."""
        self._sweeping = asyncio.get_running_loop().create_task(self._watch_time())

    async def close(self) -> None:
        """Send every waiting poll home, and close the store when what was begun is done."""
        self.drain()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self._performer.close()

    def drain(self) -> None:
        """Send every waiting poll home, and let none wait any more."""
        self._waiters.send_home()

    async def sweep(self) -> float | None:
        """Do what time has brought, and wake whom it concerns; gives when there is more to do, None if never."""
        self._waiters.wake(await self._performer.perform(lambda store: store.sweep(self._clock())))
        return await self._performer.perform(lambda store: store.next_due(self._clock()))

    async def _watch_time(self) -> None:
        while True:
            pause = SWEEP_PERIOD
            try:
                due = await self.sweep()
                if due is not None:
                    pause = min(pause, max(0.0, due - self._clock()))
            except CallFailed:
                log.exception("what time brings could not be looked at; it is tried again")
            self._receivers.forget_silent(self._clock())
            self._traffic.forget_idle(time.monotonic())
            await asyncio.sleep(max(pause, 0.005))

    async def _perform(self, operation: Callable[[Store, float], T]) -> T:
        """Ask the store on behalf of the caller."""
        self._traffic.hear(self._may.caller(), self._clock())
        return await self._performer.perform(lambda store: operation(store, self._clock()))

    async def _counted(self, operation: Callable[[Store, float], tuple[T, Effects]]) -> T:
        """Ask the store for a change, and wake whom it concerns."""
        value, effects = await self._perform(operation)
        self._waiters.wake(effects)
        return value

    def _exclusive(self, queue: Queue) -> Queue:
        assert queue.exclusive is not None
        return msgspec.structs.replace(queue, exclusive=self._may.own(queue.exclusive))


def _read(given: list[T] | bytes, kind: type[list[T]]) -> list[T]:
    """Values, packed or not; raises `MalformedBatch`."""
    if not isinstance(given, bytes):
        return given
    try:
        return unpack(given, kind)
    except BodyUndecodable as error:
        raise MalformedBatch(str(error)) from error


def _publish(
    store: Store, publications: Sequence[Publication], joins: Sequence[Join], now: float
) -> tuple[list[Published], Effects]:
    return store.publish(publications, now, joins)
