"""Random histories of an outbox: what is put in while the link loses, refuses and cuts, and forwarders come and go.

In the end each message is in the broker once, in the order of its queue, or is kept with a reason; and none is in it
twice at any time. Choosing is also looked at by itself: nothing is overtaken.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backwater_tornado.broker.values import Queue
from backwater_tornado.errors import CallFailed, DeadlineExceeded, Draining, OutcomeUnknown, StorageFailed, Unreachable
from backwater_tornado.outbox import rules
from backwater_tornado.outbox.forwarder import Forwarder
from backwater_tornado.outbox.parcels import Place, open_parcel
from backwater_tornado.outbox.rules import Room, choose
from backwater_tornado.outbox.sqlite_store import SqliteOutbox
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.flows import MAX_BYTES
from backwater_tornado.tasks.signatures import Canvas, chain, group, signature
from tests.unit.outbox.lines import NOW, Line, parcels

PATIENCE = 30.0
QUEUES = ("a", "b", "c")
#: Messages in a request.
MOST = 4
#: Takes only so many.
NARROW = Queue("narrow", max_length=3)

# Choosing ------------------------------------------------------------------------------------------------------------

places = st.lists(
    st.builds(
        lambda queues, messages, size: (tuple(queues), messages, size),
        st.sets(st.sampled_from("abcde"), min_size=1, max_size=3),
        st.integers(1, 5),
        st.integers(0, 50),
    ),
    max_size=25,
).map(lambda rows: [Place(number, *row) for number, row in enumerate(rows, 1)])
rooms = st.builds(Room, st.integers(1, 20), st.integers(1, 200))


@given(places, st.sets(st.sampled_from("abcde"), max_size=2), rooms)
def test_a_choice_overtakes_nothing_and_fits(waiting: list[Place], busy: set[str], room: Room) -> None:
    chosen = choose(waiting, busy, room)
    assert chosen == [each for each in waiting if each in chosen]
    barred = set(busy)
    for each in waiting:
        if each in chosen:
            assert barred.isdisjoint(each.queues)
        else:
            barred.update(each.queues)
    if len(chosen) > 1:
        assert sum(each.messages for each in chosen) <= room.messages
        assert sum(each.size for each in chosen) <= room.size


@given(places, rooms)
def test_all_goes_in_the_end(waiting: list[Place], room: Room) -> None:
    left = list(waiting)
    while left:
        chosen = choose(left, (), room)
        assert chosen
        assert left[0] in chosen
        left = [each for each in left if each not in chosen]


# Histories -----------------------------------------------------------------------------------------------------------

calls = st.sampled_from((*QUEUES, NARROW.name)).map(lambda queue: signature("m.f", queue=queue))
canvases: st.SearchStrategy[Canvas] = st.one_of(
    calls,
    st.lists(calls, min_size=2, max_size=3).map(group),
    st.just(chain(signature("m.f", queue="a"), signature("m.g", queue="later"))),
)
FAILURES: tuple[type[CallFailed], ...] = (Unreachable, OutcomeUnknown, DeadlineExceeded, Draining, StorageFailed)
#: What happens to one ask: how long it is on its way, in turns of the loop; where it is lost, if it is.
faults = st.tuples(
    st.integers(0, 6),
    st.one_of(
        st.none(),
        st.tuples(st.just("before"), st.sampled_from(FAILURES)),
        st.tuples(st.just("after"), st.sampled_from((OutcomeUnknown, DeadlineExceeded))),
    ),
)
#: Put something in; let so many asks through; another forwarder takes over, at once or in the middle of an ask.
steps = st.one_of(
    st.tuples(st.just("put"), st.lists(canvases, min_size=1, max_size=4)),
    st.tuples(st.just("run"), st.integers(1, 4)),
    st.tuples(st.just("restart"), st.booleans()),
)


class History:
    """One outbox, one broker, one forwarder after the other."""

    def __init__(self, folder: str, harm: Iterator[Any]) -> None:
        self.box = SqliteOutbox(Path(folder) / "o.db")
        self.line = Line()
        self.line.before, self.line.after = self._before, self._after
        self._harm = harm
        self._faults: dict[int, Any] = {}
        self.asked = 0
        self._running: asyncio.Task[None] | None = None
        self._forwarder: Forwarder | None = None
        #: What was put in, by queue, in order.
        self.sent: dict[str, list[str]] = {each: [] for each in (*QUEUES, NARROW.name)}

    async def _before(self, ask: Ask[Any]) -> None:
        self.asked += 1
        turns, fault = self._faults[id(ask)] = next(self._harm, (0, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        if fault is not None and fault[0] == "before":
            raise fault[1]

    async def _after(self, ask: Ask[Any]) -> None:
        turns, fault = self._faults.pop(id(ask))
        for _ in range(turns):
            await asyncio.sleep(0)
        if fault is not None and fault[0] == "after":
            raise fault[1]

    def put(self, given: list[Canvas]) -> None:
        made = parcels(*given)
        for parcel in made:
            for publication in open_parcel(parcel, NOW).publications:
                self.sent[publication.routing_key].append(publication.message.id)
        self.box.put(made)

    async def run(self, asks: int) -> None:
        """Until so many more asks have begun, or all has gone."""
        until = self.asked + asks
        if self._running is None:
            self._forwarder = Forwarder(self.box, self.line, lambda: NOW, lambda: -1.0)
            self._forwarder._room = Room(MOST, MAX_BYTES)
            self._running = asyncio.create_task(self._forwarder.run())
        async with asyncio.timeout(PATIENCE):
            while self.asked < until and self.box.is_waiting(self.box.last_number()):  # noqa: ASYNC110 - a file rings no bell
                await asyncio.sleep(0)

    async def restart(self, cut: bool) -> None:
        if self._running is None or self._forwarder is None:
            return
        if cut:  # as the kernel does it: no word of good-bye
            self._running.cancel()
        else:
            self._forwarder.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        self._running = None

    async def finish(self) -> None:
        self._harm = iter(())
        await self.run(10**9)
        await self.restart(cut=False)


def check(history: History) -> None:
    line, kept = history.line, {each.parcel.id for each in history.box.refused(10_000)}
    for queue in QUEUES:
        assert line.received(queue) == history.sent[queue]
    there = line.received(NARROW.name)
    assert there == [each for each in history.sent[NARROW.name] if each in set(there)]
    assert len(there) <= 3
    assert kept == set(history.sent[NARROW.name]) - set(there)
    everything = [each for queue in QUEUES for each in history.sent[queue]] + there
    assert max(Counter(everything).values(), default=1) == 1
    assert history.box.status().waiting == {}


@pytest.fixture
def small_requests() -> Iterator[None]:
    """So that several are on their way, and more of them wait."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rules, "MAX_MESSAGES", MOST)
        patched.setattr(rules, "LEAST_MESSAGES", 1)
        yield


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("small_requests")
@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=12), st.lists(faults, max_size=40))
def test_whatever_happens_each_message_arrives_once_and_in_order(told: list[Any], harm: list[Any]) -> None:
    async def live(history: History) -> None:
        for step, value in told:
            if step == "put":
                history.put(value)
            elif step == "run":
                await history.run(value)
            else:
                await history.restart(value)
        await history.finish()

    with tempfile.TemporaryDirectory() as folder:
        history = History(folder, iter(harm))
        history.line.declare(NARROW)
        asyncio.run(live(history))
        check(history)
        history.box.close()
