"""Periodic tasks: every worker looks after the broker's schedule, and no single one is needed for it.

The schedule is in the broker. Whoever finds an entry due writes when it is due next and publishes its task, in one
transaction that does nothing if somebody else was first. So any number of workers may do this and each run is made
once; and as long as one of them is there, each is made. It is made by the clock of the worker that makes it.

Rule: what is to be done with an entry is decided in `tasks.entries`; the broker is two verbs, in place or far away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from .broker.values import Entry, Publication
from .errors import CallFailed, InvalidOption
from .tasks import asks
from .tasks.asks import Ask
from .tasks.entries import Step, publication_of, renew, step_of

log = logging.getLogger("backwater.periodic")

#: Between two looks at the schedule, seconds, at most: for what others have planned, and for a clock that was set.
LOOK_PERIOD = 20.0
#: And at least.
SHORTEST_PAUSE = 0.01
#: Until the next look when the broker has failed, seconds.
RETRY_PERIOD = 5.0


class Schedule(Protocol):
    """What is asked of a broker."""

    async def schedule(self) -> list[Entry]:
        """All entries."""
        ...

    async def plan(self, entry: Entry, expected: float | None = None, publish: Publication | None = None) -> bool:
        """Write an entry if its `due` is still `expected` (None: there is none), and publish; whether that was so."""
        ...


class AskedSchedule:
    """The schedule of a broker far away, by whatever can ask it (`AsyncApp.ask`)."""

    def __init__(self, ask: Callable[[Ask[Any]], Awaitable[Any]]) -> None:
        self._ask = ask

    async def schedule(self) -> list[Entry]:
        """See `Schedule`."""
        return await self._ask(asks.schedule())  # type: ignore[no-any-return]

    async def plan(self, entry: Entry, expected: float | None = None, publish: Publication | None = None) -> bool:
        """See `Schedule`."""
        return await self._ask(asks.plan(entry, expected, publish))  # type: ignore[no-any-return]


class Ticker:
    """Makes the runs of periodic tasks when they are due.

    Args:
        broker: where the schedule is.
        make_publication: what a run of an entry publishes, under an id that is the same whoever makes this run.
        clock: Unix seconds.
    """

    def __init__(
        self,
        broker: Schedule,
        make_publication: Callable[[Entry], Publication] = publication_of,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._make_publication = make_publication
        self._clock = clock
        self._woken = asyncio.Event()
        #: Entries of which was told that they cannot be read.
        self._told: set[str] = set()

    async def declare(self, entries: Iterable[Entry]) -> None:
        """Write entries that are missing or have changed (`make_entry`); others in the broker are left alone.

        Where two versions of an application declare the same name, the one that started last has it.
        """
        missing = {entry.name: entry for entry in entries}
        while missing:
            there = {entry.name: entry for entry in await self._broker.schedule()}
            for name, entry in list(missing.items()):
                if await self._declare(entry, there.get(name)):
                    del missing[name]
        self._woken.set()

    async def _declare(self, entry: Entry, there: Entry | None) -> bool:
        if there is None:
            return await self._broker.plan(entry)
        changed = renew(entry, there)
        return changed is None or await self._broker.plan(changed, there.due)

    async def run(self) -> None:
        """Look after the schedule until cancelled; a broker that cannot be reached is asked again."""
        failing = False
        while True:
            self._woken.clear()
            try:
                pause, failing = await self.look(), False
            except CallFailed as error:
                if not failing:
                    log.warning("the schedule of periodic tasks cannot be read, and is asked for again: %s", error)
                pause, failing = RETRY_PERIOD, True
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def look(self) -> float:
        """Make the runs that are due; gives the seconds until the next look. Raises `CallFailed`."""
        now = self._clock()
        entries = await self._broker.schedule()
        # At the same time, as each is a question to the broker, which may be far away.
        dues = await asyncio.gather(*[self._attend(entry, now) for entry in entries])
        return max(SHORTEST_PAUSE, min([LOOK_PERIOD, *(due - self._clock() for due in dues)]))

    async def _attend(self, entry: Entry, now: float) -> float:
        """Do with an entry what is to be done; gives when there is more to do."""
        try:
            step = step_of(entry, now)
        except InvalidOption as error:
            if entry.name not in self._told:
                self._told.add(entry.name)
                log.warning("the periodic task %s is left to workers that can read its schedule: %s", entry.name, error)
            return now + LOOK_PERIOD
        return entry.due if step is None else await self._take(entry, step)

    async def _take(self, entry: Entry, step: Step) -> float:
        publication = self._make_publication(entry) if step.is_run else None
        try:
            if await self._broker.plan(step.entry, entry.due, publication):
                log.debug("the periodic task %s is due next at %.3f", entry.name, step.entry.due)
        except CallFailed as error:
            log.warning("the periodic task %s could not be planned, and is tried again: %s", entry.name, error)
            return self._clock() + RETRY_PERIOD
        return step.entry.due  # somebody else who was first has planned just that
