"""The options of one sending: what Celery's users know as those of `apply_async`.

Rule: an option is checked where it is given, by name; moments and spans are read, not computed: `workflow` knows when
it is now.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from backwater_tornado.broker.values import MAX_NAME, MAX_PRIORITY
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


_SERIALIZERS = {"msgpack": "application/msgpack", "json": "application/json"}
_NAMES = tuple(field.name for field in msgspec.structs.fields(SendOptions))


def media_type_of(serializer: str | None) -> str:
    """The media type of a serializer by its name; the default for None."""
    return _SERIALIZERS[serializer or "msgpack"]


def make_send_options(given: Mapping[str, Any], base: SendOptions = SendOptions()) -> SendOptions:  # noqa: B008 - it is frozen
    """`base` with what is given over it; raises `InvalidOption` that names the option."""
    if not given:
        return base
    changes: dict[str, Any] = {}
    for name, value in given.items():
        read = _READERS.get(name)
        if read is None:
            near = difflib.get_close_matches(name, _NAMES, n=1)
            raise InvalidOption(
                f"there is no option {name!r} of sending" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        try:
            changes.update(read(name, value))
        except (ValueError, TypeError) as error:
            raise InvalidOption(f"the option {name!r} should be {error}, not {value!r}") from None
    if changes.get("countdown") is not None and changes.get("eta") is not None:
        raise InvalidOption("countdown and eta say the same thing twice; give one of them")
    return msgspec.structs.replace(base, **changes)


def _text(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()):
        raise ValueError(f"1 to {MAX_NAME} printable characters")
    return {name: value}


def _seconds(value: Any, least: float = 0.0) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise ValueError(f"seconds from {least:g}")
    return float(value)


def _span(name: str, value: Any) -> dict[str, Any]:
    return {name: None if value is None else _seconds(value)}


def _moment(value: datetime) -> float:
    """Unix seconds; a naive datetime is UTC, as the broker may be in any zone."""
    return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()


def _eta(name: str, value: Any) -> dict[str, Any]:
    return {"countdown": None, name: _moment(value) if isinstance(value, datetime) else _span(name, value)[name]}


def _countdown(name: str, value: Any) -> dict[str, Any]:
    return {"eta": None, **_span(name, value)}


def _expires(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, datetime):
        return {"expires": None, "expires_at": _moment(value)}
    return {"expires_at": None, **_span(name, value)}


def _count(name: str, value: Any) -> dict[str, Any]:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < -1):
        raise ValueError("a whole number from 0, or None")
    return {name: value}


def _priority(name: str, value: Any) -> dict[str, Any]:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PRIORITY):
        raise ValueError(f"a whole number from 0 to {MAX_PRIORITY}")
    return {name: value}


def _flag(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, bool):
        raise ValueError("True or False")
    return {name: value}


def _headers(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(each, str) for each in value)):
        raise ValueError("a dict with names as keys")
    return {name: None if value is None else dict(value)}


def _serializer(name: str, value: Any) -> dict[str, Any]:
    if value is not None and value not in _SERIALIZERS:
        raise ValueError(f"one of {', '.join(_SERIALIZERS)}")
    return {name: value}


def _links(name: str, value: Any) -> dict[str, Any]:
    several = tuple(value) if isinstance(value, tuple | list) else () if value is None else (value,)
    if not all(hasattr(each, "task") and hasattr(each, "options") for each in several):
        raise ValueError("a signature, or a list of them")
    return {name: several}


_READERS = {
    "queue": _text,
    "priority": _priority,
    "countdown": _countdown,
    "eta": _eta,
    "expires": _expires,
    "task_id": _text,
    "headers": _headers,
    "time_limit": _span,
    "soft_time_limit": _span,
    "max_retries": _count,
    "ignore_result": _flag,
    "result_expires": _span,
    "unique": _text,
    "unique_for": _span,
    "serializer": _serializer,
    "link": _links,
    "link_error": _links,
}
