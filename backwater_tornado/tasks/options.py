"""The options of one sending: what Celery's users know as those of `apply_async`.

Rule: an option is checked where it is given, by name; moments and spans are read, not computed: `workflow` knows when
it is now.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from backwater_tornado.broker.bounds import MAX_NAME, MAX_PRIORITY
from backwater_tornado.errors import InvalidOption


class SendOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one task is sent; None means: as its function has it, else the application. Seconds where time is meant."""

    queue: str | None = None
    #: Higher is sooner, 0 to 255, bounded by the queue's own.
    priority: int | None = None
    #: Not before so many seconds from now; or not before this moment (a datetime, or Unix seconds).
    countdown: float | None = None
    eta: float | None = None
    #: Not begun later than so many seconds from now, or than this moment (`expires=datetime(…)`).
    expires: float | None = None
    expires_at: float | None = None
    #: Its id; a second task with the same id is the first one's repetition.
    task_id: str | None = None
    #: For the task to read, `current_task().headers`.
    headers: dict[str, Any] | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: How often it may be retried; -1: as its function has it, None: without end.
    max_retries: int | None = -1
    #: Its result is kept for nobody; and how long it is kept else.
    ignore_result: bool | None = None
    result_expires: float | None = None
    #: While a task with this key waits or runs, no other with it is accepted; but after `unique_for` in any case.
    unique: str | None = None
    unique_for: float | None = None
    #: `msgpack` or `json`.
    serializer: str | None = None
    #: Signatures that follow.
    link: tuple[Any, ...] = ()
    link_error: tuple[Any, ...] = ()


#: Beyond all moments; neither infinity nor nan is below it.
MAX_SECONDS = 1e15
_SERIALIZERS = {"msgpack": "application/msgpack", "json": "application/json"}


def media_type_of(serializer: str | None) -> str:
    """The media type of a serializer by its name; the default for None."""
    return _SERIALIZERS[serializer or "msgpack"]


def make_send_options(given: Mapping[str, Any], base: SendOptions = SendOptions()) -> SendOptions:  # noqa: B008 - it is frozen
    """`base` with what is given over it; raises `InvalidOption` that names the option."""
    changes: dict[str, Any] = {}
    for name, value in given.items():
        read = _READERS.get(name)
        if read is None:
            near = difflib.get_close_matches(name, _READERS, n=1)
            raise InvalidOption(
                f"there is no option {name!r} of sending" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        try:
            read_name, read_value = read(name, value)
        except ValueError as error:
            raise InvalidOption(f"the option {name!r} should be {error}, not {value!r}") from None
        if value is not None:
            _leave_out_other(read_name, changes)
        changes[read_name] = read_value
    return msgspec.structs.replace(base, **changes)


def _leave_out_other(name: str, changes: dict[str, Any]) -> None:
    """What was given now goes before what the base says otherwise of the same."""
    other = _OTHERS.get(name)
    if other is None:
        return
    if changes.get(other) is not None:
        raise InvalidOption(f"{other} and {name} say the same thing twice; give one of them")
    changes[other] = None


# Readers: each gives the field and its value, or raises ValueError with what a value should be -----------------------


def _text(name: str, value: Any) -> tuple[str, Any]:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()):
        raise ValueError(f"1 to {MAX_NAME} printable characters")
    return name, value


def _span(name: str, value: Any) -> tuple[str, Any]:
    if value is None:
        return name, None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(seconds) or seconds < 0:
        raise ValueError("seconds from 0")
    return name, float(seconds)


def _limit(name: str, value: Any) -> tuple[str, Any]:
    name, seconds = _span(name, value)
    if seconds == 0:
        raise ValueError("seconds above 0")
    return name, seconds


def _moment(name: str, value: Any) -> tuple[str, Any]:
    """Unix seconds; a naive datetime is UTC, as the broker may be in any zone."""
    if isinstance(value, datetime):
        return name, (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    if value is not None and not _is_number(value):
        raise ValueError("a datetime, or Unix seconds")
    return name, value


def _expires(name: str, value: Any) -> tuple[str, Any]:
    return _moment("expires_at", value) if isinstance(value, datetime) else _span(name, value)


def _count(name: str, value: Any) -> tuple[str, Any]:
    if value is not None and not _is_whole(value, -1):
        raise ValueError("a whole number from 0, or None")
    return name, value


def _priority(name: str, value: Any) -> tuple[str, Any]:
    if value is not None and not (_is_whole(value, 0) and value <= MAX_PRIORITY):
        raise ValueError(f"a whole number from 0 to {MAX_PRIORITY}")
    return name, value


def _flag(name: str, value: Any) -> tuple[str, Any]:
    if value is not None and not isinstance(value, bool):
        raise ValueError("True or False")
    return name, value


def _headers(name: str, value: Any) -> tuple[str, Any]:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(each, str) for each in value)):
        raise ValueError("a dict with names as keys")
    return name, None if value is None else dict(value)


def _serializer(name: str, value: Any) -> tuple[str, Any]:
    if value is not None and not (isinstance(value, str) and value in _SERIALIZERS):
        raise ValueError(f"one of {', '.join(_SERIALIZERS)}")
    return name, value


def _links(name: str, value: Any) -> tuple[str, Any]:
    several = tuple(value) if isinstance(value, tuple | list) else () if value is None else (value,)
    if not all(hasattr(each, "task") and hasattr(each, "options") for each in several):
        raise ValueError("a signature, or a list of them")
    return name, several


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_SECONDS < value < MAX_SECONDS


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_READERS = {
    "queue": _text,
    "priority": _priority,
    "countdown": _span,
    "eta": _moment,
    "expires": _expires,
    "expires_at": _moment,
    "task_id": _text,
    "headers": _headers,
    "time_limit": _limit,
    "soft_time_limit": _limit,
    "max_retries": _count,
    "ignore_result": _flag,
    "result_expires": _span,
    "unique": _text,
    "unique_for": _span,
    "serializer": _serializer,
    "link": _links,
    "link_error": _links,
}

#: Two ways of saying one thing.
_OTHERS = {"countdown": "eta", "eta": "countdown", "expires": "expires_at", "expires_at": "expires"}
