"""Where tasks run: so many at once, each within its time, each ended exactly once.

A pool counts, waits, and looks at the clock. Its places do the running, and are told when to interrupt it: threads
(`thread_pool`), the loop (`async_pool`) and processes (`process_pool`).

Rule: whatever happens to a run, `done` is called for it once, on the loop. How a run ends that was stopped is said
here, alike for all places. A run that does not end when it is stopped is left to itself after a moment.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from backwater_tornado.broker.values import Outcome
from backwater_tornado.deadlines import Deadlines
from backwater_tornado.errors import TimeLimitExceeded
from backwater_tornado.exposure import Function
from backwater_tornado.tasks.outcomes import failed, revoked

from .jobs import End, Ending, Job, Stop

log = logging.getLogger("backwater.worker")

#: Called on the loop.
Done = Callable[[Job, Ending], None]
Tell = Callable[[Job, Outcome], None]

#: How long a run that was stopped may take to end, seconds.
MOMENT: Final = 2.0


class Run:
    """One job from `Pool.start` to its end. A place says that it has `begun`, and calls `end` once."""

    __slots__ = ("_done", "_tell", "began", "deadline", "ended", "function", "job", "place", "pool", "warned", "why")

    def __init__(self, pool: Pool, place: Place, job: Job, function: Function, done: Done, tell: Tell) -> None:
        self.pool = pool
        self.place = place
        self.job = job
        self.function = function
        self._done = done
        self._tell = tell
        #: Unix seconds; 0: not yet.
        self.began = 0.0
        #: Why it was stopped, if it was.
        self.why: Stop | None = None
        self.ended = False
        #: It was told that its soft limit has passed.
        self.warned = False
        #: When the pool has to look at it, on `time.monotonic()`.
        self.deadline = math.inf

    def begun(self) -> None:
        """Its function is called now: its time runs."""
        self.began = time.time()
        if self.job.soft_time_limit is not None or self.job.time_limit is not None:
            self.pool.watch(self)

    def say(self, outcome: Outcome) -> None:
        """It has told how far it is."""
        if not self.ended:
            _guarded(self, self._tell, outcome)

    def end(self, ending: Ending) -> None:
        """Its function has ended."""
        self.pool.note_end(self, ending)

    def give(self, ending: Ending) -> None:
        """Give back how it ended; for the pool to call, once."""
        self.ended = True
        _guarded(self, self._done, ending)

    @property
    def label(self) -> str:
        """For the log."""
        return f"{self.job.task} [{self.job.id}]"


def _guarded(run: Run, tell: Callable[[Job, Any], None], what: Any) -> None:
    """The pool goes on, whatever those do whom it tells."""
    try:
        tell(run.job, what)
    except Exception:
        log.exception("%s: what came of it could not be taken", run.label)


class Place(Protocol):
    """Where runs are run; everything is called on the loop."""

    def begin(self, run: Run) -> None:
        """Run it, when `begin` has returned or later."""
        ...

    def warn(self, run: Run) -> None:
        """Its soft limit has passed."""
        ...

    def interrupt(self, run: Run) -> None:
        """End it."""
        ...

    def abandon(self, run: Run) -> str:
        """It has not ended, and nobody waits for it any longer; gives what it is doing, for the log."""
        ...

    def about(self) -> Mapping[str, Any]:
        """For people: what there is to say of it; a value of JSON."""
        ...

    async def close(self) -> None:
        """There will be no more runs."""
        ...


class Pool:
    """What a worker gives its jobs to; everything is called on its loop.

    Attributes:
        size: how many run at once; more than that wait here for their turn.
    """

    def __init__(self, size: int, plain: Place, coroutines: Place) -> None:
        self.size = size
        #: By whether a function is a coroutine function.
        self._places = {False: plain, True: coroutines}
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, Run] = {}
        self._waiting: dict[int, Run] = {}
        #: Left to themselves, and not ended yet.
        self._abandoned: set[Run] = set()
        #: Started, and not given back yet.
        self._open = 0
        self._closed = False
        self._deadlines = Deadlines(self._loop, self._expire)
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self, job: Job, function: Function, done: Done, tell: Tell) -> None:
        """Run it: `done` is called once, with how it ended; `tell` before that, as often as it tells of its progress.

        Neither is called before this returns. Raises RuntimeError when the pool is closed.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        self._open += 1
        self._idle.clear()
        run = Run(self, self._places[function.is_async], job, function, done, tell)
        if len(self._running) < self.size:
            self._begin(run)
        else:
            self._waiting[job.token] = run

    def stop(self, token: int, why: Stop) -> None:
        """End a run before its end; `done` comes as soon as it has ended, or when it did not within a moment.

        A token that is not known (any more) does nothing.
        """
        run = self._waiting.pop(token, None)
        if run is not None:
            run.why = why
            self._loop.call_soon(self._give, run, Ending(End.RETURN))
            return
        run = self._running.get(token)
        if run is not None and run.why is None:
            run.why = why
            self._look_again(run, time.monotonic() + MOMENT)
            run.place.interrupt(run)

    async def close(self, grace: float) -> None:
        """Wait so many seconds for what runs; the rest is stopped, what waits ends as RETURN at once.

        Every run has ended when this returns. It may be called again, with less patience, while it waits.
        """
        self._closed = True
        for token in list(self._waiting):
            self.stop(token, Stop.CLOSING)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        for token in list(self._running):
            self.stop(token, Stop.CLOSING)
        await self._idle.wait()
        self._deadlines.close()
        for place in {id(place): place for place in self._places.values()}.values():
            await place.close()

    def about(self) -> dict[str, Any]:
        """For people: size, what runs since when, what waits, what it runs in; a value of JSON."""
        shown: dict[str, Any] = {
            "size": self.size,
            "running": [
                {"token": run.job.token, "id": run.job.id, "task": run.job.task, "began": run.began}
                for run in self._running.values()
            ],
            "waiting": len(self._waiting),
            "abandoned": len(self._abandoned),
        }
        for place in self._places.values():
            shown |= place.about()
        return shown

    # What runs tell --------------------------------------------------------------------------------------------------

    def watch(self, run: Run) -> None:
        """Its limits count from now on."""
        self._look_again(run, time.monotonic() + min(_limits(run.job)))

    def note_end(self, run: Run, ending: Ending) -> None:
        """A run has ended."""
        if run.ended:
            self._abandoned.discard(run)
            log.info("%s, which was left to itself, has ended", run.label)
            return
        self._free(run)
        self._give(run, ending)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _begin(self, run: Run) -> None:
        self._running[run.job.token] = run
        run.place.begin(run)

    def _look_again(self, run: Run, when: float) -> None:
        if run.deadline < math.inf:
            self._deadlines.remove(run)
        run.deadline = when
        if when < math.inf:
            self._deadlines.add(run)

    def _expire(self, run: Run) -> None:
        soft, hard = _limits(run.job)
        if run.why is not None:
            self._abandon(run)
        elif soft < hard and not run.warned:
            run.warned = True
            self._look_again(run, time.monotonic() + hard - soft)
            log.info("%s has run for %g s, its soft limit", run.label, soft)
            run.place.warn(run)
        else:
            self.stop(run.job.token, Stop.TIME_LIMIT)

    def _abandon(self, run: Run) -> None:
        doing = run.place.abandon(run)
        log.error("%s was stopped (%s) and does not end; it is left to itself\n%s", run.label, run.why, doing)
        self._abandoned.add(run)
        self._free(run)
        self._give(run, Ending(End.RETURN))

    def _free(self, run: Run) -> None:
        """Its slot is the next one's."""
        self._look_again(run, math.inf)
        del self._running[run.job.token]
        if self._waiting:
            self._begin(self._waiting.pop(next(iter(self._waiting))))

    def _give(self, run: Run, ending: Ending) -> None:
        run.give(_judge(run, ending))
        self._open -= 1
        if not self._open:
            self._idle.set()


def _limits(job: Job) -> tuple[float, float]:
    """The soft limit and the hard one, in seconds."""
    soft, hard = job.soft_time_limit, job.time_limit
    return math.inf if soft is None else soft, math.inf if hard is None else hard


def _judge(run: Run, ending: Ending) -> Ending:
    """How a run has ended: what it gave by itself, unless it was stopped."""
    job = run.job
    if run.why is Stop.TIME_LIMIT:
        return Ending(End.DONE, failed(TimeLimitExceeded(f"{job.task} ran longer than {job.time_limit:g} s")))
    if run.why is Stop.REVOKED:
        return Ending(End.DONE, revoked())
    if run.why is Stop.CLOSING and ending.end is End.DONE and ending.outcome is not None and ending.outcome.failed:
        return Ending(End.RETURN, reason="its worker ends")
    return ending
