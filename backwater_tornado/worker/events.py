"""Tells whoever listens what happens to tasks: events, see `tasks.events`.

What has come together since the last request goes in the next one, beside the settlements and never before them. No
task waits for an event. A request that fails is not repeated; what it held is dropped, and so is the oldest of what
waits when too much does. That events were dropped is said once, and once how many.

Rule: whatever happens here, a task is not held back by it and does not fail.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from backwater_tornado.broker.values import Publication, PublishState, Settlement, Verdict
from backwater_tornado.errors import CallFailed
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.events import EXCHANGE, MAX_ERROR, WorkerEvent, publication_of
from backwater_tornado.tasks.outcomes import state_of
from backwater_tornado.tasks.states import State

from .holding import Held
from .line import Link
from .sayings import error_line

log = logging.getLogger("backwater.worker")

#: Events that wait, and events in one request.
MOST_WAITING, MOST = 10_000, 500
#: After a request that failed, seconds.
PAUSE = 1.0

_BY_VERDICT = {Verdict.RETURN: "returned", Verdict.REJECT: "rejected", Verdict.PARK: "parked"}
_BY_STATE = {State.SUCCESS: "succeeded", State.REVOKED: "revoked", State.RETRY: "retried"}


def event_of(settlement: Settlement) -> str:
    """The event that a delivery ends with."""
    if settlement.verdict is Verdict.REQUEUE and settlement.outcome is None:
        return "returned"
    return _BY_VERDICT.get(settlement.verdict) or _BY_STATE.get(state_of(settlement.outcome), "failed")


class Events:
    """See the head of this module.

    Args:
        link: asks the broker; no attempt is repeated.
        session: the name of the session as it is now.
        pause: seconds after a request that failed.
    """

    def __init__(self, link: Link, session: Callable[[], str], pause: float = PAUSE) -> None:
        self._link = link
        self._session = session
        self._pause = pause
        self._numbers = itertools.count(1)
        self._waiting: deque[Publication] = deque()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._declared = False
        #: Since a request last succeeded.
        self._dropped = 0

    def tell(self, event: str, **about: Any) -> None:
        """Tell of the worker itself, or of whatever fields of `WorkerEvent` are given."""
        session = self._session()
        told = WorkerEvent(event, session, time.time(), **about)
        self._waiting.append(publication_of(told, f"{session}/{next(self._numbers)}"))
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._note_dropped(1, "more came than the broker took")
        self._news.set()
        self._idle.clear()

    def note(self, event: str, held: Held) -> None:
        """Tell of a task that has not ended."""
        try:
            self.tell(event, **_about(held))
        except Exception:
            log.exception("%s: the event %s could not be told", held.label, event)

    def note_end(self, held: Held, settlement: Settlement) -> None:
        """Tell how it ended."""
        try:
            ran = asyncio.get_running_loop().time() - held.began if held.began else None
            error = _cut(settlement.reason or error_line(settlement.outcome))
            self.tell(event_of(settlement), **_about(held), seconds=ran, delay=settlement.delay, error=error)
        except Exception:
            log.exception("%s: its end could not be told as an event", held.label)

    async def empty(self) -> None:
        """Wait until all has been published, or dropped."""
        await self._idle.wait()

    async def run(self) -> None:
        """Publish, until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(0)  # what comes in the same turn of the loop goes along
            self._news.clear()
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
                await self._publish(taken)
            self._idle.set()

    async def _publish(self, taken: list[Publication]) -> None:
        try:
            if not self._declared:
                await self._link.ask(asks.declare([EXCHANGE]))
                self._declared = True
            answers = await self._link.ask(asks.publish(taken))
        except CallFailed as error:
            self._note_dropped(len(taken), f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._pause)
            return
        refused = [each.reason for each in answers if each.state is PublishState.REFUSED]
        if refused:
            self._declared = False  # a broker in memory has begun anew
            self._note_dropped(len(refused), refused[0])
        elif self._dropped:
            log.warning("%d events were dropped", self._dropped)
            self._dropped = 0

    def _note_dropped(self, count: int, why: str) -> None:
        if not self._dropped:
            log.warning("events are dropped: %s", why)
        self._dropped += count


def _about(held: Held) -> dict[str, Any]:
    about = {"id": held.delivery.message.id, "queue": held.delivery.queue}
    if held.task is None:
        return about
    return {**about, "task": held.task.headers.task, "retries": held.task.headers.retries}


def _cut(text: str) -> str:
    """So long at most, and of characters that JSON can have."""
    return text[:MAX_ERROR].encode(errors="replace").decode()
