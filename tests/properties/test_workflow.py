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
from backwater_tornado.errors import UpstreamFailed
from backwater_tornado.tasks.messages import Inputs, read_arguments, read_headers
from backwater_tornado.tasks.options import SendOptions
from backwater_tornado.tasks.outcomes import failed, read_outcome, succeeded
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


def evaluate(canvas: Any, before: Any, upstream_failed: bool, ends: dict[str, Any]) -> tuple[Any, bool]:
    """Its value and whether it has failed; how each of its calls ends goes into `ends`, by name."""
    match canvas:
        case Chain(steps):
            for step in steps:
                before, upstream_failed = evaluate(step, before, upstream_failed, ends)
            return before, upstream_failed
        case Group(members):
            found = [evaluate(each, before, upstream_failed, ends) for each in members]
            return [value for value, _ in found], upstream_failed or any(bad for _, bad in found)
    value = [canvas.task, *([] if before is NOTHING or canvas.immutable else [before])]
    bad = upstream_failed or canvas.task.startswith("bad")
    ends[canvas.task] = UPSTREAM if upstream_failed else RAISED if bad else value
    for link in canvas.options.link_error if bad else canvas.options.link:
        evaluate(link, f"the id of {canvas.task}" if bad else value, False, ends)
    return value, bad


# The worker ----------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    store: MemoryStore
    dice: random.Random
    runs: Counter[str] = field(default_factory=Counter)
    ids: dict[str, str] = field(default_factory=dict)

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
        self.ids[delivery.message.id] = headers.task
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
            return f"the id of {self.ids[inputs]}"
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
        if isinstance(value, UpstreamFailed):
            return UPSTREAM
        return RAISED if isinstance(value, Exception) else value


def worked_off(canvas: Canvas, seed: int) -> tuple[Worker, Order]:
    numbers = count()
    order = plan_canvas(canvas, Context(now=START, new_id=lambda: f"id-{next(numbers)}"))
    store = MemoryStore()
    store.declare([Queue(name) for name in QUEUES], START)
    answers, _ = store.publish(order.publications, START, order.joins)
    assert all(each.state is PublishState.ACCEPTED for each in answers)
    worker = Worker(store, random.Random(seed))
    worker.work_off()
    return worker, order


@given(canvases, st.integers())
def test_any_canvas_ends_as_if_its_functions_were_called(drawn: Canvas, seed: int) -> None:
    canvas = numbered(drawn, count())
    ends: dict[str, Any] = {}
    value, bad = evaluate(canvas, NOTHING, False, ends)
    worker, order = worked_off(canvas, seed)
    assert worker.runs == dict.fromkeys(ends, 1)  # all of them, and none twice
    kept = {task: end for each, task in worker.ids.items() if (end := worker.end_of(each)) is not None}
    assert kept == {task: ends[task] for task in kept}
    left_out = {task for task in ends if task not in kept}
    assert left_out <= ignored(canvas)
    if not bad and not left_out:
        assert worker.fetch(order.result) == value
    assert set(worker.ids) <= set(order.ids)
    assert worker.store.next_due(START) is None  # no join is left that waits for somebody


def ignored(canvas: Any) -> set[str]:
    """The names of those whose results nobody asks for."""
    match canvas:
        case Chain(parts) | Group(parts):
            return set().union(*map(ignored, parts))
    below = [ignored(each) for each in (*canvas.options.link, *canvas.options.link_error)]
    return set().union(*below, {canvas.task} if canvas.options.ignore_result else ())
