"""Hands messages over to the far broker, in the order in which they came.

All that has come together since the last request goes in the next, so requests grow with the round trip. One is on its
way at a time: another beside it might overtake it. It is repeated until it is answered. On a link that is cut every few
seconds only small requests get through, so each failure makes the next one smaller.

Rule: what an answer means is its owner's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice

from backwater_tornado.broker.values import Publication, Published
from backwater_tornado.errors import BodyTooLarge, CallFailed, MalformedBatch, MessageTooLarge
from backwater_tornado.outbox.rules import Room
from backwater_tornado.tasks import asks
from backwater_tornado.worker.line import Line

from .cargo import Away, depart

#: What a request is refused with for something in it.
_BLAMED = (BodyTooLarge, MalformedBatch, MessageTooLarge)


class Outward:
    """See the head of this module.

    Args:
        line: to the far broker.
        told: called with each message and the far broker's answer, or why it can never be taken.
        clock: seconds; the one of `Away.expires`.

    Attributes:
        size: bytes that wait.
    """

    def __init__(
        self, line: Line, told: Callable[[Away, Published | CallFailed], None], clock: Callable[[], float]
    ) -> None:
        self._line, self._told, self._clock = line, told, clock
        self._waiting: dict[int, Away] = {}
        self.size = 0
        self._room = Room()
        self._most = self._room.messages
        self._news = asyncio.Event()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, away: Away) -> None:
        """Hand it over in its turn."""
        self._waiting[away.token] = away
        self.size += _weight(away)
        self._news.set()

    def drop(self, away: Away) -> None:
        """Hand it over no more, unless that was done."""
        if self._waiting.pop(away.token, None) is not None:
            self.size -= _weight(away)

    async def run(self) -> None:
        """Hand over, until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(0)  # what comes in the same turn of the loop goes along
            self._news.clear()
            while self._waiting:
                await self._send()

    async def _send(self) -> None:
        sent: list[Away] = []
        is_first = True

        def ask() -> asks.Ask[list[Published]]:
            nonlocal sent, is_first
            self._room = self._room if is_first else self._room.smaller()
            is_first, sent = False, self._take()
            return asks.publish(self._depart(sent))

        try:
            answers: list[Published | CallFailed] = [*await self._line.insist(ask)]
            self._room = self._room.larger()
        except _BLAMED as error:
            if len(sent) > 1:  # one of them is to blame
                self._most = len(sent) // 2
                return
            answers = [error]
        self._most = self._room.messages
        for away, answer in zip(sent, answers, strict=True):
            if away.token in self._waiting:
                self.drop(away)
                self._told(away, answer)

    def _take(self) -> list[Away]:
        taken: list[Away] = []
        size = 0
        for away in islice(self._waiting.values(), min(self._most, self._room.messages)):
            size += _weight(away)
            if taken and size > self._room.size:
                break
            taken.append(away)
        return taken

    def _depart(self, taken: Iterable[Away]) -> list[Publication]:
        now = self._clock()
        return [depart(away, now) for away in taken]


def _weight(away: Away) -> int:
    assert away.publication is not None
    message = away.publication.message
    return len(message.body) + len(message.headers) + 256
