"""Where tasks run: so many at once, each within its time, each ended exactly once.

Rule: whatever happens to a run, `done` is called for it once, on the loop. How a run ends that was stopped is said
here, alike for threads, processes and the loop; what they differ in is behind `Pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from backwater_tornado.broker.values import Outcome
from backwater_tornado.exposure import Function

from .jobs import Ending, Job, Stop

#: Called on the loop.
Done = Callable[[Job, Ending], None]
Tell = Callable[[Job, Outcome], None]


class Pool(Protocol):
    """What a worker gives its jobs to; everything is called on its loop."""

    @property
    def size(self) -> int:
        """How many run at once; more than that wait here for their turn."""
        ...

    def start(self, job: Job, function: Function, done: Done, tell: Tell) -> None:
        """Run it: `done` is called once, with how it ended; `tell` before that, as often as it tells of its progress.

        Neither is called before this returns.
        """
        ...

    def stop(self, token: int, why: Stop) -> None:
        """End a run before its end; `done` comes as soon as it has ended, or when it did not within a moment.

        A token that is not known (any more) does nothing.
        """
        ...

    async def close(self, grace: float) -> None:
        """Wait so many seconds for what runs; the rest is stopped, what waits ends as RETURN at once.

        Every run has ended when this returns.
        """
        ...

    def about(self) -> Mapping[str, Any]:
        """For people: kind, size, what runs since when and where, what waits, processes; a value of JSON."""
        ...
