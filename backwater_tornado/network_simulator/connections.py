"""One client's connection, with those to the server that belong to it; and `relay`, which joins two, byte by byte.

Rule: every socket belongs to an `End` from its first moment, and every end to a connection until it is over: whatever
is cancelled meanwhile, the connection can close them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .paths import End, Fate, Path, Sink, Way


class Link:
    """What all connections share: both ways, and where the server is."""

    def __init__(self, up: Way, down: Way, upstream: tuple[str, int]) -> None:
        self.up, self.down, self.upstream = up, down, upstream


class Connection:
    """See the head of this module.

    Args:
        number: counts connections from 0.
        over: called when it is over.

    Attributes:
        client: the client's end.
        down: the way to the client.
    """

    def __init__(self, link: Link, number: int, over: Callable[[Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.number = number
        self._link, self._over = link, over
        self._fate = Fate(self._loop.time() + 2 * link.up.conditions.delay, is_lost=link.up.is_dead)
        self._task: asyncio.Task[None] | None = None
        self.client = self.new_end()
        self._ends = {self.client}
        self.down = Path(link.down, self._fate, self.client)

    def new_end(self) -> End:
        """An end that is to be connected."""
        return End(self._lost)

    def feed(self, target: Sink) -> None:
        """Have what the client sends come out there."""
        self.client.onward = self._up = Path(self._link.up, self._fate, target)

    def work(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this until the connection is over."""
        self._task = self._loop.create_task(work)
        return self._task

    async def connect(self, end: End) -> None:
        """Connect to the server, when the client's first bytes could be there; raises `OSError`."""
        await asyncio.sleep(self._fate.opens + self._link.up.conditions.delay - self._loop.time())
        if self._fate.is_lost:
            await asyncio.Event().wait()
        self._ends.add(end)
        try:
            await self._loop.create_connection(lambda: end, *self._link.upstream)
        except BaseException:
            self._lost(end)
            raise

    def let_out(self) -> None:
        """Pass on what was held back."""
        self._up.let_out()
        self.down.let_out()

    def cut(self, *, reset: bool) -> None:
        """End it at once, on both sides."""
        for end in list(self._ends):
            end.abort(reset=reset)
        if self._task is not None:
            self._task.cancel()

    def forget(self, *, client: bool) -> None:
        """End it at once on one side, of which the other hears nothing."""
        self._fate.is_lost = True
        for end in list(self._ends):
            if (end is self.client) is client:
                end.abort()

    def _lost(self, end: End) -> None:
        self._ends.discard(end)
        if not self._ends:
            if self._task is not None:
                self._task.cancel()
            self._over(self)


def relay(connection: Connection) -> Coroutine[Any, Any, None]:
    """Join a client and the server, whatever they say to each other."""
    server = connection.new_end()
    server.onward = connection.down
    connection.feed(server)
    return _join(connection, server)


async def _join(connection: Connection, server: End) -> None:
    try:
        await connection.connect(server)
    except OSError:
        connection.down.end(reset=True)
