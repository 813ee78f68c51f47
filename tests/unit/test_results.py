"""Handles of what was sent, on a broker in this process: what they tell, and that both kinds have the same verbs."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import Batch, Delivery, Outcome, Poll, Settlement, Verdict, unpack
from backwater_tornado.driving import drive, drive_async
from backwater_tornado.errors import DeadlineExceeded, InvalidOption, RemoteError, TaskRevoked
from backwater_tornado.results import AsyncResult, AwaitableResult, GroupResult, make_awaitable, make_result
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.companions import Companions
from backwater_tornado.tasks.flows import Flow, send_flow
from backwater_tornado.tasks.outcomes import failed, progressed, succeeded
from backwater_tornado.tasks.signatures import Canvas, chain, group, signature
from backwater_tornado.tasks.states import State
from backwater_tornado.tasks.workflow import Context, Order, plan_canvas

NOW = 1_000.0


class InPlace:
    """A broker in this process with a worker that does as it is told; drives flows in either way."""

    poll_wait = 0.05
    clock = staticmethod(time.monotonic)
    rethrow = False
    exceptions: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.broker = Broker(Direct(MemoryStore()), clock=lambda: NOW)
        self.numbers = count(1)
        self.confirmed = 0
        self.held: dict[str, Delivery] = {}
        self.asked: list[str] = []
        self.companions = Companions()
        self.ask(asks.open_session("s", 60.0))

    def ask(self, ask: asks.Ask[Any]) -> Any:
        return asyncio.run(self._ask(ask))

    async def _ask(self, ask: asks.Ask[Any]) -> Any:
        self.asked.append(ask.verb)
        answer = await getattr(self.broker, ask.verb)(*ask.args)
        return unpack(answer, ask.returns) if ask.packed else answer

    def drive(self, flow: Flow[Any]) -> Any:
        return drive(flow, self.ask)

    async def drive_async(self, flow: Flow[Any]) -> Any:
        return await drive_async(flow, self._ask)

    def order(self, canvas: Canvas) -> Order:
        order = plan_canvas(canvas, Context(now=NOW, new_id=lambda: f"id{next(self.numbers)}"))
        self.drive(send_flow([order]))
        return order

    def say(self, id: str, outcome: Outcome, verdict: Verdict = Verdict.ACK) -> None:
        """As a worker that runs this task."""
        batch: Batch = self.ask(asks.receive("s", Poll((("default", 1_000),), 1_000, self.confirmed), 0.0))
        self.confirmed = batch.number
        self.held |= {each.message.id: each for each in batch.deliveries}
        self.ask(asks.settle("s", [Settlement(self.held[id].token, verdict, outcome)]))


class OnTheLoop:
    """The same broker for awaitable results."""

    def __init__(self, app: InPlace) -> None:
        self.poll_wait, self.clock, self.rethrow, self.exceptions = (
            app.poll_wait,
            app.clock,
            app.rethrow,
            app.exceptions,
        )
        self.drive = app.drive_async


@pytest.fixture
def app() -> InPlace:
    return InPlace()


A, B, C = (signature(f"m.{name}") for name in "abc")


def sent(app: InPlace, canvas: Canvas) -> Any:
    return make_result(app.order(canvas), app)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


# One task ------------------------------------------------------------------------------------------------------------


def test_a_task_that_waits_is_pending_and_nothing_is_known_of_it(app: InPlace) -> None:
    result = sent(app, A)
    assert (result.state, result.status, result.ready(), result.successful(), result.failed()) == (
        *(State.PENDING, State.PENDING),
        *(False, False, False),
    )
    assert (result.result, result.info, result.progress, result.traceback, result.date_done) == (None,) * 5
    with pytest.raises(DeadlineExceeded):
        result.get(timeout=0)


def test_one_question_brings_the_results_of_others_that_were_sent(app: InPlace) -> None:
    first, second, third = (sent(app, A) for _ in range(3))
    app.say(first.id, succeeded(1))
    app.say(second.id, failed(raised(ValueError("no"))))
    app.asked.clear()
    assert first.get() == 1
    with pytest.raises(RemoteError, match="no"):
        second.get()
    assert app.asked == ["results"]
    app.say(third.id, succeeded(3))
    assert (third.get(), first.get()) == (3, 1)
    assert app.asked.count("results") == 3


def test_what_was_forgotten_is_not_known_from_another_question(app: InPlace) -> None:
    first, second = sent(app, A), sent(app, A)
    app.say(first.id, succeeded(1))
    app.say(second.id, succeeded(2))
    first.get()
    second.forget()
    with pytest.raises(DeadlineExceeded):
        second.get(timeout=0)


def test_nobody_asks_for_what_is_kept_for_nobody(app: InPlace) -> None:
    first, other = sent(app, A), sent(app, A.set(ignore_result=True))
    assert app.companions.choose() == [first.id]
    assert not other.is_kept


def test_a_task_that_runs_tells_how_far_it_is(app: InPlace) -> None:
    result = sent(app, A)
    app.say(result.id, progressed({"done": 5}), Verdict.KEEP)
    assert result.look() == (State.PROGRESS, {"done": 5})
    assert (result.state, result.progress, result.info, result.ready()) == (
        State.PROGRESS,
        {"done": 5},
        {"done": 5},
        False,
    )
    assert result.date_done is None


def test_the_tasks_that_a_task_has_sent_are_its_children(app: InPlace) -> None:
    order = app.order(A)
    result = make_result(order, app)
    assert result.children == []
    app.say(result.id, msgspec.structs.replace(succeeded(1), children=("x", "y")))
    assert [child.id for child in result.children] == ["x", "y"]
    on_the_loop: AwaitableResult[Any] = make_awaitable(order, OnTheLoop(app))
    assert [child.id for child in asyncio.run(on_the_loop.children())] == ["x", "y"]


def test_a_task_that_ended_well_gives_its_value(app: InPlace) -> None:
    result = sent(app, A)
    app.say(result.id, succeeded([1, 2]))
    assert (result.get(), result.get(timeout=0), result.result, result.state) == ([1, 2], [1, 2], [1, 2], State.SUCCESS)
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert (result.progress, result.traceback, result.date_done) == (None, None, NOW)


def test_a_task_that_raised_raises_here_or_gives_its_error(app: InPlace) -> None:
    result = sent(app, A)
    app.say(result.id, failed(raised(ValueError("no"))))
    with pytest.raises(RemoteError, match="ValueError: no"):
        result.get()
    assert result.get(propagate=False).type == "ValueError"
    assert (result.state, result.failed(), result.successful(), result.ready()) == (State.FAILURE, True, False, True)
    assert result.result.message == "no"
    assert "ValueError: no" in result.traceback


def test_an_error_is_of_its_own_class_where_that_was_asked_for(app: InPlace) -> None:
    app.rethrow = True
    result = sent(app, A)
    app.say(result.id, failed(raised(KeyError("no"))))
    with pytest.raises(KeyError):
        result.get()
    assert "KeyError" in result.traceback


def test_a_task_that_is_to_run_again_tells_why(app: InPlace) -> None:
    result = sent(app, A)
    app.say(result.id, failed(raised(OSError("down")), State.RETRY), Verdict.KEEP)
    assert (result.state, result.ready(), result.result.message) == (State.RETRY, False, "down")
    assert "OSError" in result.traceback


def test_a_task_that_was_revoked_raises_that(app: InPlace) -> None:
    result = sent(app, A)
    result.revoke()
    with pytest.raises(TaskRevoked):
        result.get()
    assert (result.state, result.failed(), result.ready(), result.traceback) == (State.REVOKED, False, True, None)


def test_a_result_is_forgotten(app: InPlace) -> None:
    result = sent(app, A)
    app.say(result.id, succeeded(1))
    result.forget()
    assert result.state is State.PENDING


def test_a_result_that_nobody_keeps_is_not_waited_for(app: InPlace) -> None:
    quiet = A.set(ignore_result=True)
    for canvas in (quiet, group(A, quiet), A | quiet):
        with pytest.raises(InvalidOption, match="nobody keeps this result: the task has ignore_result"):
            sent(app, canvas).get()
        with pytest.raises(InvalidOption):
            asyncio.run(make_awaitable(app.order(canvas), OnTheLoop(app)).get())
    assert sent(app, quiet | A).is_kept


def test_handles_of_one_task_are_equal(app: InPlace) -> None:
    one = sent(app, A)
    assert one == AsyncResult(one.id, app) == AwaitableResult(one.id, OnTheLoop(app))
    assert len({one, AsyncResult(one.id, app)}) == 1
    assert one != sent(app, A)
    assert one != one.id
    assert (str(one), repr(one)) == (one.id, f"<AsyncResult {one.id}>")


def test_a_result_is_awaited(app: InPlace) -> None:
    result = sent(app, A)
    app.say(result.id, succeeded(1))

    async def wait() -> Any:
        return await result

    assert asyncio.run(wait()) == 1


# Chains --------------------------------------------------------------------------------------------------------------


def test_the_last_of_a_chain_knows_those_before_it(app: InPlace) -> None:
    order = app.order(chain(A, group(B, C), A))
    for last in (make_result(order, app), make_awaitable(order, OnTheLoop(app))):
        assert (last.id, last.parent.ids, last.parent.parent.id) == (order.ids[3], list(order.ids[1:3]), order.ids[0])
        assert last.parent.parent.parent is None
    assert isinstance(make_result(order, app).parent, GroupResult)


def test_a_long_chain_has_as_many_parents(app: InPlace) -> None:
    result = sent(app, chain([A] * 3_000))
    seen = 0
    while result is not None:
        result, seen = result.parent, seen + 1
    assert seen == 3_000


# Groups --------------------------------------------------------------------------------------------------------------


def test_a_group_gives_the_list_of_its_members_results_in_its_shape(app: InPlace) -> None:
    result = sent(app, group(A, group(B, group()), C))
    a, b, c = result.ids
    assert (len(result), list(result), result[0]) == (3, result.results, AsyncResult(a, app))
    assert (result.ready(), result.waiting(), result.completed_count()) == (False, True, 0)
    for number, each in enumerate((c, a, b)):
        app.say(each, succeeded(number))
    assert result.get() == result.join() == [1, [2, []], 0]
    assert (result.ready(), result.waiting(), result.successful(), result.failed()) == (True, False, True, False)
    assert (result.completed_count(), result[1].get(), result.id) == (3, [2, []], f"[{a},{b},{c}]")

    async def wait() -> Any:
        return await result

    assert asyncio.run(wait()) == [1, [2, []], 0]


def test_a_group_with_a_failure_raises_it_or_gives_it_in_its_place(app: InPlace) -> None:
    result = sent(app, group(A, B))
    a, b = result.ids
    app.say(a, failed(raised(ValueError("no"))))
    app.say(b, succeeded(2))
    with pytest.raises(RemoteError, match="no"):
        result.get()
    first, second = result.get(propagate=False)
    assert (first.type, second) == ("ValueError", 2)
    assert (result.ready(), result.successful(), result.failed(), result.completed_count()) == (True, False, True, 1)


def test_a_group_is_revoked_and_forgotten(app: InPlace) -> None:
    result = sent(app, group(A, B))
    result.revoke()
    assert [each.state for each in result] == [State.REVOKED, State.REVOKED]
    result.forget()
    assert [each.state for each in result] == [State.PENDING, State.PENDING]


def test_a_group_of_nothing_has_ended(app: InPlace) -> None:
    result = sent(app, group())
    assert (result.get(timeout=0), result.ready(), result.successful(), list(result.as_completed())) == (
        [],
        True,
        True,
        [],
    )


def test_a_large_group_is_asked_for_in_few_requests(app: InPlace) -> None:
    result = sent(app, group([A] * 1_000))
    for each in result.ids:
        app.say(each, succeeded(1))
    app.asked.clear()
    assert result.get() == [1] * 1_000
    assert app.asked == ["results", "results"]


def test_members_are_given_as_they_end(app: InPlace) -> None:
    result = sent(app, group(A, group(), group(B, C), B))
    a, b, c, d = result.ids
    ending = result.as_completed(timeout=5)
    assert next(ending) == result[1]
    app.say(b, succeeded(1))
    app.say(d, succeeded(1))
    assert next(ending) == result[3]
    app.say(c, failed(raised(ValueError())))
    assert next(ending) == result[2]
    app.say(a, succeeded(1))
    assert list(ending) == [result[0]]


def test_members_that_do_not_end_in_time_are_told(app: InPlace) -> None:
    result = sent(app, group(A, B))
    app.say(result.ids[1], succeeded(1))
    ending = result.as_completed(timeout=0)
    assert next(ending) == result[1]
    with pytest.raises(DeadlineExceeded):
        next(ending)


# Awaitable -----------------------------------------------------------------------------------------------------------


def test_an_awaitable_result_tells_the_same(app: InPlace) -> None:
    order = app.order(A)
    result: AwaitableResult[Any] = make_awaitable(order, OnTheLoop(app))

    async def look() -> tuple[Any, ...]:
        return (
            *(await result.state(), await result.ready(), await result.successful(), await result.failed()),
            *(await result.progress(), await result.result(), await result.traceback(), await result.date_done()),
            *(await result.waiting(), await result.completed_count()),
        )

    pending = (State.PENDING, False, False, False, None, None, None, None, True, 0)
    assert asyncio.run(look()) == pending
    app.say(result.id, progressed(5), Verdict.KEEP)
    assert asyncio.run(look()) == (State.PROGRESS, False, False, False, 5, 5, None, None, True, 0)
    app.say(result.id, succeeded("done"))
    assert asyncio.run(look()) == (State.SUCCESS, True, True, False, None, "done", None, NOW, False, 1)

    async def wait() -> Any:
        return await result, await result.get(timeout=0), [each async for each in result.as_completed()]

    assert asyncio.run(wait()) == ("done", "done", [])
    asyncio.run(result.forget())
    assert asyncio.run(look()) == pending
    other = make_awaitable(app.order(A), OnTheLoop(app))
    asyncio.run(other.revoke())
    with pytest.raises(TaskRevoked):
        asyncio.run(other.get())
    assert asyncio.run(other.get(propagate=False)).code == "task_revoked"


def test_an_awaitable_group_tells_of_all(app: InPlace) -> None:
    result: AwaitableResult[Any] = make_awaitable(app.order(group(A, group(B), C)), OnTheLoop(app))
    a, b, c = result.ids

    async def look() -> tuple[Any, ...]:
        return (
            *(await result.state(), await result.ready(), await result.successful(), await result.failed()),
            *(await result.progress(), await result.result(), await result.date_done(), await result.completed_count()),
        )

    app.say(a, succeeded(1))
    app.say(b, progressed(5), Verdict.KEEP)
    assert asyncio.run(look()) == (State.PROGRESS, False, False, False, [None, 5, None], [1, 5, None], None, 1)
    app.say(c, failed(raised(ValueError("no"))))
    app.say(b, succeeded(2))
    state, ready, successful, has_failed, _, (one, two, three), done, well = asyncio.run(look())
    assert (state, ready, successful, has_failed, done, well) == (State.FAILURE, True, False, True, NOW, 2)
    assert (one, two, three.message) == (1, 2, "no")
    assert "ValueError" in str(asyncio.run(result.traceback()))
    assert [each.ids for each in result.results] == [[a], [b], [c]]

    async def ending() -> list[Any]:
        return [each async for each in result.as_completed(timeout=5)]

    assert set(asyncio.run(ending())) == set(result.results)
    nothing: AwaitableResult[Any] = make_awaitable(app.order(group()), OnTheLoop(app))
    assert (asyncio.run(nothing.state()), asyncio.run(nothing.date_done())) == (State.SUCCESS, None)


# Both ----------------------------------------------------------------------------------------------------------------


def verbs(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in inspect.getmembers(kind):
        if not name.startswith("_"):
            yield name, value


#: Second names, of Celery's.
SECOND_NAMES = {"join", "status"}


def test_blocking_and_awaitable_results_have_the_same_verbs() -> None:
    awaitable = dict(verbs(AwaitableResult))
    for kind in (AsyncResult, GroupResult):
        for name, value in verbs(kind):
            if name in SECOND_NAMES:
                continue
            assert name in awaitable, f"{kind.__name__}.{name}"
            if isinstance(value, property):
                assert inspect.iscoroutinefunction(awaitable[name])
                continue
            assert list(inspect.signature(value).parameters) == list(inspect.signature(awaitable[name]).parameters)
            defaults = [each.default for each in inspect.signature(value).parameters.values()]
            assert defaults == [each.default for each in inspect.signature(awaitable[name]).parameters.values()]
    blocking = {name for kind in (AsyncResult, GroupResult) for name, _ in verbs(kind)}
    assert set(awaitable) <= blocking
