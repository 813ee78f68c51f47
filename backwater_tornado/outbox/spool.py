"""What an application has of its outbox: it puts orders in, and a thread forwards them.

The thread begins with the first order that is put in, or at once where something is left from before. After a fork the
child has none until it sends, and connections of its own. When the program ends, what waits is given a moment to go.

Rule: which broker it goes to is the application's business.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from backwater_tornado.errors import BackwaterError, DeadlineExceeded, OutboxFull
from backwater_tornado.tasks.flows import Nap
from backwater_tornado.tasks.workflow import Order

from .forwarder import Forwarder
from .forwarder import Link as Forwarding
from .parcels import Parcel, make_parcels
from .store import OutboxStore

log = logging.getLogger("backwater.outbox")

#: How long closing waits for what is on its way, while the link is up, seconds.
LINGER: Final = 5.0
#: Between two looks whether all has gone, seconds: the first, and the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.1


Naps = Generator[Nap, None, None]


class Link(Forwarding, Protocol):
    """A broker's other end, which is closed at last."""

    def close(self) -> None:
        """Close the connections."""
        ...


class Spool:
    """See the head of this module.

    Args:
        store: the outbox.
        link: makes a broker's other end for the thread.
        clock: Unix seconds.
        patience: how long sending waits for room, seconds; 0: not at all.
    """

    def __init__(
        self,
        store: OutboxStore[Any],
        link: Callable[[], Link],
        clock: Callable[[], float] = time.time,
        patience: float = 0.0,
    ) -> None:
        self.store = store
        self._patience = patience
        self._make_link = link
        self._clock = clock
        self._lock = threading.Lock()
        self._running: _Running | None = None
        _SPOOLS.add(self)
        if store.is_waiting(store.last_number()):
            self.start()

    def put(self, orders: Iterable[Order]) -> None:
        """Put orders in, all or none; raises `OutboxFull`, `StorageFailed`."""
        parcels = make_parcels(orders, self._clock())
        if parcels:
            dropped = self._put(parcels)
            if dropped:
                log.warning("the outbox is full: %d of the oldest tasks in it were dropped", dropped)
            self.start()

    def _put(self, parcels: Sequence[Parcel]) -> int:
        """Wait for room where that is wished, even behind others: whoever comes when there is some is first."""
        until = time.monotonic() + self._patience
        nap = _FIRST_LOOK
        while True:
            try:
                return self.store.put(parcels)
            except OutboxFull:
                if time.monotonic() + nap > until:
                    raise
            self.start()
            time.sleep(nap)
            nap = min(nap * 1.5, _LONGEST_LOOK)

    def start(self) -> None:
        """Forward, unless this does already."""
        if self.is_forwarding:
            return
        with self._lock:
            if not self.is_forwarding:
                self._running = _Running(self, self._make_link(), self._clock)

    @property
    def is_forwarding(self) -> bool:
        """Whether the thread lives; it may be waiting until another has left the seat."""
        return self._running is not None and self._running.is_alive()

    def flush(self, timeout: float | None, clock: Callable[[], float]) -> Naps:
        """Wait until all that has been put in so far has gone; raises `DeadlineExceeded`."""
        last = self.store.last_number()
        if self.store.is_waiting(last):
            self.start()
        until = None if timeout is None else clock() + timeout
        nap = _FIRST_LOOK
        while self.store.is_waiting(last):
            if until is not None and clock() >= until:
                raise DeadlineExceeded("not all that is in the outbox was accepted in time")
            yield Nap(nap if until is None else min(nap, max(until - clock(), 0.0)))
            nap = min(nap * 1.5, _LONGEST_LOOK)

    def linger(self, clock: Callable[[], float]) -> Naps:
        """Wait a moment for what has not gone, unless it could not go anyway."""
        running = self._running
        if running is not None:
            flow = self.flush(LINGER, clock)
            with suppress(DeadlineExceeded):
                for nap in flow:
                    if running.forwarder.is_idle or not running.is_alive():
                        return
                    yield nap

    def close(self) -> None:
        """Forward no more until something is put in again; what has not gone stays in the file."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close()
        self.store.close()

    def renew(self) -> None:
        """In a child process: the thread is the parent's."""
        if self._running is not None:
            self._running.forwarder.seat.abandon()
        self._lock, self._running = threading.Lock(), None


class _Running:
    """A forwarder in a thread and on a loop of its own."""

    def __init__(self, spool: Spool, link: Link, clock: Callable[[], float]) -> None:
        self.forwarder = Forwarder(spool.store, link, clock)
        self._spool = spool  # one that was dropped without being closed is closed when the program ends
        self._link = link
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="backwater-outbox", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self.forwarder.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._forward())
        except BackwaterError as error:
            log.error("nothing is forwarded: %s", error)  # noqa: TRY400 - it says what is wrong
        finally:
            self._loop.close()

    async def _forward(self) -> None:
        try:
            await self.forwarder.run()
        finally:
            self._link.close()


_SPOOLS: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()


def _renew_all() -> None:
    for spool in list(_SPOOLS):
        spool.renew()


def _close_all() -> None:
    for spool in list(_SPOOLS):
        for nap in spool.linger(time.monotonic):
            time.sleep(nap.seconds)
        spool.close()


os.register_at_fork(after_in_child=_renew_all)
atexit.register(_close_all)
