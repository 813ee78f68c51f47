"""What goes on side by side on a loop until it is told to stop, and its end.

Rule: knows neither what the services do nor why they stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from backwater_tornado.errors import CallFailed

from .consumer import Consumer

#: How long the last words to a broker may take, seconds.
LAST_WORDS = 5.0


@contextlib.asynccontextmanager
async def serving(
    services: Sequence[Callable[[], Coroutine[Any, Any, None]]], stopping: asyncio.Event
) -> AsyncIterator[None]:
    """Run services until `stopping` is set; they go on within the block, which may have last words, and end with it."""
    running = [asyncio.ensure_future(service()) for service in services]
    stop = asyncio.ensure_future(stopping.wait())
    try:
        done, _ = await asyncio.wait([*running, stop], return_when=asyncio.FIRST_COMPLETED)
        for ended in done - {stop}:
            ended.result()  # only by a fault of this package: raise it
        yield
    finally:
        for each in (*running, stop):
            each.cancel()
        await asyncio.gather(*running, stop, return_exceptions=True)


async def close_session(consumer: Consumer) -> None:
    """Have the broker take back at once what is held, if it can be told."""
    with contextlib.suppress(TimeoutError, CallFailed):
        async with asyncio.timeout(LAST_WORDS):
            await consumer.close()
