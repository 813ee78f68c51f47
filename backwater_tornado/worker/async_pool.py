"""Coroutine functions on the worker's own loop.

They share it with the worker, so one that computes for long, or waits without `await`, holds up everything.

Rule: knows no time and counts nothing; `pools` does.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from backwater_tornado.broker.values import Outcome

from .execution import run_job_on_loop
from .interrupts import Awaited
from .jobs import End, Ending
from .pools import Run


class Coroutines:
    """A `Place` for coroutine functions."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[Run, tuple[asyncio.Task[Ending], Awaited]] = {}

    def begin(self, run: Run) -> None:
        """See `Place`."""

        def tell(token: int, outcome: Outcome) -> None:
            self._loop.call_soon_threadsafe(run.say, outcome)  # a task may tell from a thread of its own

        awaited = Awaited()
        run.begun()
        task = self._loop.create_task(run_job_on_loop(run.function, run.job, tell, awaited.run))
        self._tasks[run] = task, awaited
        task.add_done_callback(partial(self._end, run))

    def _end(self, run: Run, task: asyncio.Task[Ending]) -> None:
        del self._tasks[run]
        # Cancelled before its first step, it has never been there.
        run.end(Ending(End.RETURN) if task.cancelled() else task.result())

    def warn(self, run: Run) -> None:
        """See `Place`."""
        self._tasks[run][1].warn()

    def interrupt(self, run: Run) -> None:
        """See `Place`."""
        self._tasks[run][0].cancel()

    def abandon(self, run: Run) -> str:
        """See `Place`."""
        return self._tasks[run][1].where()

    def about(self) -> dict[str, Any]:
        """See `Place`."""
        return {}

    async def close(self) -> None:
        """See `Place`."""
