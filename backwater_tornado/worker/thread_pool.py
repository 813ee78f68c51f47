"""Plain functions in threads.

A thread cannot be ended from outside. What runs in it is interrupted where it runs Python code (`interrupts`); one that
sits in C, a long sleep say, is left behind, and another thread takes its place.

Rule: knows no time and counts nothing; `pools` does.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from functools import partial
from typing import Any

from backwater_tornado.broker.values import Outcome
from backwater_tornado.errors import SoftTimeLimitExceeded
from backwater_tornado.threads import ThreadPool

from .execution import run_job
from .interrupts import Interruptible, Stopped
from .jobs import Ending
from .pools import Run


class Threads:
    """A `Place` for plain functions: at most `size` threads, and those that are left behind."""

    def __init__(self, size: int) -> None:
        self._threads = ThreadPool(size, asyncio.get_running_loop(), "backwater-task")
        self._calls: dict[Run, Interruptible] = {}

    def begin(self, run: Run) -> None:
        """See `Place`."""
        call = self._calls[run] = Interruptible()
        run.begun()
        self._threads.submit(partial(self._run, run, call), partial(self._end, run))

    def _run(self, run: Run, call: Interruptible) -> Ending:
        """In a thread."""

        def tell(token: int, outcome: Outcome) -> None:
            call.shield(self._threads.hand_over, run.say, outcome)

        return Context().run(run_job, run.function, run.job, tell, call.call)

    def _end(self, run: Run, ending: Ending) -> None:
        del self._calls[run]
        run.end(ending)

    def warn(self, run: Run) -> None:
        """See `Place`."""
        self._calls[run].interrupt(SoftTimeLimitExceeded)

    def interrupt(self, run: Run) -> None:
        """See `Place`."""
        self._calls[run].interrupt(Stopped)

    def abandon(self, run: Run) -> str:
        """See `Place`."""
        self._threads.grow()
        return self._calls[run].where()

    def about(self) -> dict[str, Any]:
        """See `Place`."""
        return {}

    async def close(self) -> None:
        """See `Place`."""
        self._threads.close()
