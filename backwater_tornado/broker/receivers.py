"""What a broker remembers of the sessions that it has heard of: in memory, beside what the store has.

Sessions outlive the broker in the store; what is here begins anew with it, and fills as they poll.

Rule: no clock, no store. What is here decides nothing about messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .values import Batch, Lease, Receiver

#: A session of before the broker's start lives for longer than that, as far as is known here; so it is looked after
#: often enough. Seconds.
UNKNOWN_TTL: Final = 3.0
#: A session that was not heard of for so many times its time to live is forgotten.
_LIVES: Final = 3


@dataclass(slots=True)
class Known:
    """One session."""

    #: Of the key that opened it, and the name that it gave.
    owner: str
    name: str
    ttl: float
    opened: float
    heard: float
    about: bytes = b""
    #: What it was told is cancelled: every batch says it again, and only news end a poll.
    told: tuple[int, ...] = ()
    #: The last batch that was counted: it may be handed out again.
    number: int = 0
    #: What was handed to it: the queue of each, and when.
    out: dict[int, tuple[str, float]] = field(default_factory=dict)

    def tell(self, batch: Batch, now: float) -> bool:
        """A batch goes out; whether it says of cancellings what it did not know."""
        self.heard = now
        news = bool(batch.cancelled) and batch.cancelled != self.told
        self.told = batch.cancelled
        return news

    def keep(self, confirmed: int, held: tuple[int, ...]) -> None:
        """Forget what it holds no longer, of confirmed batches."""
        kept = frozenset(held)
        self.out = {token: there for token, there in self.out.items() if token > confirmed or token in kept}

    def hand_out(self, batch: Batch, now: float) -> bool:
        """Note what it has; whether this is the first time."""
        new = batch.number > self.number
        if new:
            self.number = batch.number
            for delivery in batch.deliveries:
                self.out[delivery.token] = (delivery.queue, now)
        return new


class Receivers:
    """All sessions that were heard of, by their names in the store."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def open(self, session: str, ttl: float, about: bytes, now: float) -> None:
        """A session was opened, or opened again."""
        known = self.hear(session, now)
        known.ttl, known.about, known.heard = ttl, about or known.about, now

    def show(self, session: str, about: bytes) -> None:
        """What others are shown of it, if it is known."""
        if session in self._known:
            self._known[session].about = about

    def hear(self, session: str, now: float) -> Known:
        """The session, which may be one of before the broker's start."""
        known = self._known.get(session)
        if known is None:
            owner, _, name = session.partition("\n")
            known = self._known[session] = Known(owner, name, UNKNOWN_TTL, now, now)
        return known

    def forget(self, session: str) -> None:
        """It is gone."""
        self._known.pop(session, None)

    def forget_silent(self, now: float) -> None:
        """Forget those that have expired long since, and never came back to be told so."""
        for session in [each for each, known in self._known.items() if known.heard + _LIVES * known.ttl < now]:
            del self._known[session]

    def list(self, owner: str | None, now: float) -> list[Receiver]:
        """Those of one owner, or all, that are within their time to live."""
        return [
            Receiver(known.name, known.owner, known.about, known.ttl, known.opened, known.heard, len(known.out))
            for _, known in sorted(self._known.items())
            if owner in (None, known.owner) and known.heard + known.ttl >= now
        ]

    def describe(self, session: str, token: int, id: str) -> Lease:
        """A lease of the store's, with what is known of it here."""
        owner, _, name = session.partition("\n")
        known = self._known.get(session)
        queue, since = ("", None) if known is None else known.out.get(token, ("", None))
        return Lease(name, owner, token, id, queue, since)
