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
        """None is asked for again as long as more comes: it may just not have fitted into the answer."""
        found: dict[str, Result] = {}
        asked, known = ids, -1
        while asked and known < len(found):
            known = len(found)
            found |= {each.id: each for each in await ask_results(self._line, asked) if each is not None}
            asked = [each for each in asked if each not in found]
        return {each: found.get(each) for each in ids}


async def ask_results(line: Line, ids: list[str], wait: float = 0.0) -> list[Result | None]:
    """The last known of each, with `wait` as soon as one is final; one that cannot be fetched has failed by that."""
    try:
        return await line.insist(lambda: asks.results(ids, wait))
    except ResultTooLarge as error:
        if len(ids) == 1:
            return [Result(ids[0], failed(error), True, 0.0)]
    half = len(ids) // 2
    return [*await ask_results(line, ids[:half]), *await ask_results(line, ids[half:])]


def _portions(ids: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(ids), MOST):
        yield ids[begin : begin + MOST]
