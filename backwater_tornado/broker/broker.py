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
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from .administration import Administration
from .asking import LARGEST
from .bounds import Count, Life, Name, Span
from .performers import Performer
from .portions import check_settled, check_sizes, fit_results, fit_small, portion, size_of
from .store import Store
from .values import (
    Batch,
    Effects,
    Join,
    Outcome,
    Poll,
    Publication,
    Published,
    PublishState,
    Result,
    Session,
    Settlement,
    SettleState,
    Verdict,
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
#: Between two looks at what nobody was heard of, and nothing went through, for long; seconds.
TIDY_PERIOD = 10.0
#: Messages in one batch, whatever the credit.
MAX_CREDIT = 1000


class Broker(Administration):
    """See the head of this module; arguments as `Asking`."""

    _sweeping: asyncio.Task[None] | None = None

    def __init__(
        self,
        performer: Performer,
        scopes: Callable[[str], Scopes] | None = None,
        clock: Callable[[], float] = time.time,
        largest: int = LARGEST,
    ) -> None:
        super().__init__(performer, scopes, clock, largest)
        #: Something is to happen at a moment that may be sooner than all that was known.
        self._hurried = asyncio.Event()

    # Messages --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def publish(
        self, publications: list[Publication] | bytes, joins: list[Join] | bytes | None = None, create: bool = False
    ) -> list[Published] | bytes:
        """Route messages into queues; when this returns they are safe. Each has its own answer, in order.

        Packed publications have packed answers.

        With `create`, queues that are missing are made; those of what the joins will publish, too.
        """
        given, joined = _read(publications, list[Publication]), _read([] if joins is None else joins, list[Join])
        everything = [*given, *(each for join in joined for each in operations.joined(join))]
        self.may.check_publish(everything)
        check_sizes(everything, self.largest)
        publishing = operations.publish_creating if create else _publish
        found, effects = await self.ask(lambda store, now: publishing(store, given, joined, now))
        self.waiters.wake(effects)
        self._hurry(any(map(operations.is_timed, given)))
        self._count_published(given, found)
        return pack(found) if isinstance(publications, bytes) else found

    def _hurry(self, timed: bool) -> None:
        """Look at once what time will bring next, if something is to happen at a moment of its own."""
        if timed:
            self._hurried.set()

    def _count_published(self, given: Sequence[Publication], found: Sequence[Published]) -> None:
        copies: dict[str, int] = {}
        messages = size = 0
        for publication, answer in zip(given, found, strict=True):
            if answer.state is PublishState.ACCEPTED:
                messages += 1
                size += size_of(publication.message)
                for queue in answer.queues:
                    copies[queue] = copies.get(queue, 0) + 1
        self.traffic.published(self.may.caller(), copies, messages, size, time.monotonic())

    @expose(idempotent=True)
    async def receive(self, session: Name, poll: Poll, wait: Span = 0.0, packed: bool = False) -> Batch | bytes:
        """The next messages of a session, at once or within `wait` seconds; what a poll says, see `Poll`."""
        queues = [queue for queue, _ in poll.wants]
        self.may.check_consume(queues)
        session = self.may.own(session)
        until = time.monotonic() + min(wait, MAX_WAIT)
        with self.waiters.polling(session, queues) as waiting:
            while True:
                waiting.begin()
                batch = await self._receive(session, poll)
                known = self.receivers.hear(session, self.clock())
                news = known.tell(batch, self.clock())
                left = until - time.monotonic()
                if batch.deliveries or news or left <= 0 or self.waiters.closing:
                    break
                await waiting.wait(min(left, known.ttl / BEATS))
                if waiting.superseded:
                    break
        if batch.deliveries and known.hand_out(batch, self.clock()):
            size = sum(size_of(each.message) for each in batch.deliveries)
            received = Counter(each.queue for each in batch.deliveries)
            self.traffic.received(self.may.caller(), received, size, time.monotonic())
        return pack(batch) if packed else batch

    async def _receive(self, session: str, poll: Poll) -> Batch:
        bounded = poll if poll.credit <= MAX_CREDIT else Poll(poll.wants, MAX_CREDIT, poll.confirmed, poll.held)
        try:
            batch, effects = await self.ask(lambda store, now: store.receive(session, bounded, now))
        except SessionGone:
            self.receivers.forget(session)
            raise
        self.waiters.wake(effects)
        if poll.held is not None:
            self.receivers.hear(session, self.clock()).keep(poll.confirmed, poll.held)
        timed = msgspec.structs.replace(batch, now=self.clock())
        return portion(timed, poll.confirmed, self.largest)

    @expose(idempotent=True)
    async def settle(self, session: Name, settlements: list[Settlement] | bytes) -> list[SettleState] | bytes:
        """End deliveries of a session, or tell of them; each has its own answer, in order; packed ones packed."""
        given = _read(settlements, list[Settlement])
        self.may.check_publish(publication for settlement in given for publication in settlement.then)
        check_settled(given, self.largest)
        named = self.may.own(session)
        found, effects = await self.ask(lambda store, now: store.settle(named, given, now))
        self.waiters.wake(effects)
        self._hurry(any(each.delay or any(map(operations.is_timed, each.then)) for each in given))
        self._count_settled(named, given, found)
        return pack(found) if isinstance(settlements, bytes) else found

    def _count_settled(self, session: str, given: Sequence[Settlement], found: Sequence[SettleState]) -> None:
        out = self.receivers.hear(session, self.clock()).out
        ended = 0
        acked: Counter[str] = Counter()
        for settlement, state in zip(given, found, strict=True):
            if settlement.verdict is Verdict.KEEP or settlement.token not in out:
                continue  # it goes on, or was told before
            queue, _ = out.pop(settlement.token)
            ended += state is SettleState.DONE
            if state is SettleState.DONE and settlement.verdict is Verdict.ACK:
                acked[queue] += 1
        self.traffic.settled(self.may.caller(), ended, acked, time.monotonic())

    @expose(idempotent=True)
    async def cancel(self, ids: list[Name], outcome: Outcome) -> None:
        """End messages wherever they are: those that wait at once, those that run are marked for their session."""
        self.waiters.wake(await self.ask(lambda store, now: store.cancel(ids, outcome, now)))

    # Sessions --------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def open_session(
        self, session: Name, ttl: Life = TTL, about: bytes = b"", claim: list[Count] | None = None
    ) -> list[int]:
        """A receiver, which holds what it receives for as long as it is heard of within `ttl` seconds.

        Args:
            session: a name of its own; it is its key's alone.
            ttl: seconds.
            about: what `sessions` shows of it.
            claim: tokens of what it had before it was gone: it gets back what nobody was given since.

        Returns: of these, those that it has.
        """
        made = Session(self.may.own(session), self.may.caller(), ttl)
        held = await self.ask(lambda store, now: store.open_session(made, now, claim or ()))
        self.receivers.open(made.id, ttl, about, self.clock())
        return held

    @expose(idempotent=True)
    async def show(self, session: Name, about: bytes) -> None:
        """What `sessions` shows of one from now on; it is neither opened nor kept alive by this."""
        self.receivers.show(self.may.own(session), about)

    @expose(idempotent=True)
    async def close_session(self, session: Name) -> None:
        """What it holds goes back at once."""
        named = self.may.own(session)
        self.receivers.forget(named)
        self.waiters.wake(await self.ask(lambda store, now: store.close_session(named, now)))

    # Results ---------------------------------------------------------------------------------------------------------

    @expose(idempotent=True)
    async def results(self, ids: list[Name], wait: Span = 0.0, beside: list[Name] | None = None) -> list[Result | None]:
        """The last known of each; with `wait`, as soon as one of them is final.

        What does not fit into one answer is None, as what is not known: ask again for those. Behind them those of
        `beside` that are final and small, which nobody waits for; the others of them are None.
        """
        until = time.monotonic() + min(wait, MAX_WAIT)
        with self.waiters.awaiting(ids) as waiting:
            while True:
                waiting.begin()
                found = self.look(lambda store, now: store.results(ids, now))
                left = until - time.monotonic()
                if left <= 0 or self.waiters.closing or any(result is not None and result.final for result in found):
                    break
                await waiting.wait(left)
        if not beside:
            return fit_results(found, self.largest)
        others = self.look(lambda store, now: store.results(beside, now))
        return fit_results(found, self.largest) + fit_small(others)

    @expose(idempotent=True)
    async def forget(self, ids: list[Name]) -> None:
        """Drop results before their time."""
        await self.ask(lambda store, now: store.forget_results(ids, now))

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
        await self.performer.close()

    def drain(self) -> None:
        """Send every waiting poll home, and let none wait any more."""
        self.waiters.send_home()

    async def sweep(self) -> float | None:
        """Do what time has brought, and wake whom it concerns; gives when there is more to do, None if never."""
        self.waiters.wake(await self.performer.perform(lambda store: store.sweep(self.clock())))
        return await self.performer.perform(lambda store: store.next_due(self.clock()))

    async def _watch_time(self) -> None:
        tidy = 0.0
        resumed = False
        while True:
            pause = SWEEP_PERIOD
            self._hurried.clear()
            try:
                if not resumed:
                    await self.performer.perform(lambda store: store.resume(self.clock()))
                    resumed = True
                due = await self.sweep()
                if due is not None:
                    pause = min(pause, max(0.0, due - self.clock()))
            except CallFailed:
                log.exception("what time brings could not be looked at; it is tried again")
            if time.monotonic() >= tidy:
                tidy = time.monotonic() + TIDY_PERIOD
                self.receivers.forget_silent(self.clock())
                self.traffic.forget_idle(time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurried.wait()
            await asyncio.sleep(0.005)


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
