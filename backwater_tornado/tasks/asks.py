"""What is asked of a broker, as values: a verb, its arguments, and how its answer is read.

The blocking and the awaitable application perform them over HTTP, a test in place; all of them repeat one whose answer
was lost, which the broker allows for (`broker.broker`).

Messages travel packed, as one binary: reading them then costs a tenth of what it costs value by value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from backwater_tornado.broker.values import (
    Batch,
    Binding,
    Entry,
    Exchange,
    Join,
    Lease,
    Outcome,
    Poll,
    Publication,
    Published,
    Queue,
    QueueStats,
    Receiver,
    Result,
    Settlement,
    SettleState,
    pack,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """One verb of the broker with its arguments."""

    verb: str
    args: tuple[Any, ...]
    #: The type of its answer.
    returns: Any
    #: The answer comes as one binary, and is of this type within it.
    packed: bool = False
    #: The broker may wait so many seconds before it answers; and which of `args` says so.
    wait: float = 0.0
    wait_at: int = 0
    #: Seconds for it with all attempts; None: as long as its sender gives to any.
    within: float | None = None

    def waiting(self, longest: float) -> Ask[T]:
        """The same, and the broker may wait no longer than that."""
        if self.wait <= longest:
            return self
        args = tuple(longest if at == self.wait_at else each for at, each in enumerate(self.args))
        return replace(self, wait=longest, args=args)


def publish(publications: Sequence[Publication], joins: Sequence[Join] = ()) -> Ask[list[Published]]:
    """Hand messages over; queues that are missing are made."""
    joined = pack(list(joins)) if joins else None
    return Ask("publish", (pack(list(publications)), joined, True), list[Published], packed=True)


def receive(session: str, poll: Poll, wait: float) -> Ask[Batch]:
    """The next messages of a session, within `wait` seconds."""
    return Ask("receive", (session, poll, wait, True), Batch, packed=True, wait=wait, wait_at=2)


def settle(session: str, settlements: Sequence[Settlement]) -> Ask[list[SettleState]]:
    """End deliveries, or tell of them."""
    return Ask("settle", (session, pack(list(settlements))), list[SettleState], packed=True)


def cancel(ids: Iterable[str], outcome: Outcome) -> Ask[None]:
    """End messages wherever they are."""
    return Ask("cancel", (list(ids), outcome), None)


def open_session(session: str, ttl: float, about: bytes = b"", claim: Sequence[int] = ()) -> Ask[list[int]]:
    """Begin to receive, or go on, with what is claimed; `about` is what others are shown of it."""
    return Ask("open_session", (session, ttl, about, list(claim)), list[int])


def show(session: str, about: bytes) -> Ask[None]:
    """What others are shown of a session from now on."""
    return Ask("show", (session, about), None)


def close_session(session: str) -> Ask[None]:
    """What it holds goes back at once."""
    return Ask("close_session", (session,), None)


def results(
    ids: Sequence[str], wait: float = 0.0, within: float | None = None, beside: Sequence[str] = ()
) -> Ask[list[Result | None]]:
    """The last known of each; with `wait`, as soon as one of them is final. Those `beside` come along if they are."""
    args = (list(ids), wait, list(beside)) if beside else (list(ids), wait)
    return Ask("results", args, list[Result | None], wait=wait, within=within, wait_at=1)


def forget(ids: Sequence[str]) -> Ask[None]:
    """Drop results before their time."""
    return Ask("forget", (list(ids),), None)


def declare(
    exchanges: Sequence[Exchange] = (), queues: Sequence[Queue] = (), bindings: Sequence[Binding] = ()
) -> Ask[None]:
    """Make what is not there yet; a queue that is there takes the limits given."""
    return Ask("declare", (list(exchanges), list(queues), list(bindings)), None)


def stats(queues: Sequence[str] | None = None) -> Ask[list[QueueStats]]:
    """Queues, or all, with their limits and numbers; an unknown one is left out."""
    return Ask("stats", (None if queues is None else list(queues),), list[QueueStats])


def schedule() -> Ask[list[Entry]]:
    """The entries of the schedule, the next due first."""
    return Ask("schedule", (), list[Entry])


def plan(entry: Entry, expected: float | None = None, publish: Publication | None = None) -> Ask[bool]:
    """Write an entry if its `due` is still `expected` (None: there is none), and publish; missing queues are made."""
    return Ask("plan", (entry, expected, publish, True), bool)


def unplan(name: str) -> Ask[bool]:
    """Remove an entry."""
    return Ask("unplan", (name,), bool)


def sessions() -> Ask[list[Receiver]]:
    """Who receives."""
    return Ask("sessions", (), list[Receiver])


def leased(session: str | None = None) -> Ask[list[Lease]]:
    """What is out, with one session or all."""
    return Ask("leased", (session,), list[Lease])
