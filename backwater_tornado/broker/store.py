"""The contract of every store: what the broker asks, each in one transaction.

A store is told the time and keeps no clock. A method that has returned is durable as far as the store is at all: what
was accepted survives `kill -9`, and power loss where the medium does. A method that raises has done nothing. Everything
that may arrive twice (a lost answer makes its sender repeat it) is idempotent: publications by their id, polls by the
number of the confirmed batch, settlements by their token.

The life of a message in one queue::

    publish ──> delayed ──not_before──> ready ──receive──> leased ──ack──────────────> gone
                   ^                      ^                  │
                   └──── requeue, delay ──┴── requeue, ──────┤ session gone, not held any more: ready again
                                                             ├── reject, max_deliveries ──> dead ──replay──> ready
    expires, while delayed or ready ─────────────────────────┴──> dead (reason `expired`)

* **Order** within a queue: higher priority first, then the order of publication. Whatever comes back, comes back to its
  old place.
* **Copies.** A publication that is routed into several queues is one message in each; each is delivered and settled
  by itself. Its id is remembered for `remember` seconds after its last copy has ended: that long a repetition is a
  DUPLICATE.
* **Leases** hang on sessions. The last batch of a session is repeated until a poll confirms it. A settlement with a
  token that has passed on is STALE; one that was done before is DONE again, for `remember` seconds.
* **Results** are written in the transaction of the settlement, as are what it publishes (`then`) and its counting for a
  join; a final result is never changed. Cancelling ends a waiting message at once, with the outcome given, and marks a
  running one.

Raises, all of them: `StorageFailed` when the medium does (a full disk): nothing was done.
Rule: no clock, no socket, no routing of its own (`routing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .values import (
    Batch,
    Binding,
    DeadLetter,
    Effects,
    Entry,
    Exchange,
    Join,
    Outcome,
    Poll,
    Publication,
    Published,
    Queue,
    QueueStats,
    Result,
    Session,
    Settlement,
    SettleState,
)

#: How long ids and tokens are remembered after their end, seconds.
REMEMBER = 86_400.0


class Store(Protocol):
    """See the head of this module."""

    # Topology

    def declare(self, things: Sequence[Exchange | Queue | Binding], now: float) -> Effects:
        """Make exchanges, queues and bindings, or change a queue's limits; what is there already stays.

        Raises:
            UnknownExchange, UnknownQueue: of a binding.
            DeclarationConflict: an exchange of that name has another kind, or a queue belongs to another session.
        """
        ...

    def delete(self, things: Sequence[Exchange | Queue | Binding], now: float) -> int:
        """Delete them, by their names, with what is in a queue; gives the number of messages dropped.

        What is not there is no error.
        """
        ...

    def purge(self, queue: str, now: float) -> int:
        """Drop what waits in a queue; gives how many that were. Raises `UnknownQueue`."""
        ...

    # Messages

    def publish(
        self, publications: Sequence[Publication], now: float, joins: Sequence[Join] = ()
    ) -> tuple[list[Published], Effects]:
        """Route a batch into queues; each has its own answer, in order. A join of a known id is left as it is."""
        ...

    def receive(self, session: str, poll: Poll, now: float) -> tuple[Batch, Effects]:
        """Confirm, take back what is not held, lease the next; the session is alive.

        Gives the last batch again, unchanged, while `poll.confirmed` is older than its number. An empty batch has the
        number of the last one that was not. A queue that does not exist gives nothing.

        Raises:
            SessionGone: it was never opened, or has expired.
        """
        ...

    def settle(self, session: str, settlements: Sequence[Settlement], now: float) -> tuple[list[SettleState], Effects]:
        """End deliveries, or tell of them; the session is alive. Raises `SessionGone`."""
        ...

    def cancel(self, ids: Sequence[str], outcome: Outcome, now: float) -> Effects:
        """End these messages where they wait, with that outcome; mark them where they run, or have yet to come."""
        ...

    # Sessions

    def open_session(self, session: Session, now: float) -> None:
        """A receiver; opening an open one again by the same owner only keeps it alive.

        Raises:
            SessionTaken: it is open and another's.
        """
        ...

    def close_session(self, session: str, now: float) -> Effects:
        """What it holds goes back at once, with its exclusive and auto-delete queues deleted; unknown: nothing."""
        ...

    def sweep(self, now: float) -> Effects:
        """All that time brings: sessions, messages, results, joins, ids and queues expire; delayed messages are due."""
        ...

    def next_due(self, now: float) -> float | None:
        """When `sweep` has something to do that somebody may wait for: the earliest delayed message or session."""
        ...

    # Results, the dead, the schedule

    def results(self, ids: Sequence[str], now: float) -> list[Result | None]:
        """The last known of each."""
        ...

    def forget_results(self, ids: Sequence[str], now: float) -> None:
        """Drop them before their time."""
        ...

    def dead_letters(self, queue: str | None, after: int, limit: int) -> list[DeadLetter]:
        """Those with a number above `after`, lowest first."""
        ...

    def replay(self, numbers: Sequence[int], now: float) -> tuple[int, Effects]:
        """Put dead letters back at the end of their queues, undelivered and unexpired; gives how many were there."""
        ...

    def drop(self, numbers: Sequence[int], now: float) -> int:
        """Drop dead letters for good; gives how many were there."""
        ...

    def schedule(self) -> list[Entry]:
        """All entries, the next due first."""
        ...

    def plan(
        self, entry: Entry, expected: float | None, now: float, publish: Publication | None
    ) -> tuple[bool, Effects]:
        """Write an entry if its `due` is still `expected` (None: there is none of the name); publish in the same step.

        Gives False, and does nothing, when somebody else was first: so nothing fires twice.
        """
        ...

    def unplan(self, name: str) -> bool:
        """Remove an entry; whether there was one."""
        ...

    # Looking

    def exchanges(self) -> list[Exchange]:
        """By name."""
        ...

    def bindings(self) -> list[Binding]:
        """By exchange, queue and pattern."""
        ...

    def stats(self, queues: Sequence[str] | None, now: float) -> list[QueueStats]:
        """Of these queues, or all, by name; an unknown one is left out."""
        ...

    def leased(self, session: str | None) -> list[tuple[str, int, str]]:
        """(session, token, message id) of what runs, of one session or all."""
        ...

    def close(self) -> None:
        """Give back what it holds open."""
        ...
