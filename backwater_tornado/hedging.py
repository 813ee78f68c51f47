"""Asking again before the first has failed: on a link that swallows all, what was sent then is lost for good.

An attempt that waits for its answer cannot tell a slow link from a dead one, and hears nothing even when the link is
back. So another begins beside it, and the first to end counts; a slow link still has all the time it needs.

Rule: what is asked may be asked several times without harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Between the beginnings of two attempts, seconds; and how many there are at once.
EVERY, MOST = 1.0, 8


async def hedge(begin: Callable[[], Coroutine[Any, Any, T]], wait: float = 0.0) -> T:
    """What the first attempt to end gives, or raises; the others are cancelled.

    Args:
        begin: an attempt.
        wait: how long it may be waited for at the other end, seconds; only then it counts as late.
    """
    attempts: set[asyncio.Task[T]] = set()
    try:
        while True:
            attempts.add(asyncio.ensure_future(begin()))
            patience = wait + EVERY if len(attempts) < MOST else None
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                return each.result()
    finally:
        for each in attempts:
            each.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
