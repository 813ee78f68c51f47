"""Ours with coroutines, which the worker runs on its loop."""

from __future__ import annotations

import backwater_tornado as backwater
from queue_rivals.contract import Blocking, run
from queue_rivals.ours import app


@backwater.expose
async def noop() -> int:
    """The task."""
    return run()


def producer() -> Blocking:
    """The producer."""
    return Blocking(
        send=noop.delay,
        send_many=lambda count: app.send_many([noop.s() for _ in range(count)]),
        wait=lambda result: result.get(timeout=30),
        ready=lambda result: bool(result.ready()),
    )
