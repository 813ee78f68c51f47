"""Random lives of a task in a broker's store: what the store says of it follows the table of states."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from backwater_tornado.broker.values import Outcome, SettleState, Verdict
from backwater_tornado.tasks.states import FINAL, TRANSITIONS, Event, State, state_of
from tests.stores import STORES, Hand

#: Longer than any life here.
KEEP = 1_000_000.0


class Life:
    """One task in one queue, and a worker that takes it and loses it.

    What can be done gives whether something has happened to the task by it, as far as that can be told.
    """

    def __init__(self, folder: Path) -> None:
        self.hand = Hand(STORES[0], folder)
        self.hand.queue(max_deliveries=2)
        self.hand.open()
        self.hand.put("task", keep_result=KEEP, expires=self.hand.now + 30)
        self.token = 0

    def known(self) -> State:
        word = self.hand.state("task")
        return State.PENDING if word is None else state_of(word)

    def deliver(self) -> bool:
        deliveries = self.hand.take()
        self.token = deliveries[0].token if deliveries else self.token
        return bool(deliveries)

    def settle(self, verdict: Verdict, outcome: Outcome | None) -> bool:
        held = bool(self.hand.store.leased(None))
        return self.hand.settle(self.token, verdict, outcome) is SettleState.DONE and held

    def lose(self) -> bool:
        held = bool(self.hand.store.leased(None))
        self.hand.close()
        self.hand.open()
        return held

    def wait(self) -> bool:
        self.hand.later(20)
        self.hand.open()
        return False

    def cancel(self) -> bool:
        self.hand.cancel("task", outcome=Outcome(State.REVOKED, failed=True))
        return False

    def drop(self) -> bool:
        parked = ("task", "parked") in self.hand.dead()
        return self.hand.drop(*self.hand.numbers()) == 1 and parked


def saying(state: State, verdict: Verdict) -> Callable[[Life], bool]:
    return lambda life: life.settle(verdict, Outcome(state, failed=state is State.FAILURE))


#: What may be done, and what may happen to the task by it.
DEEDS: Mapping[str, tuple[Callable[[Life], bool], set[Event]]] = {
    # A poll looks at what has expired, too.
    "deliver": (Life.deliver, {Event.DELIVERED, Event.EXPIRED}),
    "start": (saying(State.STARTED, Verdict.KEEP), {Event.STARTED}),
    "progress": (saying(State.PROGRESS, Verdict.KEEP), {Event.PROGRESSED}),
    "retry": (saying(State.RETRY, Verdict.REQUEUE), {Event.RETRIED, Event.EXHAUSTED, Event.REVOKED}),
    "succeed": (saying(State.SUCCESS, Verdict.ACK), {Event.SUCCEEDED}),
    "fail": (saying(State.FAILURE, Verdict.REJECT), {Event.FAILED}),
    "reject": (lambda life: life.settle(Verdict.REJECT, None), {Event.FAILED}),
    "park": (lambda life: life.settle(Verdict.PARK, None), {Event.PARKED, Event.REVOKED}),
    "lose the worker": (Life.lose, {Event.RETURNED, Event.EXHAUSTED, Event.REVOKED}),
    "wait": (Life.wait, {Event.EXPIRED, Event.RETURNED, Event.EXHAUSTED, Event.REVOKED}),
    "cancel": (Life.cancel, {Event.REVOKED}),
    "purge": (lambda life: life.hand.purge() == 1, {Event.DROPPED}),
    "drop": (Life.drop, {Event.DROPPED}),
    "replay": (lambda life: life.hand.replay(*life.hand.numbers()) == 1, {Event.REPLAYED}),
}
#: Little happens to a task that nobody has.
OFTEN = ["deliver", "start", "lose the worker"] * 3


@settings(max_examples=400)
@given(st.lists(st.sampled_from([*OFTEN, *DEEDS]), min_size=3, max_size=15))
def test_the_store_leads_a_task_from_state_to_state_as_the_table_has_it(deeds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder))
        before = life.known()
        for deed in deeds:
            act, events = DEEDS[deed]
            happened = act(life)
            after = life.known()
            reached = {TRANSITIONS[before, event] for event in events if (before, event) in TRANSITIONS}
            assert after in reached or (after is before and not happened), deed
            assert before not in FINAL or after is before or deed == "replay"
            before = after


@given(st.lists(st.sampled_from(list(Event)), max_size=30))
def test_what_has_ended_stays_as_it_is_whatever_happens_but_a_replay(events: list[Event]) -> None:
    state = State.PENDING
    for event in events:
        after = TRANSITIONS.get((state, event), state)
        assert after is state or state not in FINAL or event is Event.REPLAYED
        state = after
