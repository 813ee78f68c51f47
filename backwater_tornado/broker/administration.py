"""The verbs for whoever arranges things at a broker, and looks: queues, the dead, the schedule, sessions, traffic.

Rule: as `broker`: idempotent, and nothing without a scope.
"""

from __future__ import annotations

import time

import msgspec

from backwater_tornado.marks import expose

from . import operations
from .asking import Asking
from .bounds import Count, Moment, Name
from .permissions import Allows, check, target
from .portions import check_sizes, fit
from .store import Store
from .values import (
    Binding,
    DeadLetter,
    Effects,
    Entry,
    Exchange,
    Lease,
    Observation,
    Publication,
    Queue,
    QueueRates,
    QueueStats,
    Receiver,
    SiteCounts,
)

#: Dead letters in one answer, whatever the limit.
MAX_LETTERS = 1000


class Administration(Asking):
    """See the head of this module."""

    # Topology --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def declare(self, exchanges: list[Exchange], queues: list[Queue], bindings: list[Binding]) -> None:
        """Make what is not there yet; a queue that is there takes the limits given, and stays paused or not."""
        self.may.check_exchanges(exchange.name for exchange in exchanges)
        self.may.check_consume(queue.name for queue in queues)
        self.may.check_bindings(bindings)
        own = [queue if queue.exclusive is None else self._exclusive(queue) for queue in queues]
        self.waiters.wake(await self.ask(lambda store, now: operations.declare(store, exchanges, own, bindings, now)))

    @expose(idempotent=True)
    async def delete(self, exchanges: list[Name], queues: list[Name], bindings: list[Binding]) -> int:
        """Delete by name, with what is in a queue; gives the number of messages dropped."""
        self.may.check_exchanges(exchanges)
        self.may.check_consume(queues)
        self.may.check_bindings(bindings)
        things: list[Exchange | Queue | Binding] = [*map(Exchange, exchanges), *map(Queue, queues), *bindings]
        return await self.change(lambda store, now: store.delete(things, now))

    @expose(idempotent=True)
    async def purge(self, queue: Name) -> int:
        """Drop what waits in a queue; gives how many that were."""
        self.may.check_consume([queue])
        return await self.change(lambda store, now: store.purge(queue, now))

    @expose(idempotent=True)
    async def pause(self, queues: list[Name]) -> None:
        """Hand out nothing more of these queues; what is out may be settled. Raises `UnknownQueue`."""
        await self._set_paused(queues, paused=True)

    @expose(idempotent=True)
    async def resume(self, queues: list[Name]) -> None:
        """Go on handing out. Raises `UnknownQueue`."""
        await self._set_paused(queues, paused=False)

    async def _set_paused(self, queues: list[str], *, paused: bool) -> None:
        self.may.check_consume(queues)
        self.waiters.wake(await self.ask(lambda store, now: operations.set_paused(store, queues, paused, now)))

    def _exclusive(self, queue: Queue) -> Queue:
        assert queue.exclusive is not None
        return msgspec.structs.replace(queue, exclusive=self.may.own(queue.exclusive))

    # The dead --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def dead_letters(
        self, queue: Name | None = None, after: Count = 0, limit: Count = 100, brief: bool = False
    ) -> list[DeadLetter]:
        """Messages put aside, in order; the next page is `after` the last number. `brief`: without their bodies."""
        if queue is None:
            self.may.check_all()
        else:
            self.may.check_consume([queue])
        bounded = min(limit, MAX_LETTERS)
        found = await self.ask(lambda store, _: store.dead_letters(queue, after, bounded))
        return [operations.without_body(each) for each in found] if brief else list(fit(found, self.largest))

    @expose(idempotent=True)
    async def replay(self, numbers: list[Count]) -> int:
        """Put dead letters back into their queues; gives how many were there."""
        allows = self._dead_allowed()
        return await self.change(lambda store, now: operations.replay(store, numbers, allows, now))

    @expose(idempotent=True)
    async def drop(self, numbers: list[Count]) -> int:
        """Drop dead letters for good; gives how many were there."""
        allows = self._dead_allowed()
        return await self.change(lambda store, now: operations.drop(store, numbers, allows, now))

    def _dead_allowed(self) -> Allows | None:
        """Of which queues the caller may touch the dead; None: of all."""
        return None if self.may.allows_all() else self.may.allows_consume()

    # The schedule ----------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def schedule(self) -> list[Entry]:
        """The entries that publish where the caller may, the next due first."""
        allows = self.may.allows_publish()
        found = await self.ask(lambda store, _: store.schedule())
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
        self.may.check_publish(both)
        check_sizes(both, self.largest)
        allows = self.may.allows_publish()

        def operation(store: Store, now: float) -> tuple[bool, Effects]:
            operations.check_entry(store, entry.name, allows)
            if create:
                return operations.plan_creating(store, entry, expected, now, publish)
            return store.plan(entry, expected, now, publish)

        return await self.change(operation)

    @expose(idempotent=True)
    async def unplan(self, name: Name) -> bool:
        """Remove an entry; whether there was one."""
        allows = self.may.allows_publish()

        def operation(store: Store, now: float) -> bool:
            operations.check_entry(store, name, allows)
            return store.unplan(name)

        return await self.ask(operation)

    # Looking ---------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def stats(self, queues: list[Name] | None = None) -> list[QueueStats]:
        """Queues with their limits and numbers: these, or all that the caller may publish to or receive from."""
        allows = self.may.allows_either()
        check(queues or (), allows, "use")
        found = await self.ask(lambda store, now: store.stats(queues, now))
        return [stats for stats in found if allows(stats.queue.name)]

    @expose(idempotent=True)
    async def rates(self, queues: list[Name] | None = None) -> list[QueueRates]:
        """What went through queues in the last minute, of those that `stats` gives."""
        now = self.clock()
        waited = {
            stats.queue.name: None if stats.oldest is None else max(0.0, now - stats.oldest)
            for stats in await self.stats(queues)
        }
        rates = self.traffic.rates(waited, time.monotonic())
        return [msgspec.structs.replace(each, waited=waited[each.queue]) for each in rates]

    @expose(idempotent=True)
    async def sites(self) -> list[SiteCounts]:
        """What came and went by the caller's key or, for one that may receive from every queue, by all of them."""
        owner = self._owner()
        return [site for site in self.traffic.sites() if owner in (None, site.key_id)]

    async def observe(self) -> Observation:
        """All there is to see, whoever asks: for this process alone."""
        queues = await self.performer.perform(lambda store: store.stats(None, self.clock()))
        now = self.clock()
        return Observation(now, queues, self.traffic.sites(), self.receivers.list(None, now))

    @expose(idempotent=True)
    async def sessions(self) -> list[Receiver]:
        """The caller's sessions that are alive or, for a key that may receive from every queue, all of them."""
        return self.receivers.list(self._owner(), self.clock())

    @expose(idempotent=True)
    async def leased(self, session: Name | None = None) -> list[Lease]:
        """What is out, of one session of the caller's, or of all that `sessions` shows; in order of its handing out."""
        named = None if session is None else self.may.own(session)
        owner = self._owner()
        found = await self.ask(lambda store, _: store.leased(named))
        leases = [self.receivers.describe(*each) for each in found]
        return [lease for lease in leases if owner in (None, lease.key_id)]

    def _owner(self) -> str | None:
        """Whose sessions the caller may see; None: everybody's."""
        return None if self.may.allows_all() else self.may.caller()
