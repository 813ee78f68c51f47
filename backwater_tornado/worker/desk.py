"""From a delivery to what the broker is told of it: each that comes is settled once, unless its lease is lost.

A task is settled when it has run, so one whose worker is killed runs again, elsewhere. One of a function with
`acks_late=False` begins only when the broker has noted that it does, and then never a second time: if its worker is
lost, it ends as failed.

What another worker was given while the session was gone is lost here. What has not begun is let go; what runs is
stopped where its pool can do that, and what it gives nevertheless is superseded.

Rule: on the loop, and never waits: what takes time is the pools', `inputs`' and `settling`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any

from backwater_tornado.broker.values import Batch, Outcome, Result, Settlement, SettleState, Verdict
from backwater_tornado.exposure import Exposure, Function
from backwater_tornado.tasks.limits import rate_of
from backwater_tornado.tasks.outcomes import started

from .deliveries import Task, make_job, noted, read_delivery, returned, revocation, settlement_of
from .events import Events
from .holding import Held, Stage
from .hooks import Hooks
from .jobs import End, Ending, Job, Stop
from .keeping import Keeping
from .pace import Pace
from .pools import Pool
from .sayings import say_ending
from .spool import About
from .turns import Limit, Turns

log = logging.getLogger("backwater.worker")


class Desk:
    """See the head of this module.

    Args:
        exposure: the functions that it runs.
        pool_for: where a function runs.
        prefetch: deliveries held at a time; None: as `Pace` finds.
        about: what a task that is STARTED tells: where it runs.

    Attributes:
        settle, fetch, made_room: what it uses, set by `worker` before anything comes.
        events: whom to tell of what happens to tasks; None: nobody.
        keeping: has outcomes on disk; None: nobody has.
        counts: how often each thing happened since the start.
        pace: says how many to hold.
        idle: set while nothing runs.
    """

    #: Tells the broker, in its turn.
    settle: Callable[[Settlement], None]
    #: Gets results by their ids, and has `prepare` called with them.
    fetch: Callable[[Held, tuple[str, ...]], None]
    #: There is room for so many; a poll for fewer than so many may be overtaken.
    made_room: Callable[[int, int], None]
    events: Events | None = None
    keeping: Keeping | None = None

    def __init__(
        self,
        exposure: Exposure,
        pool_for: Callable[[Function], Pool],
        prefetch: int | None,
        hooks: Hooks,
        about: Mapping[str, Any],
    ) -> None:
        self._exposure = exposure
        self._pool_for = pool_for
        self._hooks = hooks
        self._about = about
        self._loop = asyncio.get_running_loop()
        self.pools = list({id(pool): pool for pool in map(pool_for, exposure.functions())}.values())
        self._turns = {id(pool): self._make_turns(pool) for pool in self.pools}
        self._limits: dict[str, Limit] = {}
        self.pace = Pace(sum(pool.size for pool in self.pools), prefetch, self._loop.time())
        self._held: dict[int, Held] = {}
        #: How many of them have ended, and the broker has yet to accept that.
        self._ended = 0
        self._running: set[Held] = set()
        self._noting: dict[int, asyncio.Future[SettleState]] = {}
        self._side: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        self.closing = False
        self.idle = asyncio.Event()
        self.idle.set()

    def _make_turns(self, pool: Pool) -> Turns[Held]:
        return Turns(pool.size, self._is_wanted, self._begin, self._loop)

    # What the consumer asks, see `Holder` ----------------------------------------------------------------------------

    def room(self) -> int:
        """See `Holder`. What stepped aside for a limit of its function is not in the way of others.

        Neither is what has ended: while the broker is told of it the next ones are on their way.
        """
        if self.closing or (self.keeping is not None and self.keeping.trouble):
            return 0
        prefetch = self.pace.prefetch(self._loop.time())
        aside = sum(turns.aside for turns in self._turns.values())
        return prefetch - len(self._held) + min(self._ended, prefetch) + min(aside, prefetch)

    def held(self) -> tuple[int, ...]:
        """See `Holder`."""
        return tuple(self._held)

    def let_go(self) -> None:
        """See `Holder`. What came last goes first, and nothing as long as twice the prefetch is not exceeded."""
        surplus = -self.room() - self.pace.prefetch(self._loop.time())
        if surplus <= 0 or self.closing:
            return
        waiting = [held for held in self._held.values() if held.stage in (Stage.FETCHING, Stage.WAITING)]
        for held in waiting[-surplus:]:
            log.debug("%s goes back: those before it take long", held.label, extra=held.about)
            self._finish(held, returned(held.token))

    def take(self, batch: Batch, *, more: bool = False) -> None:
        """See `Holder`."""
        if more and self._is_dry():
            self.pace.note_dry(self._loop.time())
        self.counts["received"] += len(batch.deliveries)
        for delivery in batch.deliveries:
            held = self._held[delivery.token] = Held(delivery)
            if delivery.message.expires is not None:
                held.expires = self._loop.time() + delivery.message.expires - batch.now
            if self.closing:
                self._finish(held, returned(held.token))
            else:
                self._read(held)
        for token in batch.cancelled:
            self._cancel(token)

    def _is_dry(self) -> bool:
        """Whether there is nothing left to begin."""
        return not any(held.stage in (Stage.FETCHING, Stage.WAITING) for held in self._held.values())

    def lose(self, tokens: Collection[int]) -> None:
        """See `Holder`."""
        for token in tokens:
            held = self._held.get(token)
            if held is None or held.stage is Stage.ENDED:  # the broker says what becomes of that
                continue
            del self._held[token]
            before, held.stage = held.stage, Stage.LOST
            self.counts["lost"] += 1
            self._note("lost", held)
            if before is Stage.RUNNING:
                log.warning(
                    "%s lost its lease while it runs: another worker may run it, too", held.label, extra=held.about
                )
                self._pool_for(held.function).stop(held.token, Stop.CLOSING)
            else:
                log.info("%s was taken back before it began", held.label, extra=held.about)

    # Before the run --------------------------------------------------------------------------------------------------

    def _read(self, held: Held) -> None:
        task = read_delivery(held.delivery, self._exposure)
        held.task = task if isinstance(task, Task) else None
        self._note("received", held)
        if isinstance(task, Settlement):
            self._finish(held, task)
            return
        log.debug("%s received", held.label, extra=held.about)
        if task.needs:
            self.fetch(held, task.needs)
        else:
            self.prepare(held, {})

    def prepare(self, held: Held, results: Mapping[str, Result | None]) -> None:
        """Let it wait for its turn; these are the results that it needs."""
        if held.stage is not Stage.FETCHING:
            return
        assert held.task is not None
        job = make_job(held.task, results)
        if isinstance(job, Settlement):
            self._finish(held, job)
            return
        held.job, held.stage = job, Stage.WAITING
        held.limit = self._limit_of(held.task)
        self._turns_of(held).add(held)

    def _limit_of(self, task: Task) -> Limit | None:
        name, options = task.headers.task, task.function.options
        if name not in self._limits:
            rate = rate_of(options.task.get("rate_limit"))
            if rate is None and options.max_concurrency is None:
                return None
            self._limits[name] = Limit(options.max_concurrency, rate)
        return self._limits[name]

    def _turns_of(self, held: Held) -> Turns[Held]:
        return self._turns[id(self._pool_for(held.function))]

    def _is_wanted(self, held: Held) -> bool:
        """Whether one whose turn it is should begin."""
        if held.stage is not Stage.WAITING:
            return False
        if held.expires is not None and held.expires <= self._loop.time():
            self._finish(held, returned(held.token))  # the broker sees that it has expired
            return False
        return True

    # The run ---------------------------------------------------------------------------------------------------------

    def _begin(self, held: Held) -> None:
        """It has a slot."""
        held.stage, held.began = Stage.RUNNING, self._loop.time()
        self._running.add(held)
        self.idle.clear()
        once = held.function.options.task.get("acks_late") is False
        if once or "before_task" in self._hooks:
            self._beside(self._begin_slowly(held, once))
        else:
            self._start(held)

    async def _begin_slowly(self, held: Held, once: bool) -> None:
        """What has to be done before the run takes time."""
        assert held.job is not None
        if once:
            future = self._noting[held.token] = self._loop.create_future()
            self.settle(noted(held.token))
            if await future is SettleState.STALE:
                held.stage = Stage.LOST
                self._note("lost", held)
        if held.stage is Stage.RUNNING and not held.revoked:
            await self._hooks.tell("before_task", held.job)
        if held.stage is not Stage.RUNNING:
            self._leave(held)
        elif held.revoked:
            self._finish(held, revocation(held.token))
            self._leave(held)
        else:
            self._start(held)

    def _start(self, held: Held) -> None:
        assert held.job is not None
        log.debug("%s begins", held.label, extra=held.about)
        self._note("started", held)
        if held.function.options.task.get("track_started"):
            self.settle(Settlement(held.token, Verdict.KEEP, started(self._about)))
        self._pool_for(held.function).start(
            held.job, held.function, partial(self._end, held), partial(self._tell, held)
        )

    def _tell(self, held: Held, job: Job, outcome: Outcome) -> None:
        """How far it is."""
        if held.stage is Stage.RUNNING:
            self.settle(Settlement(job.token, Verdict.KEEP, outcome))
            self._note("progressed", held)

    def _end(self, held: Held, job: Job, ending: Ending) -> None:
        """It has run. What is said of that comes last: a log that fails holds nothing up."""
        assert held.task is not None
        superseded = held.stage is not Stage.RUNNING
        if not superseded:
            self._finish(held, settlement_of(held.task, job, ending))
        now = self._loop.time()
        self.pace.note_end(now, now - held.began)
        self._leave(held)
        if "after_task" in self._hooks:
            self._beside(self._hooks.tell("after_task", job, ending))
        if not superseded:
            say_ending(held, ending, self._loop.time() - held.began)
        elif ending.end is not End.RETURN:
            self._supersede(held)

    def _leave(self, held: Held) -> None:
        """It has a slot no longer."""
        self._running.discard(held)
        self._turns_of(held).end(held)
        if not self._running:
            self.idle.set()
        self._tell_room()

    def _beside(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._side.add(task)
        task.add_done_callback(self._side.discard)

    def _cancel(self, token: int) -> None:
        """Somebody revoked it."""
        held = self._held.get(token)
        if held is None or held.revoked or held.stage is Stage.ENDED:
            return
        held.revoked = True
        log.info("%s is revoked", held.label, extra=held.about)
        if held.stage is Stage.RUNNING:
            self._pool_for(held.function).stop(token, Stop.REVOKED)
        else:
            self._finish(held, revocation(token))

    # Afterwards ------------------------------------------------------------------------------------------------------

    def _finish(self, held: Held, settlement: Settlement) -> None:
        """Tell the broker how it ended; it is held until that is accepted."""
        held.stage = Stage.ENDED
        self._ended += 1
        self.counts[settlement.verdict] += 1
        self.settle(settlement)
        if self.keeping is not None:
            self.keeping.add(settlement, *held.names)
        if self.events is not None:
            self.events.note_end(held, settlement)
        if settlement.reason:
            log.warning("%s is put aside: %s", held.label, settlement.reason, extra=held.about)

    def _note(self, event: str, held: Held) -> None:
        if self.events is not None:
            self.events.note(event, held)

    def settled(self, settlement: Settlement, state: SettleState) -> None:
        """The broker's answer."""
        noting = self._noting.pop(settlement.token, None)
        if noting is not None:
            noting.set_result(state)
        if settlement.verdict is Verdict.KEEP:
            return
        held = self._held.pop(settlement.token, None)
        if self.keeping is not None:
            self.keeping.forget(settlement.token)
        if held is not None:
            self._ended -= 1
            if state is SettleState.STALE:
                self._supersede(held)
        self._tell_room()

    def _tell_room(self) -> None:
        """There may be room for more."""
        prefetch = self.pace.prefetch(self._loop.time())
        self.made_room(self.room(), max(1, prefetch // 4))

    def _supersede(self, held: Held) -> None:
        """It has ended here, and is another's."""
        log.warning("%s has ended and is superseded: another worker has it", held.label, extra=held.about)
        self._note("superseded", held)
        self.note_superseded(About(time.time(), *held.names))

    def note_superseded(self, about: About) -> None:
        """Count what the broker did not want."""
        self.counts["superseded"] += 1
        if self.keeping is not None:
            self.keeping.supersede(about)

    def return_waiting(self) -> None:
        """Give back what has not begun; from now on nothing begins."""
        self.closing = True
        for held in list(self._held.values()):
            if held.stage in (Stage.FETCHING, Stage.WAITING):
                self._finish(held, returned(held.token))
