"""Takes deliveries from the broker: a session, and the one poll that always waits there.

A poll says what is still held, asks for as much as there is room for, and waits a few seconds at the broker, which
answers the moment there is something. It is all that keeps the session alive: a worker that does not hear of work is
not heard of either. A poll whose answer was lost is answered with the same batch by the next one. One that would ask
for little is put off for a moment, in which there may be more room. When room is made while a poll waits that asks for
little, the next one overtakes it, and the broker answers the older at once. After a batch the next poll goes out behind
the first settlement: that is what somebody waits for.

When the broker says that the session is gone, it is opened again, and gets back what it held and nobody was given
since; the rest is another's by now.

Rule: what is done with deliveries is the holder's business.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Protocol

from backwater_tornado.broker.values import Batch, Poll
from backwater_tornado.errors import SessionGone, SessionTaken
from backwater_tornado.tasks import asks

from .line import Line

#: How long a poll waits at the broker, seconds: a link that is silent for longer is dead.
WAIT = 6.0
#: How long the poll after a batch lets the first settlement go before it, seconds.
LAG = 0.01
#: How long the broker keeps what a worker holds that it does not hear of, seconds.
TTL = 30.0
#: How long a poll is put off at most, seconds.
MOMENT = 0.01


class Holder(Protocol):
    """What does something with deliveries."""

    def room(self) -> int:
        """How many more it takes now."""
        ...

    def held(self) -> tuple[int, ...]:
        """The tokens of this session that are not settled yet."""
        ...

    def let_go(self) -> None:
        """Give back what is too much."""
        ...

    def take(self, batch: Batch, *, more: bool = False) -> None:
        """Deliveries that are new, and tokens that were cancelled; `more`: it is all that was asked for."""
        ...

    def lose(self, tokens: Collection[int]) -> None:
        """These deliveries are another's, if they have not ended here."""
        ...


class Consumer:
    """See the head of this module.

    Args:
        queues: to take from; none of them is preferred.
        about: what others are shown of the session.

    Attributes:
        session: its name.
        life: counts how often it was opened.
    """

    def __init__(
        self,
        line: Line,
        holder: Holder,
        queues: Sequence[str],
        about: Callable[[], bytes] = bytes,
        *,
        wait: float = WAIT,
        ttl: float = TTL,
        lag: float = LAG,
    ) -> None:
        self._line = line
        self._holder = holder
        self._queues = list(queues)
        self._about = about
        self._wait = wait
        self._ttl = ttl
        self._lag = lag
        self.session = ""
        self.life = 0
        self._confirmed = 0
        self._overtake = asyncio.Event()
        self._settled = asyncio.Event()
        self._renewing = asyncio.Lock()
        #: What the poll that waits asks for, and in which life of the session.
        self._asked = 0
        self._asked_in = 0
        #: What is little.
        self._enough = 1

    async def open(self) -> None:
        """Open a session, by a name that nobody had before."""
        while True:
            name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"[-200:]
            try:
                await self._line.insist(lambda: asks.open_session(name, self._ttl, self._about()))  # noqa: B023 - awaited here
            except SessionTaken:
                continue
            self.session = name
            self._begin()
            return

    def _begin(self) -> None:
        self._confirmed = 0
        self.life += 1

    async def renew(self, life: int) -> None:
        """Open the session again, as it was gone in that life of it; nothing, if that was done."""
        async with self._renewing:
            if life == self.life:
                await self._open_again()

    async def _open_again(self) -> None:
        claimed: tuple[int, ...] = ()

        def ask() -> asks.Ask[list[int]]:
            nonlocal claimed
            claimed = self._holder.held()
            return asks.open_session(self.session, self._ttl, self._about(), claimed)

        try:
            kept = await self._line.insist(ask)
        except SessionTaken:  # somebody was faster, as names can be guessed
            self._holder.lose(claimed)
            await self.open()
            return
        self._holder.lose(set(claimed).difference(kept))
        self._begin()

    async def show(self) -> None:
        """Have others see anew what the session is about."""
        await self._line.insist(lambda: asks.show(self.session, self._about()))

    async def close(self) -> None:
        """Give back at once all that is held."""
        if self.session:
            await self._line.ask(asks.close_session(self.session))

    def note_room(self, room: int, enough: int) -> None:
        """There is room for so many: a poll that waits for fewer than `enough` is overtaken when there is as much."""
        self._enough = enough
        if self._asked < enough <= room:
            self.overtake()

    def note_settlement(self) -> None:
        """The broker is told something now."""
        self._settled.set()

    def overtake(self) -> None:
        """Poll anew, now."""
        self._overtake.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            self._overtake.clear()
            await self._await_room()
            polling = asyncio.ensure_future(self._poll())
            overtaking = asyncio.ensure_future(self._overtake.wait())
            try:
                await asyncio.wait([polling, overtaking], return_when=asyncio.FIRST_COMPLETED)
                if polling.done():
                    polling.result()
            finally:
                # An answer that is still on its way is lost with its poll: the next one gets it again.
                polling.cancel()
                overtaking.cancel()

    async def _await_room(self) -> None:
        self._asked = max(0, self._holder.room())
        if self._asked < self._enough:
            with suppress(TimeoutError):
                async with asyncio.timeout(MOMENT):
                    await self._overtake.wait()
            self._overtake.clear()

    async def _poll(self) -> None:
        try:
            batch = await self._line.insist(self._next)
        except SessionGone:
            await self.renew(self._asked_in)
            return
        if self._asked_in != self.life:  # it comes again, if it is of this one
            return
        if batch.number > self._confirmed:
            self._confirmed = batch.number
            self._settled.clear()
            self._holder.take(batch, more=len(batch.deliveries) >= self._asked)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lag):
                    await self._settled.wait()
        elif batch.cancelled:
            self._holder.take(Batch(batch.number, (), batch.cancelled))

    def _next(self) -> asks.Ask[Batch]:
        self._holder.let_go()
        self._asked, self._asked_in = max(0, self._holder.room()), self.life
        wants = tuple((queue, self._asked) for queue in self._queues)
        self._queues.append(self._queues.pop(0))  # the next poll begins with another
        return asks.receive(self.session, Poll(wants, self._asked, self._confirmed, self._holder.held()), self._wait)
