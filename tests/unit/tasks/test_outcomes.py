"""How a task ended, as a worker writes it and a caller reads it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from backwater_tornado.broker.values import Outcome
from backwater_tornado.errors import (
    BodyUndecodable,
    DeadlineExceeded,
    InvalidArguments,
    OutcomeUnknown,
    RemoteError,
    TaskError,
    TaskExpired,
    TaskLost,
    TaskNotAccepted,
    TaskRejected,
    TaskRevoked,
    TimeLimitExceeded,
    TLSFailed,
    Unreachable,
    Unserializable,
    UnsupportedMediaType,
    Unverified,
    UpstreamFailed,
)
from backwater_tornado.protocol.codec import JSON
from backwater_tornado.tasks.outcomes import (
    ENDS,
    error_of,
    failed,
    progressed,
    read_outcome,
    revoked,
    started,
    state_of,
    succeeded,
)
from backwater_tornado.tasks.states import BROKER_WORDS, State


class Own(Exception):
    pass


def raised(error: BaseException) -> BaseException:
    """With a traceback, as a function raises it."""
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("value", [None, 5, {"a": (1, b"2")}, ["x"]])
def test_a_value_comes_back(value: Any) -> None:
    outcome = succeeded(value)
    assert (state_of(outcome), outcome.failed, read_outcome(outcome)) == (State.SUCCESS, False, value)


def test_a_value_may_be_json() -> None:
    outcome = succeeded({"a": [1]}, JSON)
    assert (outcome.body, outcome.content_type, read_outcome(outcome)) == (b'{"a":[1]}', JSON.media_type, {"a": [1]})


def test_a_value_without_a_form_is_refused() -> None:
    for write in (succeeded, progressed):
        with pytest.raises(Unserializable):
            write(object())


def test_progress_and_start_come_back() -> None:
    assert (state_of(progressed([1, 2])), read_outcome(progressed([1, 2]))) == (State.PROGRESS, [1, 2])
    begun = started({"host": "a"})
    assert (state_of(begun), read_outcome(begun), begun.failed) == (State.STARTED, {"host": "a"}, False)


def test_an_exception_is_told_with_its_class_text_arguments_and_traceback() -> None:
    outcome = failed(raised(ValueError("no", 5)))
    error = error_of(outcome)
    assert isinstance(error, RemoteError)
    assert (error.type, error.message, error.exception_args) == ("ValueError", "('no', 5)", ("no", 5))
    assert "ValueError" in (error.traceback or "")
    assert (state_of(outcome), outcome.failed) == (State.FAILURE, True)
    assert read_outcome(outcome).type == "ValueError"


def test_a_retry_has_not_failed_yet() -> None:
    outcome = failed(raised(OSError("again")), State.RETRY)
    assert (state_of(outcome), outcome.failed, read_outcome(outcome).message) == (State.RETRY, False, "again")


@pytest.mark.parametrize(
    ("error", "registered", "kind"),
    [
        (KeyError("a"), (), KeyError),
        (Own("a"), (Own,), Own),
        (Own("a"), (), RemoteError),
        (pickle.PickleError("a"), (), RemoteError),
    ],
)
def test_an_exception_is_rebuilt_as_its_class_if_that_is_asked_for_and_the_class_is_known(
    error: Exception, registered: tuple[type[Exception], ...], kind: type[Exception]
) -> None:
    outcome = failed(raised(error))
    found = error_of(outcome, registered, rethrow=True)
    assert type(found) is kind
    if kind is not RemoteError:
        assert found.args == error.args
        assert isinstance(found.__cause__, RemoteError)
    assert type(error_of(outcome, registered)) is RemoteError


@pytest.mark.parametrize(
    "error",
    [UpstreamFailed("a has failed"), TimeLimitExceeded(), TaskRevoked(), InvalidArguments("two missing"), TaskError()],
)
def test_errors_of_ours_come_back_as_themselves(error: Exception) -> None:
    found = error_of(failed(raised(error)), rethrow=True)
    assert (type(found), str(found)) == (type(error), str(error))


@pytest.mark.parametrize(
    "error", [Unreachable("down"), TLSFailed(), OutcomeUnknown("lost"), Unverified(), DeadlineExceeded("slow")]
)
def test_what_a_call_inside_the_task_came_to_is_not_taken_for_the_callers_own_trouble(error: Exception) -> None:
    found = error_of(failed(raised(error)))
    assert isinstance(found, RemoteError)
    assert found.type == f"backwater_tornado.errors.{type(error).__name__}"
    assert found.traceback is not None


def test_an_error_with_members_that_have_no_form_is_told_without_them() -> None:
    found = error_of(failed(UpstreamFailed("gone", thing=object())))
    assert (type(found), str(found)) == (UpstreamFailed, "gone")


def test_revoked_is_an_end_with_its_reason() -> None:
    outcome = revoked("by hand")
    assert (state_of(outcome), outcome.failed) == (State.REVOKED, True)
    assert (type(read_outcome(outcome)), str(read_outcome(outcome))) == (TaskRevoked, "by hand")
    assert str(read_outcome(revoked())) == "The task was revoked"


@pytest.mark.parametrize(
    ("word", "state", "kind"),
    [
        ("expired", State.REVOKED, TaskExpired),
        ("max_deliveries", State.FAILURE, TaskLost),
        ("rejected", State.FAILURE, TaskRejected),
        ("dropped", State.REVOKED, TaskRejected),
        ("unrouted", State.FAILURE, TaskNotAccepted),
        ("unknown_exchange", State.FAILURE, TaskNotAccepted),
        ("unique_key_held", State.FAILURE, TaskNotAccepted),
    ],
)
def test_what_the_broker_ends_has_an_error_that_says_so(word: str, state: State, kind: type[TaskError]) -> None:
    outcome = Outcome(word, failed=True)
    assert state_of(outcome) is state
    assert type(read_outcome(outcome)) is kind
    assert word in str(read_outcome(outcome))


def test_every_word_of_the_broker_has_an_error() -> None:
    assert set(BROKER_WORDS) <= set(ENDS)


def test_nothing_is_known_of_a_task_that_waits() -> None:
    assert state_of(None) is State.PENDING


def test_a_word_of_tomorrow_is_a_failure() -> None:
    outcome = Outcome("EXPLODED")
    assert state_of(outcome) is State.FAILURE
    assert isinstance(read_outcome(outcome), Exception)


def test_an_outcome_without_a_body_is_none() -> None:
    assert read_outcome(Outcome("SUCCESS")) is None


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(BodyUndecodable):
        read_outcome(Outcome("SUCCESS", b"\xc1"))
    with pytest.raises(UnsupportedMediaType):
        read_outcome(Outcome("SUCCESS", b"x", "application/x-python-pickle"))
