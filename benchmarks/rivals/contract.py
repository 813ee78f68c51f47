"""What a variant is: a way to serve `add` and `echo`, and a way to call them, blocking or awaitable.

Rule: a variant does the same work as every other. `add(1, 2)` gives 3, `echo` gives an object equal to what was sent,
and each is a real call from one process to another. What differs is only how it travels.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

Face = Literal["blocking", "awaitable"]


@dataclass(frozen=True)
class Blocking:
    """A caller's two calls. `echoed` is what `echo` must give back."""

    add: Callable[[], object]
    echo: Callable[[], object]
    echoed: object
    close: Callable[[], object]


@dataclass(frozen=True)
class Awaiting:
    """The same for asyncio; made once and used by every task of the process."""

    add: Callable[[], Awaitable[object]]
    echo: Callable[[], Awaitable[object]]
    echoed: object
    close: Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Variant:
    """One way to call.

    Args:
        about: what it is, for the table's legend.
        serve: serves on 127.0.0.1 at that port, for ever.
        blocking: connects a caller; called in the thread that will use it.
        awaitable: connects all callers of the process; exactly one of `blocking` and `awaitable` is given.
        shared: the library's own way with threads is one connection object for all of them.
        uvloop: its processes run on uvloop's event loop.
        cases: what it can be asked.
        ours: it is the library under test.
    """

    about: str
    serve: Callable[[int], None]
    blocking: Callable[[str, int, dict[str, Any]], Blocking] | None = None
    awaitable: Callable[[str, int, dict[str, Any]], Awaitable[Awaiting]] | None = None
    shared: bool = False
    uvloop: bool = False
    cases: tuple[str, ...] = ("add", "echo")
    ours: bool = False

    @property
    def face(self) -> Face:
        """Threads or tasks."""
        return "blocking" if self.blocking is not None else "awaitable"
