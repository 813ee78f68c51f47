"""The contract of an outbox, and what every kind of it does in the same way.

Rules:

* What `put` has returned from is kept, whatever ends the process. Threads that put something at the same moment share a
  commit: the first writes for all who wait.
* Order. What was put in before something else is sent has the lower number, and `reader` gives it first.
* A forwarder has the `seat`; one at a time has it.
* Connections must not cross a fork, and are opened again when they are next used.

What the rows mean is in `sqlite_rows` and `postgres_rows`; failures of the medium are `StorageFailed`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from backwater_tornado.errors import OutboxFull, StorageFailed

from .amounts import Bounds, Status
from .parcels import Kept, Parcel, Place, Taken

T = TypeVar("T")
#: A connection.
D = TypeVar("D")
_Given = TypeVar("_Given", contravariant=True)


class Seat(Protocol):
    """The one seat of a forwarder; `fd` is readable when the bell has rung, while it is taken."""

    fd: int

    def take(self) -> bool:
        """Take it, unless another has it; raises `ConfigurationError`, `StorageFailed`."""
        ...

    def hush(self) -> bool:
        """Hear all that has rung so far as one; gives whether the seat is still taken."""
        ...

    def leave(self) -> None:
        """Another may have it."""
        ...

    def abandon(self) -> None:
        """In a child process: it is the parent's."""
        ...


class Rows(Protocol[_Given]):
    """What is done with the tables, within a transaction of somebody else's; a module of functions."""

    def take(self, db: _Given, numbers: Iterable[int], now: float) -> list[Taken]:
        """Parcels that are about to be forwarded, marked as that; what has been dropped is left out."""
        ...

    def keep(self, db: _Given, refused: Iterable[Kept]) -> None:
        """Keep what was refused, each once."""
        ...

    def remove(self, db: _Given, numbers: Iterable[int]) -> int:
        """Parcels have gone; gives how many were there."""
        ...

    def drop(self, db: _Given, ids: Sequence[str]) -> int:
        """Forget what waits or was refused, by the id of its first message; gives how many were there."""
        ...

    def drop_refused(self, db: _Given) -> int:
        """Forget all that was refused; gives how many there were."""
        ...

    def last_number(self, db: _Given) -> int:
        """The highest number of what is there, or was."""
        ...

    def is_waiting(self, db: _Given, until: int) -> bool:
        """Whether anything up to this number waits."""
        ...

    def status(self, db: _Given) -> Status:
        """How much there is."""
        ...

    def waiting(self, db: _Given, after: int, limit: int) -> list[Taken]:
        """Parcels that wait behind a number, in order."""
        ...

    def refused(self, db: _Given, limit: int) -> list[Kept]:
        """What was refused, oldest first."""
        ...


class _Waiting:
    """What one caller puts in, and what came of it."""

    __slots__ = ("dropped", "ended", "error", "parcels")

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self.parcels = parcels
        self.ended = False
        self.dropped = 0
        self.error: Exception | None = None


class OutboxStore(Generic[D]):
    """See the head of this module.

    Args:
        name: what it is called where people read of it.
        rows: what is done with its tables.
        bounds: how much it holds.
    """

    def __init__(self, name: str, rows: Rows[D], bounds: Bounds) -> None:
        self.name: Final = name
        self._rows: Final = rows
        self.bounds: Final = bounds
        self.lock: Final = threading.Lock()
        self._read_lock: Final = threading.Lock()
        self._line: Final[deque[_Waiting]] = deque()
        _OPEN.add(self)

    #: What the medium raises when it fails.
    _failures: ClassVar[tuple[type[Exception], ...]]

    # What a kind of store does in its own way

    @abstractmethod
    def seat(self) -> Seat:
        """A forwarder's seat here, not taken."""

    @abstractmethod
    def reader(self) -> Callable[[int], list[Place]]:
        """Gives what waits, so many at most with each call, in order; each parcel once."""

    @abstractmethod
    def _insert(self, db: D, parcels: Sequence[Parcel]) -> int:
        """Put parcels at the end; gives how many messages were dropped. Raises `OutboxFull`, and has done nothing."""

    @abstractmethod
    def _ring(self) -> None:
        """Wake the forwarder, if there is one."""

    @abstractmethod
    def _transaction(self, *, durable: bool) -> AbstractContextManager[D]:
        """A block within a transaction that is kept when it ends, on disk if that is wished."""

    @abstractmethod
    def _reading(self) -> D:
        """The connection to read with."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _part(self, *, child: bool) -> None:
        """Before a fork, and then in the child: leave no connection to both."""

    # Sending

    def put(self, parcels: Sequence[Parcel]) -> int:
        """Put parcels in, all or none; they are kept when this returns. Gives how many messages were dropped for it.

        Raises:
            OutboxFull: there is no room for all of them.
            StorageFailed: the medium has failed, or others were writing for too long.
        """
        waiting = _Waiting(parcels)
        self._line.append(waiting)
        with self.lock:
            if not waiting.ended:
                self._put_all()
        if waiting.error is not None:
            raise waiting.error
        self._ring()
        return waiting.dropped

    def _put_all(self) -> None:
        """Commit for all who wait."""
        group: list[_Waiting] = []
        with contextlib.suppress(IndexError):
            while True:
                group.append(self._line.popleft())
        try:
            with self._transaction(durable=True) as db:
                for each in group:
                    try:
                        each.dropped = self._insert(db, each.parcels)
                    except OutboxFull as error:
                        each.error = error
        except Exception as exc:  # noqa: BLE001 - it is everybody's, whatever it is
            for each in group:
                each.error = StorageFailed(str(exc))
                each.error.__cause__ = exc
        finally:
            for each in group:
                each.ended = True

    # Forwarding

    def take(self, numbers: Iterable[int], now: float) -> list[Taken]:
        """See `Rows.take`."""
        return self._write(lambda db: self._rows.take(db, numbers, now))

    def keep(self, refused: Iterable[Kept]) -> None:
        """See `Rows.keep`."""
        self._write(lambda db: self._rows.keep(db, refused))

    def remove(self, numbers: Iterable[int]) -> int:
        """See `Rows.remove`."""
        return self._write(lambda db: self._rows.remove(db, numbers))

    # Looking

    def last_number(self) -> int:
        """See `Rows.last_number`."""
        return self.read(self._rows.last_number)

    def is_waiting(self, until: int) -> bool:
        """See `Rows.is_waiting`."""
        return self.read(lambda db: self._rows.is_waiting(db, until))

    def status(self) -> Status:
        """See `Rows.status`."""
        return self.read(self._rows.status)

    def waiting(self, after: int, limit: int) -> list[Taken]:
        """See `Rows.waiting`."""
        return self.read(lambda db: self._rows.waiting(db, after, limit))

    def refused(self, limit: int) -> list[Kept]:
        """See `Rows.refused`."""
        return self.read(lambda db: self._rows.refused(db, limit))

    def drop(self, ids: Sequence[str]) -> int:
        """See `Rows.drop`."""
        return self._write(lambda db: self._rows.drop(db, ids))

    def drop_refused(self) -> int:
        """See `Rows.drop_refused`."""
        return self._write(self._rows.drop_refused)

    def close(self) -> None:
        """Close the connections; they are opened again when it is used again."""
        with self.lock, self._read_lock:
            self._disconnect()

    def _write(self, work: Callable[[D], T]) -> T:
        try:
            with self.lock, self._transaction(durable=False) as db:
                return work(db)
        except self._failures as exc:
            raise self._failed_by(exc) from exc

    def read(self, work: Callable[[D], T]) -> T:
        try:
            with self._read_lock:
                return work(self._reading())
        except self._failures as exc:
            raise self._failed_by(exc) from exc

    def _failed_by(self, exc: Exception) -> StorageFailed:
        return StorageFailed(f"the outbox {self.name!r} cannot do it now: {exc}")

    # Forks

    def before_fork(self) -> None:
        """Wait until nobody uses the connections."""
        self.lock.acquire()
        self._read_lock.acquire()
        self._part(child=False)

    def after_fork(self, *, child: bool) -> None:
        """Go on; whoever waited in another thread is not in a child."""
        if child:
            self._line.clear()
            self._part(child=True)
        self._read_lock.release()
        self.lock.release()


_OPEN: Final[weakref.WeakSet[OutboxStore[Any]]] = weakref.WeakSet()
_forking: list[OutboxStore[Any]] = []


def _before_fork() -> None:
    _forking[:] = _OPEN
    for store in _forking:
        store.before_fork()


def _after_fork(**child: Any) -> None:
    for store in _forking:
        store.after_fork(**child)
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(child=False),
    after_in_child=lambda: _after_fork(child=True),
)
