"""How a broker asks its store: one operation at once, or many together in one transaction.

Rule: neither knows what an operation does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from .group_commit import QUICK, GroupCommit, Grouping
from .store import Store

T = TypeVar("T")


class Performer(Protocol):
    """Runs operations on a store: at once (`Direct`), or many together in one transaction (`Grouped`)."""

    def perform(self, operation: Callable[[Store], T]) -> Awaitable[T]:
        """The operation's result once it is durable; raises what it raised, or `StorageFailed`."""
        ...

    def look(self, question: Callable[[Store], T]) -> T:
        """What is committed by now; for short questions that change nothing. Waits for nobody who writes."""
        ...

    async def close(self) -> None:
        """Finish what was begun, and close the store."""
        ...


class GroupedStore(Store, Grouping, Protocol):
    """A store that can make one transaction of several operations."""


class Direct:
    """A `Performer` for a store in memory: each operation at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def perform(self, operation: Callable[[Store], T]) -> T:
        """See `Performer`."""
        return operation(self._store)

    def look(self, question: Callable[[Store], T]) -> T:
        """See `Performer`."""
        return question(self._store)

    async def close(self) -> None:
        """See `Performer`."""
        self._store.close()


class Grouped:
    """A `Performer` for a store on disk: what waits at the same moment shares a transaction, see `group_commit`."""

    def __init__(self, store: GroupedStore, quick: float = QUICK) -> None:
        self._store = store
        self._group = GroupCommit(store, quick=quick)

    async def perform(self, operation: Callable[[Store], T]) -> T:
        """See `Performer`."""
        return await self._group.run(lambda: operation(self._store))

    def look(self, question: Callable[[Store], T]) -> T:
        """See `Performer`."""
        return question(self._store)

    async def close(self) -> None:
        """See `Performer`."""
        await self._group.close()
        self._store.close()
