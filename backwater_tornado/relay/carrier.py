"""What a relay has in hand: each delivery of the near broker, from its arrival until that is told how it ended.

* One whose end nobody waits for (no result that is kept, no join, no unique key) has ended for the near broker when the
  far one has it.
* Any other is held, and its outcome brought home. So joins, callers who wait, and unique keys at the near broker fare
  as if its worker were there; retries are the far broker's, as are the dead letters of what died there.
* What the far broker never takes (it is too large, its unique key is held) is put aside at the near one, with the
  reason. What it has no room for goes back, and is tried again.
* Somebody cancelled it: that is passed on, and the far broker says how it ended.

While the far broker cannot be reached nothing is taken, and what was never tried goes back: so at the near broker it
expires in its time.

A relay that was lost counts as a delivery. No number of lost relays makes a message deadly, so what comes a second time
is sent back once, to come anew.

Rule: on the loop, and never waits; what a delivery means is in `cargo`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from backwater_tornado.broker.values import Batch, Published, Result, Settlement, SettleState, Verdict
from backwater_tornado.errors import CallFailed
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.outcomes import revoked
from backwater_tornado.worker.deliveries import rejection, returned, revocation
from backwater_tornado.worker.line import Line

from .cargo import Away, arrival, is_worn, load, needs, refusal, renewed, take
from .errands import Errand
from .homeward import Homeward
from .options import RelayOptions
from .outward import Outward

log = logging.getLogger("backwater.relay")

#: What is taken at most and not yet handed over: messages, and bytes.
UNSENT, UNSENT_BYTES = 4_000, 16 << 20
#: The far broker counts as away when it has not answered, or has refused, for so long, seconds.
PATIENCE = 5.0
#: A poll that asks for less than a batch is overtaken when there is room for one.
BATCH = 1_000


class Carrier:
    """See the head of this module.

    Args:
        far: to the far broker.
        queues: of the near broker, and the far one's for each.
        options: see there.

    Attributes:
        settle, fetch, made_room: what it uses, as a worker's `Desk`.
        counts: how often each thing happened since the start.
    """

    settle: Callable[[Settlement], None]
    fetch: Callable[[Away, tuple[str, ...]], None]
    made_room: Callable[[int, int], None]

    def __init__(
        self, far: Line, queues: Mapping[str, str], options: RelayOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._far, self._queues, self._prefetch, self._clock = far, queues, options.prefetch, clock
        self.outward = Outward(far, self._answer, clock)
        self.homeward = Homeward(far, self._hear, self._overdue, options.wait, clock)
        self._cancelling = Errand(far, lambda ids: asks.cancel(ids, revoked()))
        self._forgetting = Errand(far, asks.forget)
        #: What goes on.
        self.services = [self.outward.run, self.homeward.run, self._cancelling.run, self._forgetting.run]
        self._held: dict[int, Away] = {}
        self.counts: Counter[str] = Counter()
        self.closing = False

    @property
    def is_cut(self) -> bool:
        """Whether the far broker is away."""
        return self._far.down > PATIENCE

    # What the consumer asks, see `Holder` ----------------------------------------------------------------------------

    def room(self) -> int:
        """See `Holder`."""
        if self.closing or self.is_cut or len(self.outward) >= UNSENT or self.outward.size >= UNSENT_BYTES:
            return 0
        return self._prefetch - len(self._held)

    def held(self) -> tuple[int, ...]:
        """See `Holder`."""
        return tuple(self._held)

    def let_go(self) -> None:
        """See `Holder`."""
        if self.is_cut:
            self._give_back([away for away in self._held.values() if not away.is_tried])

    def take(self, batch: Batch, *, more: bool = False) -> None:
        """See `Holder`; there is no pace that `more` would change."""
        self.counts["received"] += len(batch.deliveries)
        skew = self._clock() - batch.now
        for delivery in batch.deliveries:
            away = self._held[delivery.token] = take(delivery, skew)
            if self.closing:
                self._finish(away, returned(away.token))
            elif is_worn(delivery):
                self._finish(away, renewed(delivery))
            elif ids := needs(delivery):
                self.fetch(away, ids)
            else:
                self.prepare(away, {})
        for token in batch.cancelled:
            self._cancel(token)

    def lose(self, tokens: Collection[int]) -> None:
        """See `Holder`. Whoever has them finds at the far broker what this has handed over."""
        lost = [away for away in map(self._held.get, tokens) if away is not None and not away.is_ended]
        for away in lost:
            del self._held[away.token]
            self._end(away)
        if lost:
            log.warning("the near broker has given %d messages to another: the session was gone", len(lost))

    # The way out -----------------------------------------------------------------------------------------------------

    def prepare(self, away: Away, results: Mapping[str, Result | None]) -> None:
        """Let it go, in its turn; these are the results that it needs."""
        if away.is_ended:
            return
        assert away.delivery is not None
        loaded = load(away.delivery, self._queues[away.delivery.queue], results)
        if isinstance(loaded, Settlement):
            self._finish(away, loaded)
            return
        away.publication = loaded
        self.outward.add(away)

    def _answer(self, away: Away, answer: Published | CallFailed) -> None:
        """What the far broker said when it was published."""
        delivery, away.delivery, away.publication = away.delivery, None, None
        assert delivery is not None
        settlement = rejection(delivery, answer) if isinstance(answer, CallFailed) else refusal(away, answer)
        if settlement is not None:
            self._finish(away, settlement)
        elif away.is_awaited:
            self.counts["sent"] += 1
            away.since = self._clock()
            self.homeward.add(away)
        else:
            self.counts["sent"] += 1
            self._finish(away, Settlement(away.token))

    def _cancel(self, token: int) -> None:
        away = self._held.get(token)
        if away is None or away.is_ended or away.is_cancelled:
            return
        away.is_cancelled = True
        self._cancelling.add(away.id)  # one that has yet to arrive there ends when it does
        if not away.is_tried:
            self._finish(away, revocation(token))

    # The way home ----------------------------------------------------------------------------------------------------

    def _hear(self, away: Away, result: Result) -> None:
        """What the far broker knows of one."""
        settlement = arrival(away, result)
        if settlement is not None and away.is_home:
            self._finish(away, settlement)
        elif settlement is not None:
            self.settle(settlement)

    def _overdue(self, away: Away) -> None:
        """Nobody knows of it: it comes anew, and is published again."""
        self._give_back([away])

    def _give_back(self, several: list[Away]) -> None:
        for away in several:
            if not away.is_ended:
                self._finish(away, returned(away.token))

    def _finish(self, away: Away, settlement: Settlement) -> None:
        """Tell the near broker; it is held until that has taken note."""
        self._end(away)
        self.counts[settlement.verdict] += 1
        self.settle(settlement)
        if settlement.reason:
            log.warning("%s is put aside: %s", away.id, settlement.reason, extra={"task_id": away.id})

    def _end(self, away: Away) -> None:
        away.is_ended = True
        self.outward.drop(away)

    def settled(self, settlement: Settlement, state: SettleState) -> None:
        """The near broker's answer."""
        if settlement.verdict is Verdict.KEEP:
            return
        away = self._held.pop(settlement.token, None)
        if away is not None and away.is_home and state is SettleState.DONE:
            self.counts["home"] += 1
            self._forgetting.add(away.id)
        self.tell_room()

    def tell_room(self) -> None:
        """There may be room again."""
        self.made_room(self.room(), max(1, min(self._prefetch // 4, BATCH)))

    def give_back_all(self) -> None:
        """Give back what has not ended, and take no more; it is the next relay's, and loses nothing by that."""
        self.closing = True
        self._give_back(list(self._held.values()))
