"""Interrupting a function that runs: an exception is raised in it, and in nothing of ours around it.

In Python code an exception comes at once; a call into C (a sleep, a read, a long computation) has to return first.

Rule: what is interrupted is one call; after its end nothing is raised any more, however late the interruption comes.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import sys
import threading
import traceback
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any

from backwater_tornado.errors import SoftTimeLimitExceeded


class Stopped(BaseException):
    """Raised in a plain function that is stopped before its end: let it pass, `finally` is there for tidying up."""


class Interruptible:
    """One call of a plain function; it can be interrupted as soon as this is made."""

    __slots__ = ("_early", "_lock", "_over", "_shielded", "_thread")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The thread that is in the function now.
        self._thread: int | None = None
        self._over = False
        #: What came before the function was called, or while it was shielded.
        self._early: type[BaseException] | None = None
        self._shielded = False

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """`function(*args, **kwargs)`."""
        # An interruption may come at any line from here on, and be it one of those below.
        try:
            with self._lock:
                self._thread = threading.get_ident()
            if self._early is not None:
                raise self._early
            return function(*args, **kwargs)
        finally:
            while not self._over:
                try:
                    with self._lock:  # leaving it is a call, in which what was asked for by now is raised at last
                        self._thread = None
                        self._over = True
                except (Stopped, SoftTimeLimitExceeded):
                    continue

    def shield(self, function: Callable[..., Any], *args: Any) -> None:
        """`function(*args)`, called by the function that may be interrupted, which it is not in the middle of that."""
        if threading.get_ident() != self._thread:
            function(*args)
            return
        try:
            with self._lock:  # as in `call`: what was asked for by now is raised before this is left
                self._shielded = True
            function(*args)
        finally:
            with self._lock:
                self._shielded = False
                early, self._early = self._early, None
        if early is not None:
            raise early

    def interrupt(self, kind: type[BaseException]) -> None:
        """Raise it in the function, from another thread; nothing happens when that has ended."""
        with self._lock:
            if self._thread is not None and not self._shielded:
                thread, raised = ctypes.c_ulong(self._thread), ctypes.py_object(kind)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, raised)
            else:
                self._early = kind

    def interrupt_here(self, kind: type[BaseException]) -> None:
        """Raise it, from a handler of signals in the very thread that runs the function."""
        if self._thread is not None and not self._shielded:
            raise kind
        self._early = kind

    def where(self) -> str:
        """What the function is doing, as a traceback; empty when it does not run."""
        frame = None if self._thread is None else sys._current_frames().get(self._thread)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])


#: Frames of an abandoned function that are worth a line in the log.
_FRAMES = 12


class _SoftlyCancelled(SoftTimeLimitExceeded, asyncio.CancelledError):
    """What a coroutine is given at its soft limit. To whatever it awaits, a TaskGroup say, that is a cancellation."""


class Awaited:
    """One await of an awaitable, which may be told that its soft limit has passed."""

    __slots__ = ("_inner", "_soft", "_task")

    def __init__(self) -> None:
        self._inner: Coroutine[Any, Any, Any] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._soft = False

    def warn(self) -> None:
        """Raise `SoftTimeLimitExceeded` in it, where it waits, or as soon as it begins."""
        self._soft = True
        if self._task is not None:
            self._task.cancel()

    async def run(self, awaitable: Awaitable[Any]) -> Any:
        """Await it."""
        self._task = asyncio.current_task()
        self._inner = awaitable if inspect.iscoroutine(awaitable) else _awaiting(awaitable)
        try:
            return await self._step(self._inner)
        finally:
            self._task = None

    def where(self) -> str:
        """Where it waits, as a traceback."""
        lines: list[str] = []
        inner: Any = self._inner
        while inspect.iscoroutine(inner) and inner.cr_frame is not None:
            lines += traceback.format_stack(inner.cr_frame, limit=1)
            inner = inner.cr_await
        return "".join(lines[-_FRAMES:])

    @types.coroutine
    def _step(self, inner: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = inner.throw if self._soft else inner.send
        given: Any = SoftTimeLimitExceeded() if self._soft else None
        self._soft = False
        while True:
            try:
                waits_for = step(given)
            except StopIteration as returned:
                return returned.value
            try:
                given = yield waits_for
                step = inner.send
            except BaseException as raised:  # noqa: BLE001 - all of it is for the coroutine
                step, given = inner.throw, self._translated(raised)

    def _translated(self, raised: BaseException) -> BaseException:
        if not self._soft or not isinstance(raised, asyncio.CancelledError):
            return raised
        self._soft = False
        assert self._task is not None
        self._task.uncancel()
        return _SoftlyCancelled()


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
