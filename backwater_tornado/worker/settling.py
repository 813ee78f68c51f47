"""What the broker has yet to be told: how deliveries ended, and how far others are.

All that has come together since the last request goes in the next one, which is sent at once when none is on its way.
It is repeated until it is answered, over every cut of the link: settling is idempotent, and what is told here is
forgotten only when the broker has said that it knows. What it does not take, as it is too large say, is looked for by
halves, and told as a failure. A settlement of a lease that has passed on is STALE: whoever has
it by then runs the task again, and what this run gave is superseded.

Rule: everything that has not been accepted is in `Settling`; what is on disk besides (`keeping`) is a copy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from backwater_tornado.broker.values import Settlement, SettleState
from backwater_tornado.errors import BodyTooLarge, MalformedBatch, MessageTooLarge, SessionGone
from backwater_tornado.tasks import asks

from .deliveries import unfit
from .line import Line

#: Settlements in one request, and bytes of what is in them; one that is larger goes alone.
MOST, MOST_BYTES = 1000, 1 << 20


class Tenant(Protocol):
    """Whose deliveries they are; see `Consumer`."""

    session: str
    life: int

    async def renew(self, life: int) -> None:
        """The session was gone in that life of it."""
        ...


class Settling:
    """See the head of this module.

    Args:
        line: to the broker.
        tenant: has the session.
        told: called with each settlement and what became of it.
    """

    def __init__(self, line: Line, tenant: Tenant, told: Callable[[Settlement, SettleState], None]) -> None:
        self._line = line
        self._tenant = tenant
        self._told = told
        self._unsent: deque[Settlement] = deque()
        self._sent: list[Settlement] = []
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """How many have not been accepted."""
        return len(self._unsent) + len(self._sent)

    def add(self, settlement: Settlement) -> None:
        """Tell the broker, in its turn: what is said of one delivery arrives in the order in which it was said."""
        self._unsent.append(settlement)
        self._news.set()
        self._idle.clear()

    async def empty(self) -> None:
        """Wait until all has been accepted."""
        await self._idle.wait()

    async def run(self) -> None:
        """Tell the broker, until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(0)  # what ends in the same turn of the loop goes along
            self._news.clear()
            await self.finish()

    async def finish(self) -> None:
        """Tell the broker all that is here; in place of `run`."""
        while self._unsent:
            self._sent = self._take()
            await self._settle()
        self._idle.set()

    def _take(self) -> list[Settlement]:
        taken: list[Settlement] = []
        size = 0
        while self._unsent and len(taken) < MOST:
            size += _size(self._unsent[0])
            if taken and size > MOST_BYTES:
                break
            taken.append(self._unsent.popleft())
        return taken

    async def _settle(self) -> None:
        """Have those that were taken accepted."""
        tenant = self._tenant
        life = 0

        def ask() -> asks.Ask[list[SettleState]]:
            nonlocal life
            life = tenant.life
            return asks.settle(tenant.session, self._sent)

        while True:
            try:
                states = await self._line.insist(ask)
                break
            except SessionGone:
                # What was done before is done again, whatever came between; what was not claimed is stale.
                await tenant.renew(life)
            except (BodyTooLarge, MessageTooLarge, MalformedBatch) as error:
                if len(self._sent) == 1:
                    self._sent = [unfit(self._sent[0], error)]
                else:  # one of them is to blame, and the others should not suffer for it
                    half = len(self._sent) // 2
                    self._unsent.extendleft(reversed(self._sent[half:]))
                    del self._sent[half:]
        sent, self._sent = self._sent, []
        for settlement, state in zip(sent, states, strict=True):
            self._told(settlement, state)


def _size(settlement: Settlement) -> int:
    outcome, replacement = settlement.outcome, settlement.replacement
    return 100 + (len(outcome.body) if outcome else 0) + (len(replacement.body) if replacement else 0)
