"""What running a task means, whatever its function does."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest

from backwater_tornado import errors
from backwater_tornado.broker.values import Outcome
from backwater_tornado.exposure import Exposure, Function
from backwater_tornado.protocol.codec import JSON, MSGPACK, Codec
from backwater_tornado.protocol.problems import MAX_MESSAGE, MAX_TRACEBACK
from backwater_tornado.tasks.outcomes import error_of, read_outcome
from backwater_tornado.tasks.request import Reject, Retry, TaskContext, TaskRequest, current_task
from backwater_tornado.tasks.states import State
from backwater_tornado.tasks.task import expose
from backwater_tornado.worker import execution
from backwater_tornado.worker.execution import run_job, run_job_on_loop
from backwater_tornado.worker.interrupts import Awaited, Interruptible, Stopped
from backwater_tornado.worker.jobs import End, Ending, Job

Told = list[tuple[int, Outcome]]


def exposed(function: Callable[..., Any], **options: Any) -> Function:
    """The function, or rather a copy of it, as `tasks.f`."""
    copy = FunctionType(function.__code__, function.__globals__, "f", function.__defaults__, function.__closure__)
    copy.__annotations__ = function.__annotations__
    copy.__module__ = "tasks"
    module = ModuleType("tasks")
    module.f = expose(**options)(copy)  # type: ignore[attr-defined]
    return Exposure.of(module).find("tasks", "f")


def job_of(*args: Any, codec: Codec = MSGPACK, **fields: Any) -> Job:
    body = codec.encode([args, fields.pop("kwargs", {})])
    return Job(7, "an-id", "tasks.f", body, codec.media_type, **fields)


def run(function: Function, job: Job | None = None, told: Told | None = None) -> Ending:
    """In a thread or on the loop, as its kind has it."""
    job = job_of() if job is None else job

    def tell(token: int, outcome: Outcome) -> None:
        assert told is not None
        told.append((token, outcome))

    if function.is_async:
        return asyncio.run(run_job_on_loop(function, job, tell, Awaited().run))
    return contextvars.copy_context().run(run_job, function, job, tell, Interruptible().call)


def value_of(ending: Ending) -> Any:
    assert ending.end is End.DONE
    assert ending.outcome is not None
    assert (ending.outcome.state, ending.outcome.failed) == (State.SUCCESS, False)
    return read_outcome(ending.outcome)


def error_in(ending: Ending, state: State = State.FAILURE) -> Exception:
    assert ending.outcome is not None
    assert ending.outcome.state == state
    assert ending.outcome.failed is (state is State.FAILURE)
    return error_of(ending.outcome)


def remote_error(ending: Ending, state: State = State.FAILURE) -> errors.RemoteError:
    error = error_in(ending, state)
    assert isinstance(error, errors.RemoteError)
    return error


async def async_add(x: int, y: int = 0) -> int:
    await asyncio.sleep(0)
    return x + y


def add(x: int, y: int = 0) -> int:
    return x + y


# It returns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
@pytest.mark.parametrize("function", [add, async_add])
def test_the_result_comes_in_the_arguments_own_media_type(function: Callable[..., Any], codec: Codec) -> None:
    ending = run(exposed(function), job_of(1, kwargs={"y": 2}, codec=codec))
    assert value_of(ending) == 3
    assert ending.outcome is not None
    assert ending.outcome.content_type == codec.media_type


def test_arguments_are_converted_by_their_annotations() -> None:
    assert value_of(run(exposed(lambda: None))) is None

    def count(of: tuple[int, ...]) -> str:
        return type(of).__name__

    assert value_of(run(exposed(count), job_of([1, 2], codec=JSON))) == "tuple"


def test_a_result_that_nobody_keeps_is_not_encoded() -> None:
    ending = run(exposed(lambda: object()), job_of(ignore_result=True))
    assert ending == Ending(End.DONE, Outcome(State.SUCCESS))


def test_a_result_without_a_form_on_the_wire_is_a_failure_that_names_it() -> None:
    error = error_in(run(exposed(lambda: {"x": [object()]})))
    assert isinstance(error, errors.ResultUnserializable)
    assert "object" in str(error)
    assert "x" in str(error)


def test_a_result_that_is_too_large_is_a_failure_that_says_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "MAX_RESULT", 100)
    assert value_of(run(exposed(lambda: b"x" * 90))) == b"x" * 90
    error = error_in(run(exposed(lambda: b"x" * 99)))
    assert isinstance(error, errors.ResultTooLarge)
    assert "101 bytes" in str(error)


# What it is given ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_task_knows_itself(asynchronous: bool) -> None:
    seen: list[TaskContext | None] = []

    def look(x: int) -> None:
        seen.append(current_task())

    async def look_async(x: int) -> None:
        seen.append(current_task())

    custom = MSGPACK.encode({"who": "me"})
    limits = {"soft_time_limit": 1.0, "time_limit": 2.0}
    job = job_of(5, retries=1, deliveries=2, root="r", parent="p", queue="q", custom=custom, max_retries=None, **limits)
    value_of(run(exposed(look_async if asynchronous else look), job))
    (context,) = seen
    assert context is not None
    assert context.request == TaskRequest(
        id="an-id",
        task="tasks.f",
        args=(5,),
        kwargs={},
        retries=1,
        max_retries=None,
        deliveries=2,
        root_id="r",
        parent_id="p",
        queue="q",
        headers={"who": "me"},
        **limits,
    )
    assert current_task() is None


def test_a_task_that_was_sent_from_outside_is_its_own_root() -> None:
    def roots() -> list[str]:
        task = current_task()
        assert task is not None
        return [task.request.root_id, task.request.parent_id]

    assert value_of(run(exposed(roots))) == ["an-id", ""]


def test_a_bound_function_gets_the_task_first() -> None:
    def ids(task: TaskContext, x: int) -> Any:
        return [task.request.id, task is current_task(), x]

    async def ids_async(task: TaskContext, x: int) -> Any:
        return ids(task, x)

    for function in (ids, ids_async):
        assert value_of(run(exposed(function, bind=True), job_of(1))) == ["an-id", True, 1]


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_what_a_task_has_sent_is_told_with_its_end(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "MAX_CHILDREN", 2)

    def send() -> None:
        task = current_task()
        assert task is not None
        task.children.extend(["one", "two", "three"])
        if ends == "badly":
            raise ValueError

    ending = run(exposed(send))
    assert ending.outcome is not None
    assert ending.outcome.children == ("one", "two")


def test_progress_is_told_and_its_trouble_is_the_tasks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "MAX_RESULT", 100)

    def step(task: TaskContext) -> None:
        task.progress({"done": 1})
        for bad in (object(), b"x" * 100):
            with pytest.raises(errors.Unserializable):
                task.progress(bad)

    told: Told = []
    value_of(run(exposed(step, bind=True), told=told))
    ((token, outcome),) = told
    assert (token, outcome.state, read_outcome(outcome)) == (7, State.PROGRESS, {"done": 1})


# It cannot be run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "kind"),
    [
        (job_of(), errors.InvalidArguments),
        (job_of("text"), errors.InvalidArguments),
        (job_of(1, kwargs={"z": 1}), errors.InvalidArguments),
        (Job(7, "an-id", "tasks.f", b"\xc1", "application/msgpack"), errors.BodyUndecodable),
        (Job(7, "an-id", "tasks.f", MSGPACK.encode([1]), ""), errors.BodyUndecodable),
        (Job(7, "an-id", "tasks.f", b"", "text/plain"), errors.UnsupportedMediaType),
        (job_of(1, custom=b"\x01"), errors.BodyUndecodable),
    ],
)
@pytest.mark.parametrize("function", [add, async_add])
def test_arguments_that_do_not_fit_are_a_failure_and_nothing_runs(
    function: Callable[..., Any], job: Job, kind: type[Exception]
) -> None:
    ending = run(exposed(function, autoretry_for=(Exception,)), job)
    assert ending.end is End.DONE
    assert isinstance(error_in(ending), kind)


# It raises -----------------------------------------------------------------------------------------------------------


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_traceback_begins_at_the_function(asynchronous: bool) -> None:
    def outer() -> None:
        fail(ValueError("as told"))

    async def outer_async() -> None:
        outer()

    error = remote_error(run(exposed(outer_async if asynchronous else outer)))
    assert (error.type, error.message, error.exception_args) == ("ValueError", "as told", ("as told",))
    assert error.traceback is not None
    first = error.traceback.splitlines()[1]
    assert first.endswith("in outer_async" if asynchronous else "in outer")
    assert "in fail" in error.traceback
    assert "backwater_tornado" not in error.traceback


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit, RecursionError, asyncio.CancelledError, Stopped]
)
def test_whatever_is_raised_is_a_failure(kind: type[BaseException], asynchronous: bool) -> None:
    def bad() -> None:
        raise kind("x")

    async def bad_async() -> None:
        raise kind("x")

    assert remote_error(run(exposed(bad_async if asynchronous else bad))).type.rpartition(".")[2] == kind.__name__


def test_what_ours_means_to_say_travels_as_it_is_and_all_else_as_an_exception() -> None:
    assert isinstance(
        error_in(run(exposed(lambda: fail(errors.SoftTimeLimitExceeded())))), errors.SoftTimeLimitExceeded
    )
    assert isinstance(error_in(run(exposed(lambda: fail(errors.UnknownQueue("q"))))), errors.UnknownQueue)
    assert remote_error(run(exposed(lambda: fail(errors.Unreachable("there"))))).type.endswith("errors.Unreachable")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Nameless(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError


def test_an_exception_that_cannot_be_printed_is_told() -> None:
    assert "<the text of the exception raised RuntimeError>" in remote_error(run(exposed(lambda: fail(Mute())))).message
    error = remote_error(run(exposed(lambda: fail(Nameless()))))
    assert (error.type, error.message) == ("Nameless", "<describing the exception raised RuntimeError>")


def test_groups_and_notes_are_told() -> None:
    group = ExceptionGroup("two", [ValueError("one"), KeyError("other")])
    error = remote_error(run(exposed(lambda: fail(group))))
    assert error.traceback is not None
    assert "ValueError: one" in error.traceback
    assert "KeyError: 'other'" in error.traceback


def test_huge_exceptions_are_cut() -> None:
    def deep(left: int) -> None:
        if not left:
            raise ValueError("x" * 1_000_000)
        (deep if left % 2 else other)(left - 1)

    def other(left: int) -> None:
        deep(left - 1)

    error = remote_error(run(exposed(lambda: deep(400))))
    assert len(error.message) <= MAX_MESSAGE
    assert len(error.traceback or "") <= MAX_TRACEBACK + 1


def test_arguments_of_an_exception_that_have_no_form_are_left_out() -> None:
    assert remote_error(run(exposed(lambda: fail(ValueError(object()))))).exception_args is None


# It asks to run again ------------------------------------------------------------------------------------------------


def test_a_task_may_ask_for_a_retry() -> None:

    def again(task: TaskContext) -> None:
        try:
            fail(OSError("gone"))
        except OSError as error:
            task.retry(error, countdown=5, args=[3])

    ending = run(exposed(again, bind=True))
    assert (ending.end, ending.delay) == (End.RETRY, 5)
    assert ending.arguments == MSGPACK.encode([[3], {}])
    error = remote_error(ending, State.RETRY)
    assert error.type == "OSError"
    assert error.traceback is not None
    assert "in again" in error.traceback.splitlines()[1]


def test_a_retry_without_more_waits_as_the_function_has_it() -> None:
    ending = run(exposed(lambda: fail(Retry()), retry_delay=7))
    assert (ending.end, ending.delay, ending.arguments) == (End.RETRY, 7, None)
    assert "to run again" in remote_error(ending, State.RETRY).message
    ending = run(exposed(lambda: fail(Retry()), retry_backoff=2, retry_jitter=False), job_of(retries=2))
    assert ending.delay == 8


def test_what_is_retried_by_itself() -> None:
    options = {"autoretry_for": (OSError,), "dont_autoretry_for": (ConnectionError,), "retry_delay": 7}
    ending = run(exposed(lambda: fail(FileNotFoundError("x")), **options))
    assert (ending.end, ending.delay) == (End.RETRY, 7)
    assert remote_error(ending, State.RETRY).type == "FileNotFoundError"
    for other in (ConnectionError, ValueError):
        assert run(exposed(lambda other=other: fail(other()), **options)).end is End.DONE


def test_when_no_retry_is_left_the_cause_is_the_failure() -> None:
    last = job_of(retries=3, max_retries=3)
    ending = run(exposed(lambda: fail(OSError("gone")), autoretry_for=(OSError,)), last)
    assert ending.end is End.DONE
    assert remote_error(ending).type == "OSError"
    assert isinstance(error_in(run(exposed(lambda: fail(Retry())), last)), errors.MaxRetriesExceeded)
    assert run(exposed(lambda: fail(Retry(max_retries=4))), last).end is End.RETRY


def test_arguments_for_a_retry_that_have_no_form_are_a_failure() -> None:
    ending = run(exposed(lambda: fail(Retry(arguments=([object()], {})))))
    assert ending.end is End.DONE
    assert remote_error(ending).type.endswith("Unserializable")


def test_a_class_that_is_odd_about_its_instances_ends_in_a_failure() -> None:
    class Odd(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise RuntimeError("odd")

    class OddError(Exception, metaclass=Odd):
        pass

    assert remote_error(run(exposed(lambda: fail(ValueError()), autoretry_for=(OddError,)))).message == "odd"


def test_a_task_may_have_itself_put_aside() -> None:
    ending = run(exposed(lambda: fail(Reject("bad data"))))
    assert (ending.end, ending.reason) == (End.REJECT, "bad data")
    error = error_in(ending)
    assert isinstance(error, errors.TaskRejected)
    assert str(error) == "bad data"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("\ud800", "\\ud800"), ("x" * 200_000, "x" * MAX_MESSAGE), (ValueError("no"), "no"), (None, "None")],
)
def test_whatever_the_reason_it_can_be_told(reason: Any, told: str) -> None:
    ending = run(exposed(lambda: fail(Reject(reason))))
    assert (ending.end, ending.reason) == (End.REJECT, told)
    assert str(error_in(ending)) == told


# Forks ---------------------------------------------------------------------------------------------------------------


def test_a_process_that_a_function_has_forked_ends_where_the_function_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def forks(leave: bool) -> None:
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as in the process that was forked
        if leave:
            sys.exit(3)

    async def forks_on_loop() -> None:
        forks(False)

    class Ended(BaseException):
        """In place of the end of this process."""

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    for function, arguments in ((forks, [True]), (forks, [False]), (forks_on_loop, [])):
        with monkeypatch.context() as again, pytest.raises(Ended):
            again.setattr(os, "getpid", os.getpid)
            run(exposed(function), job_of(*arguments))
