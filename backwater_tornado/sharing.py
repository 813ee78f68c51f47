"""Threads that send at the same moment share requests: what comes while a request is under way is the next request.

Nobody waits for company: who finds nothing under way sends at once. When it comes back, the first of those who wait by
then sends for all of them. So with one caller nothing changes, and sixteen share the cost of a request and of a sync.

A request that takes long, on a link that is down say, holds the others up for no longer than their patience: then they
send without it, and so does everybody when the thread that was to send was interrupted.

Rule: it does not know what is sent. When sending together fails, each sends its own alone, for its own error; so
sending must be repeatable.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

#: How long one waits for a request that is under way, seconds.
PATIENCE: Final = 2.0


class _Waiting(Generic[T]):
    """What one thread wants sent."""

    __slots__ = ("items", "leads", "sent", "woken")

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.woken = threading.Event()
        #: It is to send for all that wait.
        self.leads = False
        self.sent = False


class Sharing(Generic[T]):
    """The senders of one application, in any threads, before and after a fork.

    Args:
        send: sends items, or raises; may be repeated with the same ones.
        most: items sent together, at most; who has more sends alone.
        patience: seconds.
    """

    def __init__(self, send: Callable[[Sequence[T]], None], most: int, patience: float = PATIENCE) -> None:
        self._send = send
        self._most = most
        self._patience = patience
        self.begin()
        _ALL.add(self)

    def begin(self) -> None:
        """Nobody sends: at first, and in a child, where the threads of its parent are not."""
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[T]] = []
        self._busy = False

    def send(self, items: Sequence[T]) -> None:
        """Send them; raises what `send` raises for these."""
        mine = _Waiting(items)
        with self._lock:
            leads = not self._busy
            self._busy = True
            if not leads:
                self._waiting.append(mine)
        if not leads:
            self._wait(mine)
        if leads or mine.leads:
            self._lead(mine)
        if not mine.sent:
            self._send(items)

    def _wait(self, mine: _Waiting[T]) -> None:
        try:
            if not mine.woken.wait(self._patience):
                self._lose_patience(mine)
        except BaseException:  # an interrupt: nobody may count on this thread
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
            if mine.leads:
                self._pass_on()
            raise

    def _lose_patience(self, mine: _Waiting[T]) -> None:
        """Lead whoever waits; one that was taken along by another sends its own once more."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                mine.leads = True

    def _lead(self, mine: _Waiting[T]) -> None:
        """Send for whoever waits, then let the next one lead."""
        group = [mine]
        try:
            group += self._take(self._most - len(mine.items))
            if len(group) > 1:
                self._send([item for one in group for item in one.items])
            else:
                self._send(mine.items)
            for one in group:
                one.sent = True
        except Exception:
            if len(group) == 1:
                raise
        finally:
            self._pass_on()
            for one in group[1:]:
                one.woken.set()

    def _take(self, room: int) -> list[_Waiting[T]]:
        taken = []
        with self._lock:
            while self._waiting and len(self._waiting[0].items) <= room:
                taken.append(self._waiting.pop(0))
                room -= len(taken[-1].items)
        return taken

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                following = self._waiting.pop(0)
                following.leads = True
                following.woken.set()
            else:
                self._busy = False


_ALL: Final[weakref.WeakSet[Sharing[Any]]] = weakref.WeakSet()


def _after_fork() -> None:
    for sharing in list(_ALL):
        sharing.begin()


os.register_at_fork(after_in_child=_after_fork)
