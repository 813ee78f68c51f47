"""Whether a worker hears: what the broker says is ready, held against what it was given.

A worker whose link was cut may look well and get nothing. So from time to time the broker is asked how much is ready in
the worker's queues. Where something is, twice in a row, and the worker had room all the time and was given nothing, it
is deaf: its health says so, and it polls anew.

Rule: the decision is a function of two looks; `Watch` only looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backwater_tornado.broker.values import QueueStats
from backwater_tornado.errors import CallFailed, Refused
from backwater_tornado.tasks import asks

from .line import Line

log = logging.getLogger("backwater.worker")

#: An answer that is this much later than a poll waits at most is missed, seconds.
SLACK = 10.0
#: Outcomes that the broker was not told of are many beyond this.
MANY = 1000


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment."""

    #: The queues in which something is ready that nothing holds back.
    ready: frozenset[str]
    #: Deliveries received so far.
    received: int
    has_room: bool


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker is."""

    reasons: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """For a probe."""
        return "degraded" if self.reasons else "ok"


def look(stats: Sequence[QueueStats], received: int, room: int) -> Look:
    """What there is to see."""
    return Look(frozenset(each.queue.name for each in stats if _gives(each)), received, room > 0)


def _gives(stats: QueueStats) -> bool:
    """Whether a poll would be given something."""
    queue = stats.queue
    if not stats.ready or queue.paused or queue.rate is not None:  # a rate may give nothing for long
        return False
    return queue.max_running is None or stats.leased < queue.max_running


def deaf_to(before: Look | None, now: Look) -> frozenset[str]:
    """The queues that a worker does not hear."""
    if before is None or not (before.has_room and now.has_room) or before.received != now.received:
        return frozenset()
    return before.ready & now.ready


class Watch:
    """See the head of this module.

    Args:
        state: deliveries received so far, and the room there is.
        poll: polls anew.
        period: between two looks, seconds.
    """

    def __init__(
        self,
        line: Line,
        queues: Sequence[str],
        state: Callable[[], tuple[int, int]],
        poll: Callable[[], None],
        period: float,
    ) -> None:
        self._line = line
        self._queues = queues
        self._state = state
        self._poll = poll
        self._period = period
        self._before: Look | None = None
        #: The queues that it does not hear.
        self.deaf: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        stats = await self._line.insist(lambda: asks.stats(self._queues))
        seen = look(stats, *self._state())
        self.deaf = deaf_to(self._before, seen)
        self._before = seen
        if self.deaf:
            log.warning("nothing comes from %s, where tasks are ready: polling anew", ", ".join(sorted(self.deaf)))
            self._poll()

    def health(self, silent: float, unsent: int, patience: float, trouble: str = "") -> Health:
        """How the worker is.

        Args:
            silent: since when the broker was not heard of, seconds.
            unsent: outcomes that it was not told of.
            patience: how long it may be silent, seconds.
            trouble: why outcomes are not on disk that should be.
        """
        reasons = [f"nothing comes from the queue {name}, where tasks are ready" for name in sorted(self.deaf)]
        if unsent > MANY:
            reasons.append(f"{self._line.name} has yet to be told of {unsent} outcomes")
        if trouble:
            reasons.append(f"outcomes are not kept, and no more tasks are taken: {trouble}")
        return Health((*reasons, *line_reasons(self._line, silent, patience)))


def line_reasons(line: Line, silent: float, patience: float) -> list[str]:
    """What is wrong with the way to a broker that was not heard of for `silent` seconds, and may be for `patience`."""
    refused = {verb: error for verb, error in line.failing.items() if _is_refusal(error)}
    reasons = [f"{line.name} was not heard of for {silent:.0f} s"] if silent > patience + SLACK else []
    return reasons + [f"{line.name} refuses to {verb}: {error}" for verb, error in sorted(refused.items())]


def _is_refusal(error: CallFailed) -> bool:
    """Whether it will be the same the next time, unless somebody does something."""
    return isinstance(error, Refused) and not error.retryable
