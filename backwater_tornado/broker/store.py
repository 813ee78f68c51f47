"""The contract of every store: what the broker asks, each in one transaction.

A store is told the time and keeps no clock. A method that has returned is durable as far as the store is at all: what
was accepted survives `kill -9`, and power loss where the medium does. A method that raises has done nothing. Everything
that may arrive twice (a lost answer makes its sender repeat it) is idempotent: publications by their id, polls by the
number of the confirmed batch, settlements by their token.

The life of a message in one queue::

    publish ──> delayed ──not_before──> ready ──receive──> leased ──ack──────────────> gone
                   ^                      ^                  │
                   └──── requeue, delay ──┴── requeue, ──────┤ session gone, not held any more: ready again
                                                             ├── reject, max_deliveries, lost ──> dead ──replay──> ready
    expires, while delayed or ready ─────────────────────────┴──> dead (reason `expired`)

* **Order** within a queue: higher priority first, then the order of publication. Whatever comes back, comes back to its
  old place.
* **Copies.** A publication that is routed into several queues is one message in each; each is delivered and settled
  by itself. It is in all of them or, refused, in none. Its id is remembered for `remember` seconds after its last copy
  has gone (one among the dead has not), and as long as its result is kept: that long a repetition is a DUPLICATE, with
  the queues of the first.
* **Batches** have at most `BATCH_BYTES`, or a single message.
* **Leases** hang on sessions. No kill loses one, but it may be forgotten when the power fails: then its message is
  handed out again, under another token. The last batch of a session is repeated until a poll confirms it, without what
  was settled meanwhile. A settlement with a token that has passed on is STALE, as is one by another session; one that
  was done before is DONE again, for `remember` seconds, whoever repeats it.
* **Claims.** What comes back without a settlement has been begun, perhaps: so until it is handed out again, its last
  session may have it back, under its old token, by opening again. That is no delivery: it does not count, and neither
  a rate nor `max_running` nor a pause is in its way.
* **Results** are written in the transaction of the settlement, as are what it publishes (`then`), its counting for
  joins, and what is published by joins that come together by it; they are kept for the message's `keep_result` seconds.
  ACK and REJECT make them final, and a final result is never changed (a replay drops it: the message runs anew). A
  message that ends with no outcome from a receiver, other than by ACK, gets `Outcome(state=reason, failed=True)`:
  `rejected`, `expired`, `max_deliveries`, `lost`, `dropped`.
* **Cancelling** ends a waiting or parked message at once, with the outcome given, and marks a running one: if that
  comes back, it ends so too. One that has yet to come is accepted, into no queue, and ends at once.
* **What the store publishes by itself** (`then` of settlements and joins, `plan`) has no publisher who could be told.
  So a full queue takes it all the same, and if it is unrouted or refused, it ends at once, as failed, with the
  state `unrouted` or the reason: nobody waits for it in vain.
* **A deleted queue**'s deliveries that are out can still be settled; what would come back to it is dropped, unless
  there is a queue of that name again. Its dead letters stay.
* **Transient queues** are gone when the store is opened again: what was in them, waiting, out or put aside, was dropped
  when the store ended. What concerns only such queues may be lost, all of a moment, if the power is.
* **Time** may jump. What is due, or has expired, by `now` counts as that in `receive` even before the `sweep`; a
  session is gone only when a `sweep` took it. Moments that were given as such stay; sessions, ids and results never
  outlive a clock that was set back by more than their span.

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

#: Bytes of bodies in one batch, unless it is a single message: an answer has room for it.
BATCH_BYTES = 4 << 20
#: How long ids and tokens are remembered after their end, seconds.
REMEMBER = 86_400.0


class Store(Protocol):
    """See the head of this module."""

    # Topology

    def declare(self, things: Sequence[Exchange | Queue | Binding], now: float) -> Effects:
        """Make exchanges, queues and bindings, or change a queue's limits; what is there already stays.

        Raises:
            UnknownExchange, UnknownQueue: of a binding. (The default exchange takes none: it is unknown here.)
            DeclarationConflict: an exchange of that name has another kind or `auto_delete`, or is the default one; or
                the queue is another session's, or not exclusive and declared so.
            SessionGone: that of an exclusive queue.
        """
        ...

    def delete(self, things: Sequence[Exchange | Queue | Binding], now: float) -> tuple[int, Effects]:
        """Delete them, by their names, with what waits in a queue; gives the number of messages dropped.

        What is not there is no error.
        """
        ...

    def purge(self, queue: str, now: float) -> tuple[int, Effects]:
        """Drop what waits in a queue, delayed or ready; gives how many that were. Raises `UnknownQueue`."""
        ...

    # Messages

    def publish(
        self, publications: Sequence[Publication], now: float, joins: Sequence[Join] = ()
    ) -> tuple[list[Published], Effects]:
        """Route a batch into queues; each has its own answer, in order. A join of a known id is left as it is."""
        ...

    def receive(self, session: str, poll: Poll, now: float) -> tuple[Batch, Effects]:
        """Confirm, take back what is not held, lease the next; the session is alive.

        Gives the last batch again while `poll.confirmed` is older than its number, or the next once all of it is
        settled. An empty batch has the number of the last one that was not. A queue that does not exist, or is another
        session's, gives nothing.

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

    def open_session(self, session: Session, now: float, claim: Sequence[int] = ()) -> list[int]:
        """A receiver; opening an open one again by the same owner keeps it alive, with the `ttl` given now.

        Args:
            claim: tokens of deliveries that it had, and would have back if it has them no more.

        Returns: of these, those that it has now.

        Raises:
            SessionTaken: it is open and another's.
        """
        ...

    def close_session(self, session: str, now: float) -> Effects:
        """What it holds goes back at once, with its exclusive and auto-delete queues deleted; unknown: nothing."""
        ...

    def resume(self, now: float) -> None:
        """The broker begins: while it was away nobody could be heard of, so every session has its whole `ttl` again."""
        ...

    def sweep(self, now: float) -> Effects:
        """All that time brings: sessions, messages, results, joins, ids and queues expire; delayed messages are due."""
        ...

    def next_due(self, now: float) -> float | None:
        """When `sweep` has something to do that somebody may wait for, None if never.

        The earliest of: a delayed message, an expiring message, session, join or queue, and the moment at which a queue
        whose rate held back a poll may hand out the next.
        """
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
        """Put dead letters back at the end of their queues, undelivered, due and unexpired; gives how many were there.

        Their results are dropped. One whose queue is gone stays, uncounted. Joins count it no second time; a unique
        key is held again if it is free.
        """
        ...

    def drop(self, numbers: Sequence[int], now: float) -> tuple[int, Effects]:
        """Drop dead letters for good; gives how many were there. Parked ones end by it."""
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
        """By name; without the default one."""
        ...

    def bindings(self) -> list[Binding]:
        """By exchange, queue and pattern."""
        ...

    def stats(self, queues: Sequence[str] | None, now: float) -> list[QueueStats]:
        """Of these queues, or all, by name; an unknown one is left out."""
        ...

    def leased(self, session: str | None) -> list[tuple[str, int, str]]:
        """(session, token, message id) of what runs, of one session or all, by token."""
        ...

    def close(self) -> None:
        """Give back what it holds open."""
        ...
