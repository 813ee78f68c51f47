"""How a task ended, as bytes and back.

An outcome's state is one of `states.State`, and its body says more: a result, or the problem details of an exception,
as those of a call (`protocol.problems`). What the broker ends by itself has its reason for a state and no body; here it
becomes a failure with the error that says so.

Rule: an exception class is never imported because an outcome names it; whoever asks says which may be rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backwater_tornado.broker.values import Outcome
from backwater_tornado.errors import (
    WIRE_ERRORS,
    CallFailed,
    DeadlineExceeded,
    OutcomeUnknown,
    RemoteError,
    TaskError,
    TaskExpired,
    TaskLost,
    TaskNotAccepted,
    TaskRejected,
    TaskRevoked,
)
from backwater_tornado.protocol.codec import MSGPACK, Codec
from backwater_tornado.protocol.problems import describe, describe_exception, original_exception, plainly, rebuild

from . import states
from .messages import codec_of
from .states import State

#: What the broker says of a message that it ended itself -> the error.
ENDS: Mapping[str, type[TaskError]] = {
    "expired": TaskExpired,
    "max_deliveries": TaskLost,
    "lost": TaskLost,
    "rejected": TaskRejected,
    "dropped": TaskRejected,
    "unrouted": TaskNotAccepted,
    "unknown_exchange": TaskNotAccepted,
    "queue_full": TaskNotAccepted,
    "unique_key_held": TaskNotAccepted,
    "id_of_another_message": TaskNotAccepted,
}


def succeeded(value: Any, codec: Codec = MSGPACK) -> Outcome:
    """It returned this; raises `Unserializable`."""
    return Outcome(State.SUCCESS, codec.encode(value), codec.media_type)


def failed(raised: BaseException, state: State = State.FAILURE) -> Outcome:
    """It raised this; or, with another state, what came before it was tried again.

    What the closed table of errors does not have (`Unreachable`, raised by a call that the task made) is told as any
    other exception, and so is what a caller of a task gets whose own waiting fails.
    """
    of_the_link = isinstance(raised, DeadlineExceeded | OutcomeUnknown)
    if isinstance(raised, CallFailed) and raised.code in WIRE_ERRORS and not of_the_link:
        error = raised
    else:
        error = describe_exception(raised, with_traceback=True)
    problem = describe(error)
    try:
        body = MSGPACK.encode(problem)
    except TypeError:  # an argument of the exception has no form
        body = MSGPACK.encode(plainly(problem))
    return Outcome(state, body, MSGPACK.media_type, failed=state is not State.RETRY)


def progressed(value: Any) -> Outcome:
    """It has come so far; raises `Unserializable`."""
    return Outcome(State.PROGRESS, MSGPACK.encode(value), MSGPACK.media_type)


def started(about: Mapping[str, Any]) -> Outcome:
    """It runs: where, and since when."""
    return Outcome(State.STARTED, MSGPACK.encode(dict(about)), MSGPACK.media_type)


def revoked(reason: str = "") -> Outcome:
    """Somebody cancelled it."""
    return failed(TaskRevoked(reason), State.REVOKED)


def state_of(outcome: Outcome | None) -> State:
    """Its state; nothing is known of a task that waits, or never was."""
    if outcome is None:
        return State.PENDING
    try:
        return states.state_of(outcome.state)
    except ValueError:  # a newer worker's word
        return State.FAILURE


def read_outcome(outcome: Outcome) -> Any:
    """The value in it: a result, a progress, what is known of a start; the error, where it failed, see `error_of`.

    Raises:
        BodyUndecodable, NestedTooDeep, UnsupportedMediaType: it cannot be read.
    """
    if state_of(outcome) in (State.FAILURE, State.REVOKED, State.RETRY):
        return error_of(outcome)
    return codec_of(outcome.content_type).decode(outcome.body) if outcome.body else None


def error_of(outcome: Outcome, registered: Iterable[type[Exception]] = (), *, rethrow: bool = False) -> Exception:
    """The error that an outcome tells of.

    Args:
        registered: classes that it may be rebuilt as, beside the builtins.
        rethrow: rebuild the remote exception's own class where it can be.
    """
    kind = ENDS.get(outcome.state)
    if kind is not None:
        return kind(f"the broker ended it: {outcome.state}")
    error = rebuild(codec_of(outcome.content_type).decode(outcome.body) if outcome.body else None, 500)
    if rethrow and isinstance(error, RemoteError):
        return original_exception(error, registered) or error
    return error
