"""Short words to the far broker about many messages: that they are cancelled, that their outcomes may be forgotten.

Rule: one request on its way; what comes meanwhile goes with the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.flows import MAX_IDS
from backwater_tornado.worker.line import Line


class Errand:
    """See the head of this module.

    Args:
        make: what to say of these ids.
    """

    def __init__(self, line: Line, make: Callable[[list[str]], Ask[None]]) -> None:
        self._line, self._make = line, make
        self._ids: list[str] = []
        self._news = asyncio.Event()

    def add(self, id: str) -> None:
        """Say it of this one."""
        self._ids.append(id)
        self._news.set()

    async def run(self) -> None:
        """Say it, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._ids:
                said, self._ids = self._ids[:MAX_IDS], self._ids[MAX_IDS:]
                await self._line.insist(lambda: self._make(said))  # noqa: B023 - awaited here
