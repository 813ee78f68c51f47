"""The store in memory: the reference for what `store` promises, and where transient traffic lives.

This module holds sessions, leases and the schedule; what happens to messages is `memory_messages`'. All is lost with
the process, and to be used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backwater_tornado.errors import SessionGone, SessionTaken, UnknownQueue

from .alarms import Alarms
from .memory_messages import Messages, Reason, Touched
from .memory_queue import Copy, Line
from .memory_topology import Thing
from .store import BATCH_BYTES, REMEMBER
from .values import (
    Batch,
    Binding,
    DeadLetter,
    Delivery,
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
    Verdict,
)

#: A clock that is set back by no more, in seconds, is not worth looking at every session, id and result.
JITTER: Final = 1.0


class _Receiver:
    """A session, and what it holds."""

    __slots__ = ("batch", "cancelled", "exclusive", "leases", "number", "queues", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.leases: dict[int, Copy] = {}
        #: Of these, those whose message was cancelled.
        self.cancelled: set[int] = set()
        #: The last batch without what was settled since, and its number.
        self.batch: dict[int, Delivery] = {}
        self.number = 0
        #: The queues that it has polled for, and those that it has for itself.
        self.queues: set[str] = set()
        self.exclusive: set[str] = set()


class MemoryStore:
    """See `Store`.

    Args:
        remember: how long ids and tokens are remembered after their end, in seconds.
    """

    def __init__(self, remember: float = REMEMBER) -> None:
        self._remember = remember
        self._messages = Messages(remember)
        self._receivers: dict[str, _Receiver] = {}
        self._lapsing: Alarms[str] = Alarms()  # sessions
        self._leases: dict[int, Copy] = {}
        #: The last one. They go on from the clock, so that a store that comes after this one gives away others.
        self._token = 0
        #: Tokens that were settled.
        self._settled: Alarms[int] = Alarms()
        #: Queues whose rate held back a poll.
        self._held_back: Alarms[str] = Alarms()
        self._schedule: dict[str, Entry] = {}
        self._latest = float("-inf")

    # Topology

    def declare(self, things: Sequence[Thing], now: float) -> Effects:
        """See `Store.declare`."""
        messages, touched = self._messages, Touched()
        specs = {name: line.spec for name, line in messages.lines.items()}
        messages.topology.check(things, specs, self._receivers)
        for thing in things:
            if not isinstance(thing, Queue):
                messages.topology.add(thing)
                continue
            messages.declare(thing, now, touched)
            if thing.exclusive is not None:
                self._receivers[thing.exclusive].exclusive.add(thing.name)
        return touched.effects()

    def delete(self, things: Sequence[Thing], now: float) -> tuple[int, Effects]:
        """See `Store.delete`."""
        touched, dropped = Touched(), 0
        for thing in things:
            if isinstance(thing, Queue):
                dropped += self._messages.delete(thing.name, now, touched)
            else:
                self._messages.topology.remove(thing)
        return dropped, self._done(now, touched)

    def purge(self, queue: str, now: float) -> tuple[int, Effects]:
        """See `Store.purge`."""
        line, touched = self._messages.lines.get(queue), Touched()
        if line is None:
            raise UnknownQueue(queue)
        dropped = self._messages.purge(line, now, touched)
        return dropped, self._done(now, touched)

    # Messages

    def publish(
        self, publications: Sequence[Publication], now: float, joins: Sequence[Join] = ()
    ) -> tuple[list[Published], Effects]:
        """See `Store.publish`."""
        messages, touched = self._messages, Touched()
        for join in joins:
            messages.join(join, now)
        published = [messages.publish(publication, now, touched) for publication in publications]
        return published, self._done(now, touched)

    def receive(self, session: str, poll: Poll, now: float) -> tuple[Batch, Effects]:
        """See `Store.receive`."""
        receiver, touched = self._alive(session, now), Touched()
        if poll.held is not None:
            self._take_back(receiver, poll.confirmed, frozenset(poll.held), now, touched)
        self._messages.promote(now, touched)
        lines = self._attend(receiver, poll, now)
        if poll.confirmed >= receiver.number or not receiver.batch:
            receiver.batch = self._lease(receiver, lines, poll.credit, now, touched)
            receiver.number = max(receiver.batch, default=receiver.number)
        batch = Batch(receiver.number, tuple(receiver.batch.values()), tuple(sorted(receiver.cancelled)))
        return batch, self._done(now, touched)

    def _take_back(
        self, receiver: _Receiver, confirmed: int, held: frozenset[int], now: float, touched: Touched
    ) -> None:
        for token in [token for token in receiver.leases if token <= confirmed and token not in held]:
            self._leave(receiver, token, now, touched)

    def _attend(self, receiver: _Receiver, poll: Poll, now: float) -> list[tuple[Line, int]]:
        """The queues that a poll is for, of those that it may receive from; the session is theirs from now on."""
        found, name_of_it = [], receiver.session.id
        for name, wanted in poll.wants:
            line = self._messages.lines.get(name)
            if line is None or line.spec.exclusive not in (None, name_of_it):
                continue
            found.append((line, wanted))
            if name not in receiver.queues or name_of_it not in line.receivers:
                receiver.queues.add(name)
                line.receivers.add(name_of_it)
                self._messages.idle(line, now)
        return found

    def _lease(
        self, receiver: _Receiver, lines: list[tuple[Line, int]], credit: int, now: float, touched: Touched
    ) -> dict[int, Delivery]:
        batch: dict[int, Delivery] = {}
        messages, size = self._messages, 0
        for line, wanted_of_it in lines:
            wanted = min(wanted_of_it, credit - len(batch))
            room, taken = line.room(wanted, now), 0
            while taken < room and (copy := line.first()) is not None:
                if copy.expires is not None and copy.expires <= now:
                    messages.expire(line, copy, now, touched)
                    continue
                size += len(copy.message.body)
                if size > BATCH_BYTES and batch:
                    credit = len(batch)
                    break
                messages.take(line, copy)
                copy.number = self._token = token = max(self._token + 1, int(now) << 20)
                copy.session = receiver.session.id
                self._leases[token] = receiver.leases[token] = copy
                batch[token] = copy.delivery()
                taken += 1
            line.spend(taken)
            if taken < wanted and line.open and line.spec.rate:
                self._held_back.set(line.spec.name, line.next_at)
        return batch

    def settle(self, session: str, settlements: Sequence[Settlement], now: float) -> tuple[list[SettleState], Effects]:
        """See `Store.settle`."""
        receiver, touched = self._alive(session, now), Touched()
        states = [self._settle(receiver, settlement, now, touched) for settlement in settlements]
        return states, self._done(now, touched)

    def _settle(self, receiver: _Receiver, settlement: Settlement, now: float, touched: Touched) -> SettleState:
        token, verdict, outcome = settlement.token, settlement.verdict, settlement.outcome
        messages, copy = self._messages, receiver.leases.get(token)
        if copy is None:
            return SettleState.DONE if token in self._settled else SettleState.STALE
        if verdict is Verdict.KEEP:
            copy.once |= settlement.once
            if outcome is not None:
                messages.tell(copy.known, copy.message, outcome, False, now, touched)
            messages.follow_up(settlement.then, now, touched)
            return SettleState.DONE
        self._end_lease(receiver, token)
        self._settled.set(token, now + self._remember)
        if verdict is Verdict.ACK:
            messages.release(copy, touched).acked += 1
            messages.end(copy, outcome, outcome is not None and outcome.failed, now, touched)
        elif verdict in (Verdict.REQUEUE, Verdict.RETURN):
            copy.count -= verdict is Verdict.RETURN
            if outcome is not None:
                messages.tell(copy.known, copy.message, outcome, False, now, touched)
            messages.come_back(copy, now, touched, settlement.delay, settlement.replacement)
        else:
            line = messages.release(copy, touched)
            if verdict is Verdict.PARK and copy.known.cancelled is not None:
                messages.end(copy, copy.known.cancelled, copy.known.cancelled.failed, now, touched)
            else:
                reason: Reason = "rejected" if verdict is Verdict.REJECT else "parked"
                messages.bury(line, copy, reason, now, touched, settlement.reason, outcome)
        messages.follow_up(settlement.then, now, touched)
        return SettleState.DONE

    def cancel(self, ids: Sequence[str], outcome: Outcome, now: float) -> Effects:
        """See `Store.cancel`."""
        touched = Touched()
        for message in ids:
            self._messages.cancel(message, outcome, now, touched)
        for copy in touched.cancelled:
            self._receivers[copy.session].cancelled.add(copy.number)
        return self._done(now, touched)

    # Sessions

    def open_session(self, session: Session, now: float, claim: Sequence[int] = ()) -> list[int]:
        """See `Store.open_session`."""
        receiver = self._receivers.get(session.id)
        if receiver is None:
            self._receivers[session.id] = _Receiver(session)
        elif receiver.session.owner != session.owner:
            raise SessionTaken
        else:
            receiver.session = session
        receiver = self._alive(session.id, now)
        for token in claim:
            if token not in receiver.leases and (copy := self._messages.claim(token, session.id)) is not None:
                self._leases[token] = receiver.leases[token] = copy
                receiver.number = max(receiver.number, token)
        return [token for token in claim if token in receiver.leases]

    def close_session(self, session: str, now: float) -> Effects:
        """See `Store.close_session`."""
        touched = Touched()
        if session in self._receivers:
            self._lapsing.cancel(session)
            self._end_session(session, now, touched)
        return self._done(now, touched)

    def _alive(self, session: str, now: float) -> _Receiver:
        receiver = self._receivers.get(session)
        if receiver is None:
            raise SessionGone
        self._lapsing.set(session, now + receiver.session.ttl)
        return receiver

    def _end_session(self, session: str, now: float, touched: Touched) -> None:
        receiver, messages = self._receivers.pop(session), self._messages
        for name in receiver.exclusive:
            line = messages.lines.get(name)
            if line is not None and line.spec.exclusive == session:
                messages.delete(name, now, touched)
        for token in list(receiver.leases):
            self._leave(receiver, token, now, touched)
        for name in receiver.queues:
            line = messages.lines.get(name)
            if line is None or session not in line.receivers:
                continue
            line.receivers.discard(session)
            if line.receivers:
                continue
            messages.idle(line, now)
            if line.spec.auto_delete:
                messages.delete(name, now, touched)

    def _leave(self, receiver: _Receiver, token: int, now: float, touched: Touched) -> None:
        self._messages.leave(self._end_lease(receiver, token), token, receiver.session.id, now, touched)

    def _end_lease(self, receiver: _Receiver, token: int) -> Copy:
        """A delivery is a session's no longer."""
        copy = receiver.leases.pop(token)
        del self._leases[token]
        receiver.batch.pop(token, None)
        receiver.cancelled.discard(token)
        copy.number, copy.session = 0, ""
        return copy

    def resume(self, now: float) -> None:
        """See `Store.resume`."""
        for name, receiver in self._receivers.items():
            self._lapsing.set(name, now + receiver.session.ttl)

    def sweep(self, now: float) -> Effects:
        """See `Store.sweep`."""
        touched = Touched()
        if now < self._latest - JITTER:
            self._set_back(now)
        self._latest = now
        for session in self._lapsing.due(now):
            self._end_session(session, now, touched)
        self._messages.sweep(now, touched)
        for name in self._held_back.due(now):
            if (line := self._messages.lines.get(name)) is not None:
                self._messages.wake(line, touched)
        for _ in self._settled.due(now):
            pass
        return self._done(now, touched)

    def _set_back(self, now: float) -> None:
        """The clock was set back: let nothing live longer for that."""
        for name, receiver in self._receivers.items():
            self._lapsing.cap_one(name, now + receiver.session.ttl)
        self._held_back.cap(now)
        self._settled.cap(now + self._remember)
        self._messages.set_back(now)

    def next_due(self, now: float) -> float | None:
        """See `Store.next_due`."""
        moments = [self._lapsing.next(), self._held_back.next(), *self._messages.next_due()]
        return min((moment for moment in moments if moment is not None), default=None)

    def _done(self, now: float, touched: Touched) -> Effects:
        self._latest = max(self._latest, now)
        self._messages.follow_up((), now, touched)
        return touched.effects()

    # Results, the dead, the schedule

    def results(self, ids: Sequence[str], now: float) -> list[Result | None]:
        """See `Store.results`."""
        return [self._messages.results.read(message, now) for message in ids]

    def forget_results(self, ids: Sequence[str], now: float) -> None:
        """See `Store.forget_results`."""
        self._messages.results.forget(ids)

    def dead_letters(self, queue: str | None, after: int, limit: int) -> list[DeadLetter]:
        """See `Store.dead_letters`."""
        return self._messages.dead.page(queue, after, limit)

    def replay(self, numbers: Sequence[int], now: float) -> tuple[int, Effects]:
        """See `Store.replay`."""
        touched = Touched()
        replayed = sum([self._messages.replay(number, now, touched) for number in numbers])
        return replayed, self._done(now, touched)

    def drop(self, numbers: Sequence[int], now: float) -> tuple[int, Effects]:
        """See `Store.drop`."""
        touched = Touched()
        dropped = sum([self._messages.drop(number, now, touched) for number in numbers])
        return dropped, self._done(now, touched)

    def schedule(self) -> list[Entry]:
        """See `Store.schedule`."""
        return sorted(self._schedule.values(), key=lambda entry: (entry.due, entry.name))

    def plan(
        self, entry: Entry, expected: float | None, now: float, publish: Publication | None
    ) -> tuple[bool, Effects]:
        """See `Store.plan`."""
        touched, there = Touched(), self._schedule.get(entry.name)
        if (None if there is None else there.due) != expected:
            return False, touched.effects()
        self._schedule[entry.name] = entry
        self._messages.follow_up(() if publish is None else (publish,), now, touched)
        return True, self._done(now, touched)

    def unplan(self, name: str) -> bool:
        """See `Store.unplan`."""
        return self._schedule.pop(name, None) is not None

    # Looking

    def exchanges(self) -> list[Exchange]:
        """See `Store.exchanges`."""
        return self._messages.topology.exchanges()

    def bindings(self) -> list[Binding]:
        """See `Store.bindings`."""
        return self._messages.topology.bindings()

    def stats(self, queues: Sequence[str] | None, now: float) -> list[QueueStats]:
        """See `Store.stats`."""
        lines = self._messages.lines
        names = sorted(lines if queues is None else lines.keys() & set(queues))
        return [lines[name].stats(self._messages.dead.count(name)) for name in names]

    def leased(self, session: str | None) -> list[tuple[str, int, str]]:
        """See `Store.leased`."""
        return [
            (copy.session, token, copy.known.id)
            for token, copy in sorted(self._leases.items())
            if session is None or copy.session == session
        ]

    def close(self) -> None:
        """See `Store.close`: nothing is open."""
