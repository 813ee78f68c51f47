"""Forwards what lies in an outbox to the broker, until it is stopped.

One at a time: whoever has the seat forwards, others wait and take over when it is free. Parcels are chosen by `rules`,
handed over by `flows`, and forgotten when the broker has them; so whatever ends this (a cut, `kill -9`), what was on
its way is sent again, and the broker knows it by its ids.

While the link is down, one request tries it again and again (`hedging`); when it gets through, all goes on at once.

Rule: this has the clock and the dice; it decides nothing, and knows no socket.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from backwater_tornado.errors import CallFailed, Refused, StorageFailed
from backwater_tornado.hedging import hedge
from backwater_tornado.tasks.flows import Flow

from .flows import Refusal, end_flow, publish_flow
from .parcels import Kept, Place, Taken
from .rules import Room, choose, is_known, pause
from .store import OutboxStore

log = logging.getLogger("backwater.outbox")

T = TypeVar("T")

#: How often a forwarder looks by itself: at the file (what was put in by a transaction of the application's own rings
#: no bell), and at a seat that another has; seconds.
LOOK = 0.25
#: Between two looks that it is rung for while something is on its way, seconds.
REST = 0.005
#: Requests on their way at once.
IN_FLIGHT = 4
#: Parcels that are looked at to choose from.
WINDOW = 4 * Room().messages
_UNKNOWN = "unknown: it may have been accepted before, longer ago than the broker remembers"


class Link(Protocol):
    """A broker's other end: an `AsyncApp`."""

    async def drive(self, flow: Flow[T], /) -> T:
        """Run a flow to its end."""
        ...


class Forwarder:
    """See the head of this module.

    Args:
        store: the outbox.
        link: the broker. It reports a failure at once, and leaves trying again to this.
        clock: Unix seconds; the one that parcels were made with.
        dice: 0 to 1.
    """

    def __init__(
        self,
        store: OutboxStore[Any],
        link: Link,
        clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.seat = store.seat()
        #: Failures in a row: above 0 the link counts as down.
        self.failures = 0
        #: Another has the seat.
        self._is_turned_away = False
        self._is_seated = False
        self._store, self._link, self._clock, self._dice = store, link, clock, dice
        self._room = Room()
        self._read = store.reader()
        self._waiting: list[Place] = []
        #: The queues of requests on their way.
        self._busy: dict[asyncio.Task[None], set[str]] = {}
        #: All queues that a parcel must not be for to be chosen now; None: that has to be looked at.
        self._barred: set[str] | None = None
        self._paused_until = 0.0
        self._news = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Forward until `stop`; raises `ConfigurationError` when the seat cannot be used at all."""
        while not self._stopping:
            try:
                if await self._has_seat():
                    await self._forward()
            finally:
                for task in self._busy:
                    task.cancel()
                await asyncio.gather(*self._busy, return_exceptions=True)
                self.seat.leave()

    async def _has_seat(self) -> bool:
        """Wait until it is taken; False: this was stopped before."""
        while not self._stopping:
            self._news.clear()
            try:
                if self.seat.take():
                    self._is_turned_away = False
                    return True
                if not self._is_turned_away:
                    log.info("another forwards this outbox; this waits until it ends")
                self._is_turned_away = True
            except StorageFailed as error:
                self._fail(error)
            await self._wait(LOOK)
        return False

    @property
    def is_idle(self) -> bool:
        """Whether nothing will go soon by this: the link is down, or another forwards."""
        return self.failures > 0 or self._is_turned_away

    def stop(self) -> None:
        """End soon; what is on its way is given up, and sent again by the next forwarder."""
        self._stopping = True
        self._news.set()

    async def _forward(self) -> None:
        self._is_seated = True
        self._waiting, self._barred, self._read = [], None, self._store.reader()
        self._listen()
        try:
            while self._is_seated and not self._stopping:
                self._news.clear()
                try:
                    self._begin_requests()
                except StorageFailed as error:
                    self._fail(error)
                await self._wait(LOOK)
        finally:
            self._is_seated = False
            asyncio.get_running_loop().remove_reader(self.seat.fd)

    def _listen(self) -> None:
        if self._is_seated:
            asyncio.get_running_loop().add_reader(self.seat.fd, self._hear)

    def _hear(self) -> None:
        self._is_seated = self.seat.hush()
        self._news.set()
        if not self._is_seated:
            log.warning("the seat of this outbox's forwarder was lost; this takes it again")
            asyncio.get_running_loop().remove_reader(self.seat.fd)
            return
        if (
            self._busy
        ):  # what comes now mostly waits for an answer anyway: a sender in a loop is not disturbed by a look
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.seat.fd)
            loop.call_later(REST, self._listen)

    async def _wait(self, seconds: float) -> None:
        left = self._paused_until - time.monotonic()
        timer = asyncio.get_running_loop().call_later(left if left > 0 else seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    # Requests

    def _begin_requests(self) -> None:
        if time.monotonic() < self._paused_until or not self._has_news():
            return
        while len(self._busy) < (1 if self.failures else IN_FLIGHT):
            busy = set().union(*self._busy.values())
            chosen = choose(self._waiting, busy, self._room)
            if not chosen:
                self._barred = busy.union(*(each.queues for each in self._waiting))
                return
            numbers = {each.number for each in chosen}
            self._waiting = [each for each in self._waiting if each.number not in numbers]
            task = asyncio.get_running_loop().create_task(self._send(chosen))
            self._busy[task] = {queue for each in chosen for queue in each.queues}
            task.add_done_callback(functools.partial(self._ended, chosen))

    def _has_news(self) -> bool:
        """Read what is new in the file; whether there may be something to choose since the last time."""
        new: list[Place] = []
        if len(self._waiting) < WINDOW:
            new = self._read(WINDOW)
            self._waiting += new
        if self._barred is not None and not any(self._barred.isdisjoint(each.queues) for each in new):
            self._barred.update(*(each.queues for each in new))
            return False
        self._barred = None
        return True

    async def _send(self, chosen: Sequence[Place]) -> None:
        now = self._clock()
        numbers = [each.number for each in chosen]
        taken = self._store.take(numbers, now)
        kept = [Kept(each.parcel, _UNKNOWN) for each in taken if not is_known(each.tried, now)]
        sent = [each for each in taken if is_known(each.tried, now)]
        if self.failures:
            refused = await hedge(lambda: self._publish(sent, now))
        else:
            refused = await self._publish(sent, now)
        kept += [each.kept for each in refused]
        if kept:
            for each in kept:
                log.warning("the broker did not take the task %s: %s", each.parcel.id, each.reason)
            self._store.keep(kept)
            await self._end(refused)
        self._store.remove(numbers)

    async def _publish(self, sent: Sequence[Taken], now: float) -> list[Refusal]:
        return await self._link.drive(publish_flow(sent, now))

    async def _end(self, refused: Sequence[Refusal]) -> None:
        try:
            await self._link.drive(end_flow(refused))
        except Refused as error:
            if error.retryable:
                raise
            log.warning("the broker could not be told to end what it did not take: %s", error)

    def _ended(self, chosen: Sequence[Place], task: asyncio.Task[None]) -> None:
        del self._busy[task]
        self._news.set()
        self._barred = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._waiting = sorted([*self._waiting, *chosen], key=lambda each: each.number)
            self._fail(error)
            return
        if self.failures:
            log.info("the broker takes tasks again")
        self.failures, self._paused_until = 0, 0.0
        self._room = self._room.larger()

    def _fail(self, error: BaseException) -> None:
        if time.monotonic() < self._paused_until:  # others were on their way at the same time
            return
        if not self.failures:
            log.warning("tasks cannot be forwarded now, and wait in the outbox: %s", error)
        if not isinstance(error, CallFailed):
            log.error("the forwarder has failed, and goes on", exc_info=error)
        self.failures += 1
        self._room = self._room.smaller()
        self._paused_until = time.monotonic() + pause(self.failures, self._dice())
