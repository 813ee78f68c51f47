"""What a running task knows of itself, and how it asks to run again."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import Any

import pytest

from backwater_tornado.errors import MaxRetriesExceeded, Unserializable
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.tasks.request import (
    CALLED_DIRECTLY,
    CURRENT_TASK,
    Reject,
    Retry,
    TaskContext,
    TaskRequest,
    current_task,
    may_retry_again,
)


def context(**fields: Any) -> tuple[TaskContext, list[bytes]]:
    told: list[bytes] = []
    request = TaskRequest(**{"id": "1", "task": "m.f", "max_retries": 2, **fields})
    return TaskContext(request, lambda value: told.append(MSGPACK.encode(value))), told


def test_outside_of_a_task_there_is_none() -> None:
    assert current_task() is None


def test_inside_there_is_one_wherever_its_context_is() -> None:
    running, _ = context()
    inside = copy_context()
    inside.run(CURRENT_TASK.set, running)
    assert inside.run(current_task) is running
    assert current_task() is None


def test_progress_is_told_from_any_thread_and_its_trouble_is_the_tasks_own() -> None:
    running, told = context()
    running.progress({"done": 1})
    thread = threading.Thread(target=running.progress, args=(2,))
    thread.start()
    thread.join()
    assert told == [MSGPACK.encode({"done": 1}), MSGPACK.encode(2)]
    with pytest.raises(Unserializable):
        running.progress(object())


def test_a_retry_is_raised_with_all_that_was_said_of_it() -> None:
    running, _ = context(args=[1], kwargs={"x": 2})
    cause = OSError("gone")
    with pytest.raises(Retry) as caught:
        running.retry(cause, countdown=5, max_retries=7, args=[3])
    retry = caught.value
    assert (retry.cause, retry.countdown, retry.max_retries) == (cause, 5, 7)
    assert retry.arguments == ([3], {"x": 2})
    assert retry.__cause__ is cause
    assert "OSError('gone')" in str(retry)


def test_a_retry_has_the_same_arguments_unless_others_are_given() -> None:
    running, _ = context(args=[1], kwargs={"x": 2})
    with pytest.raises(Retry) as caught:
        running.retry()
    assert (caught.value.arguments, caught.value.cause, caught.value.countdown) == (None, None, None)
    with pytest.raises(Retry) as caught:
        running.retry(kwargs={})
    assert caught.value.arguments == ([1], {})


def test_when_no_retry_is_left_the_cause_is_raised_itself() -> None:
    running, _ = context(retries=2)
    cause = OSError("gone")
    with pytest.raises(OSError, match="gone") as caught:
        running.retry(cause)
    assert caught.value is cause


def test_when_no_retry_is_left_and_nothing_is_to_blame_that_is_told() -> None:
    running, _ = context(retries=2)
    with pytest.raises(MaxRetriesExceeded, match=r"m\.f had 2 retries"):
        running.retry()


@pytest.mark.parametrize(
    ("retries", "most", "said", "may"),
    [
        (0, 0, -1, False),
        (1, 2, -1, True),
        (2, 2, -1, False),
        (9, None, -1, True),
        (2, 2, 3, True),
        (2, 5, 2, False),
        (9, 2, None, True),
    ],
)
def test_how_often_is_what_the_retry_says_else_what_the_task_has(
    retries: int, most: int | None, said: int | None, may: bool
) -> None:
    assert may_retry_again(retries, most, said) is may
    running, _ = context(retries=retries, max_retries=most)
    with pytest.raises(Retry if may else MaxRetriesExceeded):
        running.retry(max_retries=said)


def test_a_function_that_was_called_has_nobody_who_would_run_it_again() -> None:
    assert CALLED_DIRECTLY.request.called_directly
    assert not context()[0].request.called_directly
    CALLED_DIRECTLY.progress(object())
    with pytest.raises(MaxRetriesExceeded, match="the function had 0 retries"):
        CALLED_DIRECTLY.retry()
    with pytest.raises(KeyError):
        CALLED_DIRECTLY.retry(KeyError(1))


def test_a_rejection_says_why() -> None:
    assert (Reject("bad data").reason, str(Reject("bad data")), Reject().reason) == ("bad data", "bad data", "")


@pytest.mark.parametrize("countdown", [-1, float("inf"), float("nan")])
def test_a_countdown_that_is_no_span_is_told_to_the_task_at_once(countdown: float) -> None:
    with pytest.raises(ValueError, match="seconds from 0"):
        context()[0].retry(countdown=countdown)
