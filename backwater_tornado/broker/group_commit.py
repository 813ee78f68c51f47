"""Many callers, one commit: what waits at the same moment shares a transaction.

A sync to disk costs a hundred times what an operation does. So all operations that wait are run in the order of their
arrival within one transaction of the store, which is committed once, and only then they have their answers. Nobody
waits longer than without it: what arrives during a commit is the next transaction.

Waking a thread and being woken by it takes longer than a small transaction on a good disk. So a transaction runs on
the loop itself as long as the last one was quick, and in a thread when that was not: on a slow disk, and where many
operations come, the loop goes on meanwhile.

Rules: an operation that raises has done nothing and disturbs no other; when the commit fails, all of its operations
have failed. What was accepted is done, whether or not its caller still waits for the answer. One transaction at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar

from backwater_tornado.errors import StorageFailed

T = TypeVar("T")

#: Operations that wait at most; further callers wait for room.
LIMIT: Final = 10_000
#: A transaction of so many seconds holds up the loop for no longer than a larger request does.
QUICK: Final = 0.005


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
    """Who writes to a store, for the callers of one event loop.

    Args:
        store: nobody else writes to it while this is open.
        limit: how many operations may wait.
        quick: a transaction that takes no longer, in seconds, may hold up the loop.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: Grouping,
        *,
        limit: int = LIMIT,
        quick: float = QUICK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store: Final = store
        self._room: Final = asyncio.Semaphore(limit)
        self._quick: Final = quick
        self._clock: Final = clock
        self._waiting: list[_Waiting] = []
        self._thread: Final = ThreadPoolExecutor(1, "backwater-store")
        #: What the last transaction took, seconds.
        self._took = float("inf")
        #: A turn is due, or a transaction goes on.
        self._busy = False
        self._idle: Final = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def run(self, operation: Callable[[], T]) -> T:
        """Run an operation of the store; its answer comes when it is committed.

        A caller that is cancelled does not stop it.

        Raises:
            StorageFailed: the commit failed, or this is closed; and whatever the operation raises.
        """
        await self._room.acquire()
        if self._closing:
            self._room.release()
            raise StorageFailed("the store is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(operation, loop.create_future())
        self._waiting.append(waiting)
        self._idle.clear()
        if not self._busy:
            self._busy = True
            loop.call_soon(self._turn, loop)  # what else comes in this turn of the loop goes along
        answer: T = await waiting.future
        return answer

    async def close(self) -> None:
        """Accept nothing more; returns when all that was accepted is answered."""
        self._closing = True
        await self._idle.wait()
        self._thread.shutdown(wait=False)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a transaction of all that waits."""
        group, self._waiting = self._waiting, []
        if self._took <= self._quick:
            self._commit(group)
            self._end(loop, group)
        else:
            self._thread.submit(self._commit, group).add_done_callback(lambda _: _tell(loop, self._end, loop, group))

    def _commit(self, group: list[_Waiting]) -> None:
        began = self._clock()
        try:
            with self._store.transaction():
                for waiting in group:
                    waiting.run()
        except Exception as exc:  # noqa: BLE001 - it is everybody's, whatever it is
            _fail(group, exc)
        self._took = self._clock() - began

    def _end(self, loop: asyncio.AbstractEventLoop, group: list[_Waiting]) -> None:
        for waiting in group:
            self._room.release()
            waiting.resolve()
        if self._waiting:
            loop.call_soon(self._turn, loop)
        else:
            self._busy = False
            self._idle.set()


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: there is nobody left to be told
        loop.call_soon_threadsafe(callback, *arguments)


def _fail(group: list[_Waiting], exc: Exception) -> None:
    for waiting in group:
        if waiting.error is None:
            error = exc if isinstance(exc, StorageFailed) else StorageFailed(f"the transaction has failed: {exc}")
            waiting.error = StorageFailed(*error.args)
            waiting.error.__cause__ = exc
