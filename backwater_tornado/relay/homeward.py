"""Asks the far broker how messages ended, many in one request, which is answered the moment one of them has.

What has just arrived there is asked about at once, and so is what was near it when something ended: mostly what came
first ends first. What has not ended while a request waited is old, and asked about beside, in turns.

Of a message that the far broker knows nothing of for long nobody can tell whether it waits there, or was lost with the
far broker's store. It is overdue: published anew, it is there once in either case.

Rule: what an outcome means is its owner's business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from backwater_tornado.broker.values import Result
from backwater_tornado.tasks.flows import MAX_IDS
from backwater_tornado.worker.inputs import ask_results
from backwater_tornado.worker.line import Line

from .cargo import Away

#: How long a request waits at the far broker that others wait for, seconds.
SHORT_WAIT = 2.0
#: Requests that wait there: for what is new, and for what is old.
NEW, OLD = 8, 4
#: Ids that are asked about where something has just ended, at least; four times as many as have ended, otherwise.
LEAST: Final = 64
#: What nothing is known of is overdue after so long, seconds.
OVERDUE: Final = 3600.0


class Ring:
    """Messages that are to be asked about, in turns."""

    def __init__(self) -> None:
        self._waiting: deque[Away] = deque()
        self._news = asyncio.Event()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._waiting)

    def add(self, several: list[Away], *, first: bool = False) -> None:
        """Ask about them last, or first."""
        if first:
            self._waiting.extendleft(reversed(several))
        else:
            self._waiting.extend(several)
        if self._waiting:
            self._news.set()

    async def take(self, most: int) -> list[Away]:
        """The next, one at least; not those that have ended meanwhile."""
        while True:
            taken: list[Away] = []
            while self._waiting and len(taken) < most:
                away = self._waiting.popleft()
                if not away.is_ended:
                    taken.append(away)
            if taken:
                return taken
            self._news.clear()
            await self._news.wait()
            await asyncio.sleep(0)  # what comes in the same turn of the loop goes along


class Homeward:
    """See the head of this module.

    Args:
        line: to the far broker.
        told: called with each message of which something is known.
        overdue: called with what is overdue.
        wait: how long a request waits at the far broker, seconds.
        clock: seconds; the one of `Away.since`.
    """

    def __init__(
        self,
        line: Line,
        told: Callable[[Away, Result], None],
        overdue: Callable[[Away], None],
        wait: float,
        clock: Callable[[], float],
    ) -> None:
        self._line, self._told, self._overdue, self._wait, self._clock = line, told, overdue, wait, clock
        self._new, self._old = Ring(), Ring()

    def add(self, away: Away) -> None:
        """Ask how it ends, until it has."""
        self._new.add([away])

    async def run(self) -> None:
        """Ask, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for ring in [self._new] * NEW + [self._old] * OLD:
                group.create_task(self._follow(ring))

    async def _follow(self, ring: Ring) -> None:
        most = MAX_IDS
        while True:
            asked = await ring.take(most)
            wait = min(SHORT_WAIT, self._wait) if ring else self._wait
            found = await ask_results(self._line, [away.id for away in asked], wait)
            for away, result in zip(asked, found, strict=True):
                self._tell(away, result)
            left = [away for away in asked if not away.is_ended]
            ended = len(asked) - len(left)
            if ended:
                ring.add(left, first=True)
                most = min(max(LEAST, 4 * ended), MAX_IDS)
            else:
                self._old.add(left)
                most = MAX_IDS

    def _tell(self, away: Away, result: Result | None) -> None:
        if away.is_ended:
            return
        if result is not None:
            self._told(away, result)
        elif self._clock() - away.since > OVERDUE:
            self._overdue(away)
