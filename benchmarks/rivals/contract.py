"""What a variant is: a way to serve `add` and `echo`, and a way to call them, blocking or awaitable.

Rule: a variant does the same work as every other. `add(1, 2)` gives 3, `echo` gives an object equal to what was sent,
and each is a real call from one process to another. What differs is only how it travels.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: The payloads, different from each other, see payload.py.
Pages = Sequence[dict[str, Any]]
Face = Literal["blocking", "awaitable"]


@dataclass(frozen=True)
class Blocking:
    """A caller's two calls. `pages` is what to give to `echo`, in the form that the library wants."""

    add: Callable[[], object]
    echo: Callable[[Any], object]
    pages: Sequence[Any]
    close: Callable[[], object]


@dataclass(frozen=True)
class Awaiting:
    """The same for asyncio; made once and used by every task of the process."""

    add: Callable[[], Awaitable[object]]
    echo: Callable[[Any], Awaitable[object]]
    pages: Sequence[Any]
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
    blocking: Callable[[str, int, Pages], Blocking] | None = None
    awaitable: Callable[[str, int, Pages], Awaitable[Awaiting]] | None = None
    shared: bool = False
    uvloop: bool = False
    cases: tuple[str, ...] = ("add", "echo")
    ours: bool = False

    @property
    def face(self) -> Face:
        """Threads or tasks."""
        return "blocking" if self.blocking is not None else "awaitable"
