"""Any canvas, planned, put into a store and worked off, ends as it would if its functions were called directly.

The worker here is small: it receives, runs or fails, settles. Each task's name has a number of its own, and its result
is that number with the arguments, so a value shows who was given what.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.values import Delivery, Outcome, Poll, PublishState, Queue, Session, Settlement
from backwater_tornado.errors import RemoteError, TaskRevoked, UpstreamFailed
from backwater_tornado.tasks.messages import Inputs, read_arguments, read_headers
from backwater_tornado.tasks.options import SendOptions
from backwater_tornado.tasks.outcomes import failed, read_outcome, revoked, succeeded
from backwater_tornado.tasks.signatures import Canvas, Chain, Group, Signature
from backwater_tornado.tasks.workflow import Context, Order, plan_canvas
from tests.stores import START

NOTHING = object()
QUEUES = ("default", "other")


# Canvases ------------------------------------------------------------------------------------------------------------

flags = st.booleans()
calls = st.builds(
    lambda kind, immutable, well, badly, ignored, queue: Signature(
        kind,
        immutable=immutable,
        options=SendOptions(
            link=tuple(Signature(each) for each in well),
            link_error=tuple(Signature(each) for each in badly),
            ignore_result=ignored,
            queue=queue,
        ),
    ),
    st.sampled_from(["ok", "ok", "ok", "bad"]),
    flags,
    st.lists(st.sampled_from(["ok", "bad"]), max_size=2),
    st.lists(st.sampled_from(["ok", "bad"]), max_size=2),
    flags,
    st.sampled_from([None, "other"]),
)


def several(inner: st.SearchStrategy[Canvas]) -> st.SearchStrategy[Canvas]:
    return st.lists(inner, min_size=1, max_size=4).map(lambda each: Chain(tuple(each))) | st.lists(
        inner, max_size=4
    ).map(lambda each: Group(tuple(each)))


canvases = st.recursive(calls, several, max_leaves=12)


def numbered(canvas: Any, numbers: Any) -> Any:
    """The canvas with a name of its own for each call."""
    match canvas:
        case Chain(steps):
            return Chain(tuple(numbered(each, numbers) for each in steps))
        case Group(members):
            return Group(tuple(numbered(each, numbers) for each in members))
    named = Signature(f"{canvas.task}.{next(numbers)}", options=canvas.options, immutable=canvas.immutable)
    return named.set(
        **{
            option: [numbered(each, numbers) for each in getattr(canvas.options, option)]
            for option in ("link", "link_error")
        }
    )


# What should come of them --------------------------------------------------------------------------------------------

UPSTREAM = "upstream failed"
RAISED = "raised"
CANCELLED = "cancelled"


@dataclass
class Called:
    """What comes of calling the functions of a canvas.

    Attributes:
        cancelled: the names of those that were cancelled before.
        ends: how each ended, by name.
    """

    cancelled: set[str] = field(default_factory=set)
    ends: dict[str, Any] = field(default_factory=dict)

    def evaluate(self, canvas: Any, before: Any = NOTHING, upstream_failed: bool = False) -> tuple[Any, bool]:
        """Its value and whether it has failed."""
        match canvas:
            case Chain(steps):
                for step in steps:
                    before, upstream_failed = self.evaluate(step, before, upstream_failed)
                return before, upstream_failed
            case Group(members):
                found = [self.evaluate(each, before, upstream_failed) for each in members]
                return [value for value, _ in found], upstream_failed or any(bad for _, bad in found)
        name, value = canvas.task, [canvas.task, *([] if before is NOTHING or canvas.immutable else [before])]
        reasons = [(name in self.cancelled, CANCELLED), (upstream_failed, UPSTREAM), (name.startswith("bad"), RAISED)]
        self.ends[name] = next((end for holds, end in reasons if holds), value)
        bad = self.ends[name] is not value
        for link in canvas.options.link_error if bad else canvas.options.link:
            self.evaluate(link, f"the id of {name}" if bad else value)
        return value, bad


def names(canvas: Any) -> list[str]:
    """Of all calls, in the order of their ids."""
    match canvas:
        case Chain(parts) | Group(parts):
            return [name for part in parts for name in names(part)]
    links = (*canvas.options.link, *canvas.options.link_error)
    return [canvas.task, *(name for link in links for name in names(link))]


# The worker ----------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    store: MemoryStore
    dice: random.Random
    #: The name of each call by its id.
    names: dict[str, str]
    runs: Counter[str] = field(default_factory=Counter)

    def work_off(self) -> None:
        """Until nothing is left to do; each batch is settled in any order, some of it later than what comes next."""
        self.store.open_session(Session("s", "me"), START)
        held: list[Delivery] = []
        confirmed = 0
        while True:
            poll = Poll(tuple((queue, 3) for queue in QUEUES), self.dice.randint(1, 4), confirmed)
            batch, _ = self.store.receive("s", poll, START)
            confirmed = batch.number
            held += [each for each in batch.deliveries if each not in held]
            if not held:
                break
            self.dice.shuffle(held)
            keep = self.dice.randint(0, len(held) - 1)
            ended, held = held[keep:], held[:keep]
            settlements = [Settlement(each.token, outcome=self.run(each)) for each in ended]
            self.store.settle("s", settlements, START)
        self.store.close_session("s", START)

    def run(self, delivery: Delivery) -> Outcome:
        headers = read_headers(delivery.message)
        self.runs[headers.task] += 1
        assert self.names[delivery.message.id] == headers.task
        if headers.upstream_failed:
            return failed(UpstreamFailed())
        before = [] if headers.inputs is None else [self.fetch(headers.inputs, by_id=headers.inputs_by_id)]
        args, kwargs = read_arguments(delivery.message)
        assert (args, kwargs) == ([], {})
        if headers.task.startswith("bad"):
            return failed(ValueError(headers.task))
        return succeeded([headers.task, *before])

    def fetch(self, inputs: Inputs, *, by_id: bool = False) -> Any:
        if not isinstance(inputs, str):
            return [self.fetch(each) for each in inputs]
        if by_id:
            return f"the id of {self.names[inputs]}"
        (result,) = self.store.results([inputs], START)
        assert result is not None
        assert result.final
        assert not result.outcome.failed
        return read_outcome(result.outcome)

    def end_of(self, id: str) -> Any:
        (result,) = self.store.results([id], START)
        if result is None:
            return None
        assert result.final
        value = read_outcome(result.outcome)
        known = {UpstreamFailed: UPSTREAM, TaskRevoked: CANCELLED, RemoteError: RAISED}
        return known[type(value)] if isinstance(value, Exception) else value


def worked_off(canvas: Canvas, seed: int, cancelled: set[str]) -> tuple[Worker, Order]:
    numbers = count()
    order = plan_canvas(canvas, Context(now=START, new_id=lambda: f"id-{next(numbers)}"))
    store = MemoryStore()
    store.declare([Queue(name) for name in QUEUES], START)
    worker = Worker(store, random.Random(seed), dict(zip(order.ids, names(canvas), strict=True)))
    store.cancel([each for each, name in worker.names.items() if name in cancelled], revoked(), START)
    answers, _ = store.publish(order.publications, START, order.joins)
    assert all(each.state is PublishState.ACCEPTED for each in answers)
    worker.work_off()
    return worker, order


@given(canvases, st.integers())
def test_any_canvas_ends_as_if_its_functions_were_called(drawn: Canvas, seed: int) -> None:
    look_at(numbered(drawn, count()), seed, set())


@given(canvases, st.integers(), st.data())
def test_any_canvas_ends_whatever_is_cancelled(drawn: Canvas, seed: int, data: st.DataObject) -> None:
    canvas = numbered(drawn, count())
    called = names(canvas)
    look_at(canvas, seed, data.draw(st.sets(st.sampled_from(called)), "cancelled") if called else set())


def look_at(canvas: Canvas, seed: int, cancelled: set[str]) -> None:
    called = Called(cancelled)
    value, bad = called.evaluate(canvas)
    worker, order = worked_off(canvas, seed, cancelled)
    run = [name for name, end in called.ends.items() if end != CANCELLED]
    assert worker.runs == dict.fromkeys(run, 1)  # all of them, and none twice
    kept = {name: end for each, name in worker.names.items() if (end := worker.end_of(each)) is not None}
    fired = {name: end for name, end in kept.items() if name in called.ends}
    assert fired == {name: called.ends[name] for name in fired}
    assert called.ends.keys() - kept.keys() <= ignored(canvas)
    assert kept.keys() - fired.keys() <= cancelled  # links that nobody sent
    if not bad and order.is_kept:
        assert worker.fetch(order.result) == value
    assert worker.store.next_due(START) is None  # no join is left that waits for somebody


def ignored(canvas: Any) -> set[str]:
    """The names of those whose results nobody asks for."""
    match canvas:
        case Chain(parts) | Group(parts):
            return set().union(*map(ignored, parts))
    below = [ignored(each) for each in (*canvas.options.link, *canvas.options.link_error)]
    return set().union(*below, {canvas.task} if canvas.options.ignore_result else ())
