"""Whose results are asked for along with one that is waited for.

Programs send many tasks and then ask for one result after the other, over a link on which every question takes a round
trip. So a question for one asks for some others, too: of tasks that were sent before and whose handles somebody still
has, the oldest first. What has ended is kept in its handle until it is asked for.

How many others: more when most of them have ended, fewer when most have not, as ids cost bytes.

Rule: pure. What is not final is as if it had not been asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final, Protocol
from weakref import WeakValueDictionary

from backwater_tornado.broker.values import Result

#: Asked for at a time: at first, at least, and at most.
FIRST: Final = 16
FEWEST: Final = 4
MOST: Final = 400


class Companion(Protocol):
    """The handle of one task."""

    id: str
    #: Its final result, where it came along with another's.
    known: Result | None


class Companions:
    """Of one application. Safe across threads: at worst something is asked for twice."""

    def __init__(self) -> None:
        self._waiting: WeakValueDictionary[str, Companion] = WeakValueDictionary()
        self._size = FIRST

    def add(self, handle: Companion) -> None:
        """It was sent, and its result may be asked for."""
        self._waiting[handle.id] = handle

    def take(self, handle: Companion) -> Result | None:
        """It is asked for now; gives its result, if that came along with another's, once."""
        self._waiting.pop(handle.id, None)
        known, handle.known = handle.known, None
        return known

    def choose(self) -> list[str]:
        """The ids to ask for along with one that was taken."""
        try:
            return list(islice(self._waiting, self._size))
        except RuntimeError:  # another thread sends, or asks, right now
            return []

    def note(self, asked: Sequence[str], answers: Sequence[Result | None]) -> None:
        """What came along for those that were chosen."""
        if not asked:
            return
        final = [answer for answer in answers if answer is not None and answer.final]
        for answer in final:
            handle = self._waiting.pop(answer.id, None)
            if handle is not None:
                handle.known = answer
        if len(final) * 4 < len(asked):
            self._size = max(self._size // 2, FEWEST)
        elif len(final) * 2 >= len(asked):
            self._size = min(self._size * 4, MOST)
