"""Many callers, one commit: what waits at the same moment shares a transaction.

A sync to disk costs a hundred times what an operation does. So a single thread takes all operations that wait, runs
them in the order of their arrival within one transaction of the store, commits once, and only then gives the answers.
Nobody waits longer than without it: what arrives during a commit is the next transaction.

Rules: an operation that raises has done nothing and disturbs no other; when the commit fails, all of its operations
have failed. What was accepted is done, whether or not its caller still waits for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar

from backwater_tornado.errors import StorageFailed

T = TypeVar("T")

#: Operations that wait at most; further callers wait for room.
LIMIT: Final = 10_000


class Grouping(Protocol):
    """A store that can make one transaction of several operations."""

    def transaction(self) -> AbstractContextManager[None]:
        """All operations in the block; each that raises has done nothing."""
        ...


class _Waiting:
    """An operation, and who waits for it."""

    __slots__ = ("answer", "error", "future", "operation")

    def __init__(self, operation: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.future = future
        self.answer: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.answer = self.operation()
        except BaseException as exc:  # noqa: BLE001 - it is its caller's, whatever it is
            self.error = exc

    def resolve(self) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if self.error is None:
            self.future.set_result(self.answer)
        elif isinstance(self.error, StopIteration):  # which no future takes
            self.future.set_exception(RuntimeError(f"the operation raised {self.error!r}"))
        else:
            self.future.set_exception(self.error)


class GroupCommit:
    """The one thread that writes to a store, for the callers of one event loop.

    Args:
        store: nobody else writes to it while this is open.
        limit: how many operations may wait.
    """

    def __init__(self, store: Grouping, *, limit: int = LIMIT) -> None:
        self._store: Final = store
        self._room: Final = asyncio.Semaphore(limit)
        self._wake: Final = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    async def run(self, operation: Callable[[], T]) -> T:
        """Run an operation of the store; its answer comes when it is committed.

        A caller that is cancelled does not stop it.

        Raises:
            StorageFailed: the commit failed, or this is closed; and whatever the operation raises.
        """
        await self._room.acquire()
        try:
            waiting = _Waiting(operation, self._start().create_future())
        except BaseException:
            self._room.release()
            raise
        with self._wake:
            self._waiting.append(waiting)
            self._wake.notify()
        answer: T = await waiting.future
        return answer

    async def close(self) -> None:
        """Accept nothing more; returns when all that was accepted is answered."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._ended is not None:
            await asyncio.shield(self._ended)

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._closing:
            raise StorageFailed("the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._ended = self._loop.create_future()
            threading.Thread(target=self._write, name="backwater-store", daemon=True).start()
        return self._loop

    def _write(self) -> None:
        while group := self._next_group():
            try:
                with self._store.transaction():
                    for waiting in group:
                        waiting.run()
            except Exception as exc:  # noqa: BLE001 - it is everybody's, whatever it is
                _fail(group, exc)
            self._tell(self._resolve, group)
        self._tell(self._end)

    def _next_group(self) -> list[_Waiting]:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            group = list(self._waiting)
            self._waiting.clear()
            return group

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop was closed: there is nobody left to be told
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _resolve(self, group: list[_Waiting]) -> None:
        for waiting in group:
            self._room.release()
            waiting.resolve()

    def _end(self) -> None:
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(None)


def _fail(group: list[_Waiting], exc: Exception) -> None:
    for waiting in group:
        if waiting.error is None:
            error = exc if isinstance(exc, StorageFailed) else StorageFailed(f"the transaction has failed: {exc}")
            waiting.error = StorageFailed(*error.args)
            waiting.error.__cause__ = exc
