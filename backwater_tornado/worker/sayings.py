"""What the log says of runs.

Rule: words only; nothing else depends on them.
"""

from __future__ import annotations

import logging

from backwater_tornado.broker.values import Outcome
from backwater_tornado.errors import CallFailed, RemoteError
from backwater_tornado.tasks.outcomes import error_of, state_of
from backwater_tornado.tasks.states import State

from .holding import Held
from .jobs import End, Ending

log = logging.getLogger("backwater.worker")


def say_ending(held: Held, ending: Ending, seconds: float) -> None:
    """How a run ended."""
    label, about = held.label, held.about
    if ending.end is End.RETURN:
        log.warning("%s goes back: %s", label, ending.reason or "it could not be run to its end", extra=about)
    elif ending.end is End.RETRY:
        log.info("%s runs again in %.3g s: %s", label, ending.delay, error_line(ending.outcome), extra=about)
    elif ending.outcome is not None and state_of(ending.outcome) is not State.SUCCESS:
        log.warning("%s failed after %.3f s: %s%s", label, seconds, *_error(ending.outcome), extra=about)
    else:
        log.info("%s succeeded in %.3f s", label, seconds, extra=about)


def error_line(outcome: Outcome | None) -> str:
    """The error in an outcome, `type: message`; empty where it tells of none."""
    if outcome is None or state_of(outcome) is State.SUCCESS:
        return ""
    return _error(outcome)[0]


def _error(outcome: Outcome) -> tuple[str, str]:
    """The error in an outcome, in a line, and its traceback."""
    try:
        error = error_of(outcome)
    except CallFailed:  # what cannot be read here may be read by its caller
        return outcome.state, ""
    trace = error.traceback if isinstance(error, RemoteError) else None
    return f"{error}" if isinstance(
        error, RemoteError
    ) else f"{type(error).__name__}: {error}", f"\n{trace}" if trace else ""
