"""Tells the broker the outcomes that a former process has left in the spool.

Each is of a session that the process had. If that is gone, it is opened again with a claim: what nobody was given since
is settled as if nothing had been, the rest is superseded. Then the session is closed, so that what it held beside goes
back at once: its process is dead, or the spool were not ours.

Rule: before the first poll, or the worker itself would be given what has been done.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

from backwater_tornado.broker.values import Settlement, SettleState, unpack
from backwater_tornado.errors import BodyUndecodable, SessionTaken, StorageFailed
from backwater_tornado.tasks import asks

from .keeping import Keeping
from .line import Line
from .settling import Settling
from .spool import About, Kept

log = logging.getLogger("backwater.worker")


class _Session:
    """A `Tenant`: a session that a process had."""

    def __init__(self, line: Line, name: str, ttl: float, tokens: list[int]) -> None:
        self._line = line
        self._ttl = ttl
        self._tokens = tokens
        self.session = name
        self.life = 0

    async def renew(self, life: int) -> None:
        """Open it, with all that was done in it."""
        await self._line.insist(lambda: asks.open_session(self.session, self._ttl, b"", self._tokens))
        self.life = life + 1


class Former:
    """See the head of this module.

    Args:
        keeping: has the spool.
        ttl: how long a session is kept, seconds.
        superseded: called with what the broker did not want.

    Attributes:
        left: outcomes that the broker has not accepted.
    """

    def __init__(self, line: Line, keeping: Keeping, ttl: float, superseded: Callable[[About], None]) -> None:
        self._line = line
        self._keeping = keeping
        self._ttl = ttl
        self._superseded = superseded
        self._sessions = keeping.spool.sessions()
        self.left = sum(map(len, self._sessions.values()))

    async def deliver(self) -> None:
        """Tell all of it; returns at once where there is nothing."""
        try:
            for name, tokens in self._sessions.items():
                await self._deliver(_Session(self._line, name, self._ttl, tokens))
        except (StorageFailed, BodyUndecodable) as error:
            log.warning("%d outcomes of a former process stay in the spool, unread: %s", self.left, error)

    async def _deliver(self, session: _Session) -> None:
        keeping, name, after = self._keeping, session.session, 0
        told: Counter[SettleState] = Counter()
        while portion := await keeping.perform(partial(keeping.spool.portion, name, after)):
            told += await self._tell(session, portion)
            after = portion[-1].number
        await self._line.insist(lambda: asks.close_session(name))
        done, stale = told[SettleState.DONE], told[SettleState.STALE]
        log.info("told the broker how %d tasks of a former process ended; %d more were superseded", done, stale)

    async def _tell(self, session: _Session, portion: list[Kept]) -> Counter[SettleState]:
        states: dict[int, SettleState] = {}
        settling = Settling(self._line, session, lambda settlement, state: states.update({settlement.token: state}))
        for each in portion:
            settling.add(unpack(each.settlement, Settlement))
        try:
            if not session.life:
                await session.renew(0)
            await settling.finish()
        except SessionTaken:  # by another key
            states = dict.fromkeys([each.token for each in portion], SettleState.STALE)
        for each in portion:
            if states[each.token] is SettleState.STALE:
                log.warning("%s, run by a former process, is superseded: another worker had it", each.about.label)
                self._superseded(each.about)
        await self._keeping.perform(partial(self._keeping.spool.exchange, (), [each.number for each in portion]))
        self.left -= len(portion)
        return Counter(states.values())
