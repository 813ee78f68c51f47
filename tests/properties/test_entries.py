"""Any number of workers that look after one entry, in any order, with old knowledge and with clocks that differ."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.values import Entry, Message, Poll, Publication, Queue, Session
from backwater_tornado.tasks.entries import SKEW, make_entry, publication_of, step_of
from backwater_tornado.tasks.schedule import Every

START = 1_700_000_000.0
PERIOD = 60.0
WORKERS = 3
PATTERN = Publication(Message("pattern", b""), "jobs")


class Workers:
    """They look at the schedule, and some time later do what they found to be done."""

    def __init__(self, skews: list[float], catch_up: bool) -> None:
        self.now, self.skews = START, skews
        self.store = MemoryStore()
        self.store.declare([Queue("jobs")], START)
        self.store.open_session(Session("s", "", 1e9), START)
        self.entry = make_entry("e", Every(PERIOD, catch_up), PATTERN, START)
        assert self.store.plan(self.entry, None, START, None)[0]
        self.seen: list[Entry] = [self.entry] * WORKERS
        #: How often each run was made.
        self.made: Counter[str] = Counter()

    def look(self, worker: int) -> None:
        (self.seen[worker],) = self.store.schedule()

    def act(self, worker: int) -> None:
        entry = self.seen[worker]
        step = step_of(entry, self.now + self.skews[worker])
        if step is not None:
            publication = publication_of(entry) if step.is_run else None
            won, _ = self.store.plan(step.entry, entry.due, self.now, publication)
            if won and publication is not None:
                self.made[publication.message.id] += 1

    def published(self) -> list[str]:
        batch, _ = self.store.receive("s", Poll((("jobs", 1000),), 1000), self.now)
        return [delivery.message.id for delivery in batch.deliveries]


acts = st.lists(
    st.tuples(st.sampled_from(["look", "act", "both"]), st.integers(0, WORKERS - 1), st.floats(0, 3 * PERIOD)),
    max_size=40,
)
skews = st.lists(st.floats(-SKEW / 2, SKEW / 2), min_size=WORKERS, max_size=WORKERS)


@given(skews, st.booleans(), acts)
def test_no_run_is_made_twice(skews: list[float], catch_up: bool, acts: list[tuple[str, int, float]]) -> None:
    workers = Workers(skews, catch_up)
    for act, worker, seconds in acts:
        workers.now += seconds
        if act != "act":
            workers.look(worker)
        if act != "look":
            workers.act(worker)
    assert set(workers.made.values()) <= {1}
    assert sorted(workers.published()) == sorted(workers.made)


@given(skews, acts)
def test_no_run_is_left_out_where_all_is_caught_up(skews: list[float], acts: list[tuple[str, int, float]]) -> None:
    workers = Workers(skews, catch_up=True)
    for _, worker, seconds in acts:
        workers.now += seconds
        workers.look(worker)
        workers.act(worker)
    (entry,) = workers.store.schedule()
    runs = round((entry.due - workers.entry.due) / PERIOD)
    assert workers.published() == [f"e@{workers.entry.due + number * PERIOD:.3f}" for number in range(runs)]


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_however_the_clock_is_set_a_run_is_published_once_and_the_next_is_near(jumps: list[float]) -> None:
    workers = Workers([0.0] * WORKERS, catch_up=False)
    for jump in jumps:
        workers.now += jump
        for _ in range(2):
            workers.look(0)
            workers.act(0)
        (entry,) = workers.store.schedule()
        assert workers.now < entry.due <= workers.now + SKEW + PERIOD
    assert set(workers.published()) == set(workers.made)
    assert len(set(workers.published())) == len(workers.published())
