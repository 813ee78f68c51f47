"""Random histories of a broker's store, against a model that is lists and nothing else.

What is looked at after every step: each delivery is the one that the model has first, so none is out of its order;
nothing is lost, held by two, or handed out again once it was settled; counts, dead letters and results are right; and a
queue from which nothing could be received before, and something can now, is named in the effects. What joins publish
goes into a queue of its own: it has to be exactly what the model says, in any order.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from backwater_tornado.broker.values import (
    Binding,
    Effects,
    Exchange,
    Join,
    Outcome,
    PublishState,
    Queue,
    SettleState,
    Verdict,
)
from tests.stores import FAILED, OK, START, STOPPED, STORES, Hand, StoreKind, publication

REMEMBER = 60.0
TTL = 30.0
KEEP = 40.0
SESSIONS = ("s", "t")
QUEUES = {
    "q": Queue("q", max_priority=2, max_deliveries=3),
    "r": Queue("r", max_running=2, max_length=4, message_ttl=25.0, max_deliveries=None),
    "u": Queue("u", keep_dead=False, max_deliveries=1),
    "d": Queue("d", max_length=2, overflow="drop_head"),
    "t": Queue("t", transient=True, max_deliveries=3),
    "joined": Queue("joined"),
}
RECEIVED = [name for name in QUEUES if name != "joined"]
EXCHANGES = {"x": ("q", "r"), "y": ("t", "d")}
DROPPED = Outcome("dropped", failed=True)
JOINS = [(), (), ("j",), ("k",), ("j", "k")]
#: To be published, with the name of a queue or of an exchange.
PUBLICATIONS = st.fixed_dictionaries(
    {
        "name": st.sampled_from("abcdefghijkl"),
        "to": st.sampled_from(["q", "q", "r", "u", "d", "t", "x", "y"]),
        "priority": st.integers(0, 4),
        "delay": st.sampled_from([0.0, 0.0, 0.0, 10.0, 35.0]),
        "unique": st.sampled_from([None, None, "k"]),
        "joins": st.sampled_from(JOINS),
    }
)


@dataclass
class Copy:
    id: str
    queue: str
    seq: int
    priority: int
    due: float
    expires: float | None
    count: int = 0
    place: str = "waiting"
    reason: str = ""
    token: int = 0
    session: str = ""
    once: bool = False
    #: By its last session.
    claimable: bool = False


@dataclass
class Known:
    queues: tuple[str, ...] = ()
    exchange: str | None = None
    unique: str | None = None
    joins: tuple[str, ...] = ()
    failed: bool = False
    cancelled: bool = False
    gone_at: float | None = None


@dataclass
class Member:
    heard: float
    confirmed: int = 0
    last: list[int] = field(default_factory=list)
    number: int = 0


@dataclass
class Tally:
    join: Join | None = None
    members: set[str] = field(default_factory=set)
    failed: bool = False
    closed: bool = False
    until: float | None = None


@dataclass
class Model:
    now: float = START
    seq: int = 0
    copies: list[Copy] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    sessions: dict[str, Member] = field(default_factory=dict)
    results: dict[str, tuple[str, bool, float]] = field(default_factory=dict)
    joins: dict[str, Tally] = field(default_factory=dict)
    paused: bool = False

    def of(self, queue: str, *places: str) -> list[Copy]:
        return [copy for copy in self.copies if copy.queue == queue and copy.place in places]

    def ready(self, queue: str) -> list[Copy]:
        found = [
            copy
            for copy in self.of(queue, "waiting")
            if copy.due <= self.now and (copy.expires is None or copy.expires > self.now)
        ]
        return sorted(found, key=lambda copy: (-copy.priority, copy.seq))

    def room(self, queue: str) -> int:
        if queue == "q" and self.paused:
            return 0
        running = QUEUES[queue].max_running
        return 99 if running is None else running - len(self.of(queue, "leased"))

    def receivable(self) -> set[str]:
        return {queue for queue in QUEUES if self.ready(queue) and self.room(queue) > 0}

    def held(self, session: str) -> list[Copy]:
        return [copy for copy in self.copies if copy.place == "leased" and copy.session == session]

    def tell(self, name: str, outcome: Outcome, final: bool) -> None:
        there = self.results.get(name)
        if there is None or not there[1] or there[2] <= self.now:
            self.results[name] = outcome.state, final, self.now + KEEP

    def end(self, copy: Copy, outcome: Outcome | None, failed: bool | None = None) -> None:
        if outcome is not None:
            self.tell(copy.id, outcome, True)
        had_ended, copy.place = copy.place == "dead", "gone"
        if not had_ended:
            self.count(copy.id, outcome is not None and outcome.failed if failed is None else failed)
        if all(other.place == "gone" for other in self.copies if other.id == copy.id):
            self.known[copy.id].gone_at = self.now

    def bury(self, copy: Copy, reason: str, outcome: Outcome | None = None) -> None:
        if not QUEUES[copy.queue].keep_dead:
            self.end(copy, outcome or Outcome(reason), True)
            return
        if outcome or reason != "parked":
            self.tell(copy.id, outcome or Outcome(reason), reason != "parked")
        copy.place, copy.reason = "parked" if reason == "parked" else "dead", reason
        if copy.place == "dead":
            self.count(copy.id, True)

    def count(self, name: str, failed: bool) -> None:
        """One copy of a message has ended."""
        known = self.known[name]
        known.failed |= failed
        if any(copy.id == name and copy.place not in ("dead", "gone") for copy in self.copies):
            return
        for join in known.joins:
            tally = self.joins.setdefault(join, Tally(until=self.now + REMEMBER))
            tally.members.add(name)
            tally.failed |= known.failed
            self.come_together(tally)

    def join(self, join: Join) -> None:
        tally = self.joins.setdefault(join.id, Tally())
        if tally.join is None:
            tally.join, tally.until = join, None
            self.come_together(tally)

    def come_together(self, tally: Tally) -> None:
        join = tally.join
        if join is None or tally.closed or len(tally.members) < join.size:
            return
        self.close_join(tally)
        for published in join.otherwise if tally.failed and join.otherwise is not None else join.then:
            self.publish(published.message.id, "joined")

    def close_join(self, tally: Tally) -> None:
        tally.closed, tally.members, tally.until = True, set(), self.now + REMEMBER

    def come_back(self, copy: Copy, delay: float = 0.0, settled: bool = False) -> None:
        copy.claimable = not settled
        limit, ttl = QUEUES[copy.queue].max_deliveries, QUEUES[copy.queue].message_ttl
        if self.known[copy.id].cancelled:
            self.end(copy, STOPPED)
        elif limit is not None and copy.count >= limit:
            self.bury(copy, "max_deliveries")
        elif copy.once:
            self.bury(copy, "lost")
        else:
            copy.place, copy.due = "waiting", self.now + delay
            if delay and ttl is not None:
                copy.expires = copy.due + ttl

    def close(self, session: str) -> None:
        del self.sessions[session]
        for copy in self.held(session):
            self.come_back(copy)

    def sweep(self) -> None:
        for session in [name for name, member in self.sessions.items() if member.heard + TTL <= self.now]:
            self.close(session)
        for copy in self.copies:
            if copy.place == "waiting" and copy.expires is not None and copy.expires <= self.now:
                self.bury(copy, "expired")
        for name, tally in list(self.joins.items()):
            expires = None if tally.join is None else tally.join.expires
            if expires is not None and expires <= self.now and not tally.closed:
                self.close_join(tally)
            if tally.until is not None and tally.until <= self.now:
                del self.joins[name]
        for name, known in list(self.known.items()):
            if known.gone_at is not None and known.gone_at + REMEMBER <= self.now:
                del self.known[name]
                self.copies = [copy for copy in self.copies if copy.id != name]

    def holder(self, unique: str) -> str | None:
        held = (
            copy.id
            for copy in self.copies
            if self.known[copy.id].unique == unique and copy.place in ("waiting", "leased", "parked")
        )
        return next(held, None)

    def restart(self) -> None:
        """What is transient is gone."""
        for copy in self.of("t", "dead"):
            self.end(copy, None)
        for copy in self.of("t", "waiting", "parked", "leased"):
            self.end(copy, STOPPED if self.known[copy.id].cancelled and copy.place == "leased" else DROPPED)

    def publish(
        self,
        name: str,
        to: str,
        priority: int = 0,
        delay: float = 0.0,
        unique: str | None = None,
        joins: tuple[str, ...] = (),
    ) -> tuple[str, str]:
        known = self.known.get(name)
        if known is not None and known.exchange is not None:
            return ("duplicate", "") if known.exchange == to else ("refused", "id_of_another_message")
        if known is not None:
            known.exchange, known.gone_at, known.joins = to, self.now, joins
            self.tell(name, STOPPED, True)
            self.count(name, STOPPED.failed)
            return "accepted", ""
        if unique is not None and self.holder(unique) is not None:
            return "refused", "unique_key_held"
        queues = EXCHANGES.get(to, (to,))
        if "r" in queues and len(self.of("r", "waiting")) >= 4:
            return "refused", "queue_full"
        self.known[name] = Known(queues, to, unique, joins)
        for queue in queues:
            while queue == "d" and len(self.of("d", "waiting")) >= 2:
                delayed = sorted(self.of("d", "waiting"), key=lambda copy: (copy.due, copy.seq))
                self.bury([*self.ready("d"), *delayed][0], "dropped")
            self.seq += 1
            due = self.now + delay
            ttl = QUEUES[queue].message_ttl
            priority_here = min(priority, QUEUES[queue].max_priority)
            self.copies.append(Copy(name, queue, self.seq, priority_here, due, None if ttl is None else due + ttl))
        return "accepted", ""


class Histories(RuleBasedStateMachine):
    kind: StoreKind

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.hand = Hand(self.kind, Path(self.folder.name), REMEMBER)
        self.model = Model()
        self.tokens: list[int] = []
        self.done: set[int] = set()
        self.joined = 0
        bindings = [Binding(exchange, queue) for exchange, queues in EXCHANGES.items() for queue in queues]
        self.hand.declare(*QUEUES.values(), Exchange("x", "fanout"), Exchange("y", "fanout"), *bindings)
        for session in SESSIONS:
            self.open(session)

    def teardown(self) -> None:
        if hasattr(self, "hand"):
            self.hand.store.close()
            self.folder.cleanup()

    def look(self, before: set[str], effects: Effects | None = None) -> None:
        """Hold the store against the model, after a step."""
        model, hand = self.model, self.hand
        named = (effects or hand.effects).queues
        assert model.receivable() - before <= named
        for queue in QUEUES:
            waiting = model.of(queue, "waiting")
            ready = [copy for copy in waiting if copy.due <= model.now]
            dead = model.of(queue, "dead", "parked")
            counts = len(ready), len(waiting) - len(ready), len(model.of(queue, "leased")), len(dead)
            assert hand.counts(queue) == counts
        leased = [copy for copy in model.copies if copy.place == "leased"]
        assert sorted(hand.store.leased(None)) == sorted((copy.session, copy.token, copy.id) for copy in leased)
        put_aside = Counter((copy.id, copy.reason) for copy in model.copies if copy.place in ("dead", "parked"))
        assert Counter(hand.dead()) == put_aside
        for name, (state, final, until) in model.results.items():
            result = hand.result(name)
            if until <= model.now:
                assert result is None
            else:
                assert result is not None
                assert (result.outcome.state, result.final) == (state, final)

    @rule(session=st.sampled_from(SESSIONS))
    def open(self, session: str) -> None:
        self.hand.open(session, ttl=TTL)
        self.model.sessions.setdefault(session, Member(self.model.now)).heard = self.model.now

    @precondition(lambda self: self.tokens)
    @rule(session=st.sampled_from(SESSIONS), data=st.data())
    def claim(self, session: str, data: st.DataObject) -> None:
        before = self.model.receivable()
        tokens = data.draw(st.lists(st.sampled_from(self.tokens), unique=True))
        self.model.sessions.setdefault(session, Member(self.model.now)).heard = self.model.now
        member = self.model.sessions[session]
        expected = set()
        for copy in self.model.copies:
            if copy.token not in tokens or copy.session != session:
                continue
            if copy.place == "waiting" and copy.claimable:
                copy.place = "leased"
                member.number = max(member.number, copy.token)
            if copy.place == "leased":
                expected.add(copy.token)
        found = self.hand.open(session, ttl=TTL, claim=tokens)
        assert found == [token for token in tokens if token in expected]
        self.look(before)

    @rule(session=st.sampled_from(SESSIONS))
    def close(self, session: str) -> None:
        before = self.model.receivable()
        self.hand.close(session)
        if session in self.model.sessions:
            self.model.close(session)
        self.look(before)

    @rule(publications=st.lists(PUBLICATIONS, min_size=1, max_size=5))
    def publish(self, publications: list[dict[str, Any]]) -> None:
        model, before = self.model, self.model.receivable()
        sent, expected = [], []
        for drawn in publications:
            name, to, delay = drawn["name"], drawn["to"], drawn["delay"]
            more = {each: drawn[each] for each in ("priority", "unique", "joins")}
            routing = {"queue": "", "exchange": to} if to in EXCHANGES else {"queue": to}
            not_before = model.now + delay if delay else None
            sent.append(publication(name, **routing, **more, not_before=not_before, keep_result=KEEP))
            expected.append(model.publish(name, to, delay=delay, **more))
        published = self.hand.send(*sent)
        assert [(each.state, each.reason) for each in published] == expected
        for each, drawn in zip(published, publications, strict=True):
            if each.state in (PublishState.ACCEPTED, PublishState.DUPLICATE):
                assert sorted(each.queues) == sorted(model.known[drawn["name"]].queues)
        self.look(before)

    @rule(
        name=st.sampled_from("jk"),
        size=st.integers(0, 3),
        otherwise=st.sampled_from([None, 0, 1]),
        lasts=st.sampled_from([None, 20.0]),
    )
    def join(self, name: str, size: int, otherwise: int | None, lasts: float | None) -> None:
        before = self.model.receivable()
        self.joined += 1
        then, instead = (
            tuple(publication(f"{name}{self.joined}{sign}{number}", "joined") for number in range(many))
            for sign, many in (("+", 2), ("-", otherwise or 0))
        )
        expires = None if lasts is None else self.model.now + lasts
        join = Join(name, size, then, None if otherwise is None else instead, expires)
        self.hand.send(joins=(join,))
        self.model.join(join)
        self.look(before)

    @rule()
    def take_what_joins_published(self) -> None:
        before = self.model.receivable()
        self.hand.open("another")
        deliveries = self.hand.take("another", "joined")
        copies = self.model.of("joined", "waiting")
        assert sorted(delivery.message.id for delivery in deliveries) == sorted(copy.id for copy in copies)
        for delivery in deliveries:
            assert self.hand.settle(delivery, session="another") is SettleState.DONE
        for copy in copies:
            self.model.end(copy, None)
        self.hand.close("another")
        self.look(before)

    @precondition(lambda self: self.model.sessions)
    @rule(
        data=st.data(),
        wants=st.permutations(RECEIVED),
        credit=st.integers(0, 4),
        holds=st.sampled_from(["untold", "all", "some"]),
        lost=st.booleans(),
        waited=st.sampled_from([0.0, 0.0, 0.0, 12.0]),
    )
    def poll(self, data: st.DataObject, wants: list[str], credit: int, holds: str, lost: bool, waited: float) -> None:
        model, before = self.model, self.model.receivable()
        session = data.draw(st.sampled_from(sorted(model.sessions)))
        member = model.sessions[session]
        self.hand.now = model.now = model.now + waited
        member.heard = model.now
        told: tuple[int, ...] | None = None
        if holds != "untold":
            told = tuple(copy.token for copy in model.held(session) if copy.token <= member.confirmed)
            told = told[1:] if holds == "some" else told
            for copy in model.held(session):
                if copy.token <= member.confirmed and copy.token not in told:
                    model.come_back(copy)
        wanted = tuple((queue, 2) for queue in wants)
        batch = self.hand.poll(session, wants=wanted, credit=credit, confirmed=member.confirmed, held=told)
        effects = self.hand.effects
        again = [token for token in member.last if any(copy.token == token for copy in model.held(session))]
        if member.confirmed < member.number and again:
            assert [delivery.token for delivery in batch.deliveries] == again
            assert batch.number == member.number
        else:
            expected: list[Copy] = []
            for queue in wants:
                expected += model.ready(queue)[: max(0, min(2, credit - len(expected), model.room(queue)))]
            assert [(d.message.id, d.queue) for d in batch.deliveries] == [(copy.id, copy.queue) for copy in expected]
            for copy, delivery in zip(expected, batch.deliveries, strict=True):
                assert delivery.token > max(self.tokens, default=0)
                assert delivery.count == copy.count + 1
                self.tokens.append(delivery.token)
                copy.place, copy.count, copy.token, copy.session = "leased", delivery.count, delivery.token, session
            member.last = [delivery.token for delivery in batch.deliveries]
            assert batch.number >= member.number
            member.number = batch.number
        if not lost:
            member.confirmed = batch.number
        assert not self.done & {delivery.token for delivery in batch.deliveries}
        assert batch.cancelled == tuple(
            sorted(copy.token for copy in model.held(session) if model.known[copy.id].cancelled)
        )
        model.sweep()
        self.look(before, effects | self.hand.later(0))

    @precondition(lambda self: self.model.sessions and self.tokens)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(list(Verdict)),
        delay=st.sampled_from([0.0, 15.0]),
        outcome=st.sampled_from([None, OK, FAILED]),
        once=st.booleans(),
    )
    def settle(self, data: st.DataObject, verdict: Verdict, delay: float, outcome: Outcome | None, once: bool) -> None:
        model, before = self.model, self.model.receivable()
        session = data.draw(st.sampled_from(sorted(model.sessions)))
        mine = [copy.token for copy in model.held(session)]
        token = data.draw(st.sampled_from(mine) if mine and data.draw(st.booleans()) else st.sampled_from(self.tokens))
        state = self.hand.settle(token, verdict, outcome, session, delay=delay, once=once)
        model.sessions[session].heard = model.now
        copy = next((copy for copy in model.held(session) if copy.token == token), None)
        if copy is None:
            expected = SettleState.DONE if token in self.done else SettleState.STALE
            # A settlement is forgotten in its time; what it was is not looked at then.
            assert state is expected or (expected is SettleState.DONE and model.now > START + REMEMBER)
            self.look(before)
            return
        assert state is SettleState.DONE
        if verdict is Verdict.KEEP:
            copy.once |= once
            if outcome:
                model.tell(copy.id, outcome, False)
            self.look(before)
            return
        self.done.add(token)
        if verdict is Verdict.ACK:
            model.end(copy, outcome)
        elif verdict is Verdict.REJECT:
            model.bury(copy, "rejected", outcome)
        elif verdict in (Verdict.REQUEUE, Verdict.RETURN):
            copy.count -= verdict is Verdict.RETURN
            if outcome:
                model.tell(copy.id, outcome, False)
            model.come_back(copy, delay, settled=True)
        elif model.known[copy.id].cancelled:
            model.end(copy, STOPPED)
        else:
            model.bury(copy, "parked", outcome)
        self.look(before)

    @rule(seconds=st.sampled_from([1.0, 11.0, 25.0, 65.0]))
    def pass_time(self, seconds: float) -> None:
        before = self.model.receivable()
        due = self.hand.store.next_due(self.hand.now)
        self.model.now += seconds
        if self.model.receivable() - before:
            assert due is not None
            assert due <= self.model.now
        self.hand.later(seconds)
        self.model.sweep()
        self.look(before)

    @rule(name=st.sampled_from("abcdefghijkl"))
    def cancel(self, name: str) -> None:
        model, before = self.model, self.model.receivable()
        self.hand.cancel(name)
        known = model.known.get(name)
        if known is None:
            model.known[name] = Known(cancelled=True, gone_at=model.now)
        for copy in model.copies:
            if copy.id == name and copy.place in ("waiting", "parked"):
                model.end(copy, STOPPED)
            elif copy.id == name and copy.place == "leased":
                assert known is not None
                known.cancelled = True
                assert copy.session in self.hand.effects.sessions
        self.look(before)

    @rule()
    def purge(self) -> None:
        before, waiting = self.model.receivable(), self.model.of("q", "waiting")
        assert self.hand.purge("q") == len(waiting)
        for copy in waiting:
            self.model.end(copy, DROPPED)
        self.look(before)

    @rule()
    def pause(self) -> None:
        before = self.model.receivable()
        self.model.paused = not self.model.paused
        self.hand.queue("q", max_priority=2, max_deliveries=3, paused=self.model.paused)
        self.look(before)

    @rule(drop=st.booleans())
    def clear_up(self, drop: bool) -> None:
        model, before = self.model, self.model.receivable()
        letters = self.hand.store.dead_letters(None, 0, 1)
        assert (self.hand.drop if drop else self.hand.replay)(*[letter.number for letter in letters]) == len(letters)
        for letter in letters:
            name, queue = letter.message.id, letter.queue
            (copy,) = [copy for copy in model.of(queue, "dead", "parked") if copy.id == name]
            if drop:
                model.end(copy, DROPPED if copy.place == "parked" else None)
                continue
            others = [other for other in model.copies if other.id == name and other is not copy]
            if copy.place == "dead" and all(other.place in ("dead", "gone") for other in others):
                model.known[name].cancelled = False
            unique = model.known[name].unique
            if unique is not None and copy.place == "dead" and model.holder(unique) not in (None, name):
                model.known[name].unique = None
            model.results.pop(name, None)
            model.seq += 1
            ttl = QUEUES[queue].message_ttl
            expires = None if ttl is None else model.now + ttl
            copy.place, copy.seq, copy.due, copy.expires, copy.count = "waiting", model.seq, model.now, expires, 0
            copy.once = copy.claimable = False
        self.look(before)

    @rule()
    def restart(self) -> None:
        self.open("s")  # so that the store knows the time when it ends
        self.hand.reopen()
        if self.kind.survives:
            self.model.restart()
            self.hand.declare(QUEUES["t"], Binding("y", "t"))
        self.look(self.model.receivable(), Effects())


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", STORES, ids=lambda kind: kind.name)
def test_every_history_ends_as_the_model_says(kind: StoreKind) -> None:
    machine = type("Machine", (Histories,), {"kind": kind})
    # The variants of one store share most of it, and take long.
    bounded = settings(max_examples=100 if kind.name in ("memory", "sqlite") else 40, stateful_step_count=40)
    run_state_machine_as_test(machine, settings=bounded)
