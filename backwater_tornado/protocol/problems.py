"""Errors on the wire: RFC 9457 problem details, built from `errors.WIRE_ERRORS` and rebuilt as the same classes.

The code is the last part of `type`, `urn:backwater:problem:CODE`. A code that the table does not have becomes plain
`Refused`; an exception class is never imported because a peer names it.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from backwater_tornado.errors import WIRE_ERRORS, CallFailed, Refused, RemoteError

TYPE_PREFIX = "urn:backwater:problem:"
PROBLEM_MEDIA_TYPES = {
    "application/msgpack": "application/problem+msgpack",
    "application/json": "application/problem+json",
    "application/x-python-pickle": "application/problem+msgpack",
}
#: Media types of the values by media type of the problem.
PROBLEM_VALUES = {
    "application/problem+msgpack": "application/msgpack",
    "application/problem+json": "application/json",
}
#: Longest text of an exception, and of a traceback, in characters: an error must not become a large answer.
MAX_MESSAGE, MAX_TRACEBACK = 8_192, 65_536
_PLAIN = (str, int, float, bool, type(None))


def describe(error: CallFailed) -> dict[str, Any]:
    """The problem details of an error; extra members are the error's own (`error.extra`)."""
    problem: dict[str, Any] = {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "detail": printable(error.detail[:MAX_MESSAGE]),
        **error.extra,
    }
    if error.retry_after is not None:
        problem["retry_after"] = error.retry_after
    if isinstance(error, RemoteError):
        problem["exception"] = {
            "type": printable(error.type),
            "message": printable(error.message),
            "traceback": None if error.traceback is None else printable(error.traceback),
            "args": None if error.exception_args is None else list(error.exception_args),
        }
    return problem


def plainly(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Problem details without what may have no form on the wire: members of the error's own, arguments."""
    kept = {name: problem[name] for name in ("type", "title", "status", "detail", "retry_after") if name in problem}
    if "exception" in problem:
        kept["exception"] = {**problem["exception"], "args": None}
    return kept


def printable(text: str) -> str:
    """The text, as any media type can carry it."""
    # A file name that is no UTF-8 comes as lone surrogates, which no media type can carry.
    return text.encode("utf-8", "backslashreplace").decode()


def describe_exception(raised: BaseException, *, with_traceback: bool, skip: int = 1) -> RemoteError:
    """What a caller is told about an exception that a function raised.

    The first `skip` frames of its traceback are left out: they are ours, and the caller wants to see the function. Its
    arguments travel only where they are plain and short. An exception that cannot even be printed is still told.
    """
    kind = type(raised)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(raised)
    except Exception as error:  # noqa: BLE001 - a broken __str__ is the user's, and must not hide the exception
        message = f"<the text of the exception raised {type(error).__name__}>"
    arguments = raised.args
    plain = all(isinstance(each, _PLAIN) and (not isinstance(each, int) or abs(each) < 2**63) for each in arguments)
    short = plain and sum(len(each) for each in arguments if isinstance(each, str)) <= MAX_MESSAGE
    return RemoteError(
        type=name,
        message=message[:MAX_MESSAGE],
        traceback=_print_traceback(raised, skip) if with_traceback else None,
        exception_args=tuple(arguments) if short else None,
    )


def _print_traceback(raised: BaseException, skip: int) -> str:
    try:
        frames = raised.__traceback__
        for _ in range(skip):
            frames = frames.tb_next if frames is not None else None
        text = "".join(traceback.format_exception(type(raised), raised, frames or raised.__traceback__))
    except Exception as error:  # noqa: BLE001 - as above
        return f"<printing the traceback raised {type(error).__name__}>"
    return text if len(text) <= MAX_TRACEBACK else "…" + text[-MAX_TRACEBACK:]


def rebuild(problem: object, status: int) -> CallFailed:
    """The error that problem details describe; whatever is missing or of a wrong kind has a plain default."""
    if not isinstance(problem, Mapping):
        return Refused(f"the server answered with status {status} and no description")
    detail = _text(problem.get("detail"))
    kind = WIRE_ERRORS.get(_text(problem.get("type")).removeprefix(TYPE_PREFIX), Refused)
    if kind is RemoteError:
        return _rebuild_remote(problem, detail)
    known = ("type", "title", "status", "detail", "retry_after", "exception")
    extra = {name: value for name, value in problem.items() if isinstance(name, str) and name not in known}
    error = kind(detail)
    error.extra = extra
    retry_after = problem.get("retry_after")
    if isinstance(retry_after, int | float) and 0 <= retry_after < 86_400:
        error.retry_after = float(retry_after)
    return error


def _rebuild_remote(problem: Mapping[Any, Any], detail: str) -> RemoteError:
    raised = problem.get("exception")
    raised = raised if isinstance(raised, Mapping) else {}
    trace, arguments = raised.get("traceback"), raised.get("args")
    return RemoteError(
        detail,
        type=_text(raised.get("type")) or "Exception",
        message=_text(raised.get("message")),
        traceback=trace if isinstance(trace, str) else None,
        exception_args=tuple(arguments) if isinstance(arguments, list | tuple) else None,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def original_exception(error: RemoteError, registered: Iterable[type[Exception]]) -> Exception | None:
    """The remote exception as its own class, where that is a builtin or a registered one; else None."""
    classes: dict[str, type[Exception]] = {
        f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."): kind for kind in registered
    }
    kind = classes.get(error.type)
    if kind is None:
        found = getattr(builtins, error.type, None)
        if not isinstance(found, type) or not issubclass(found, Exception):
            return None
        kind = found
    try:
        rebuilt = kind(*(error.exception_args if error.exception_args is not None else (error.message,)))
    except Exception:  # noqa: BLE001 - a constructor with demands of its own: the caller gets the RemoteError
        return None
    rebuilt.__cause__ = error
    return rebuilt
