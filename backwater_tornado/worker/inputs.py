"""The results that tasks wait for, fetched from the broker for many tasks at a time.

Rule: one request on its way; what comes meanwhile goes with the next one. A result that is not there is None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from backwater_tornado.broker.values import Result
from backwater_tornado.errors import ResultTooLarge
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.outcomes import failed

from .line import Line

W = TypeVar("W")

#: Results in one request.
MOST = 500


class Inputs(Generic[W]):
    """See the head of this module.

    Args:
        ready: called with what was waited for, by id.
    """

    def __init__(self, line: Line, ready: Callable[[W, Mapping[str, Result | None]], None]) -> None:
        self._line = line
        self._ready = ready
        self._wanted: list[tuple[W, Sequence[str]]] = []
        self._news = asyncio.Event()

    def fetch(self, one: W, ids: Sequence[str]) -> None:
        """Call `ready` for this when its results are here."""
        self._wanted.append((one, ids))
        self._news.set()

    async def run(self) -> None:
        """Fetch, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            wanted, self._wanted = self._wanted, []
            found: dict[str, Result | None] = {}
            for portion in _portions(list(dict.fromkeys(each for _, ids in wanted for each in ids))):
                found.update(await self._fetch(portion))
            for one, ids in wanted:
                self._ready(one, {each: found[each] for each in ids})

    async def _fetch(self, ids: list[str]) -> dict[str, Result | None]:
        try:
            found: list[Result | None] = await self._line.insist(lambda: asks.results(ids))
            return dict(zip(ids, found, strict=True))
        except ResultTooLarge as error:
            if len(ids) == 1:
                return {ids[0]: Result(ids[0], failed(error), True, 0.0)}
        half = len(ids) // 2
        return {**await self._fetch(ids[:half]), **await self._fetch(ids[half:])}


def _portions(ids: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(ids), MOST):
        yield ids[begin : begin + MOST]
