"""What all verbs of a broker share: the store that is asked, for whom, and whom the answer wakes.

Rule: no verbs; those are `administration` and `broker`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from backwater_tornado.protocol.keys import Scopes

from .performers import Performer
from .permissions import Permissions
from .receivers import Receivers
from .store import Store
from .traffic import Traffic
from .values import Effects
from .waiting import Waiters

T = TypeVar("T")
#: Bytes of one message, and of what goes in one answer.
LARGEST = 4 << 20


class Asking:
    """A store that is asked on behalf of callers.

    Args:
        performer: the store, and how it is asked.
        scopes: what a key may do, by its id; None: everybody may do everything. See `permissions`.
        clock: Unix seconds.
        largest: bytes of one message, and of what goes in one answer.
    """

    def __init__(
        self,
        performer: Performer,
        scopes: Callable[[str], Scopes] | None = None,
        clock: Callable[[], float] = time.time,
        largest: int = LARGEST,
    ) -> None:
        self.largest = largest
        self.performer = performer
        self.may = Permissions(scopes)
        self.clock = clock
        self.waiters = Waiters()
        self.receivers = Receivers()
        self.traffic = Traffic(time.monotonic())

    async def ask(self, operation: Callable[[Store, float], T]) -> T:
        """Ask the store on behalf of the caller."""
        self.traffic.hear(self.may.caller(), self.clock())
        return await self.performer.perform(lambda store: operation(store, self.clock()))

    def look(self, question: Callable[[Store, float], T]) -> T:
        """Ask the store, on behalf of the caller, for what is there."""
        self.traffic.hear(self.may.caller(), self.clock())
        return self.performer.look(lambda store: question(store, self.clock()))

    async def change(self, operation: Callable[[Store, float], tuple[T, Effects]]) -> T:
        """Ask the store for a change, and wake whom it concerns."""
        value, effects = await self.ask(operation)
        self.waiters.wake(effects)
        return value
