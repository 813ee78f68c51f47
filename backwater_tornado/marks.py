"""The mark that `@expose` leaves on a function, and the options it may carry.

Rule: a mark changes nothing about a function: it stays the same object, callable and picklable. Options are checked
here, where the function is written, and by name: an unknown or wrong one is refused before anything is served.
What the options do is not known here; this module imports only the errors.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, MethodType, ModuleType
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack, overload

from backwater_tornado.errors import InvalidExposure, InvalidOption

F = TypeVar("F", bound=Callable[..., Any])

#: Characters of a function's name on the wire.
MAX_NAME = 255
#: The attribute of a function that holds its mark.
MARK = "__backwater__"


class ExposeKeywords(TypedDict, total=False):
    """The options of `expose`, as keywords. Seconds wherever time is meant."""

    name: str | None
    idempotent: bool
    max_concurrency: int | None
    time_limit: float | None
    queue: str | None
    # The rest is kept for the task queue.
    max_retries: int | None
    autoretry_for: tuple[type[BaseException], ...]
    dont_autoretry_for: tuple[type[BaseException], ...]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    retry_delay: float
    soft_time_limit: float | None
    acks_late: bool
    ignore_result: bool
    track_started: bool
    result_expires: float | None
    priority: int
    rate_limit: str | float | None
    expires: float | None
    bind: bool
    serializer: str


Check = Callable[[Any], bool]


def is_name(value: str) -> bool:
    """Whether a function may be called that; not only identifiers, as other languages' functions have other names."""
    return 0 < len(value) <= MAX_NAME and value.isprintable()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_rate(value: Any) -> bool:
    return _is_number(value) or (
        isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?(/[smh])?", value) is not None
    )


def _are_exceptions(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    )


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


_SECONDS: tuple[Check, str] = (_or_none(lambda value: _is_number(value) and value > 0), "seconds above 0, or None")
_FLAG: tuple[Check, str] = (_is_flag, "True or False")

#: Every option: name -> (what accepts a value, what a value should be).
_OPTIONS: dict[str, tuple[Check, str]] = {
    "name": (
        _or_none(lambda value: isinstance(value, str) and is_name(value)),
        f"1 to {MAX_NAME} printable characters",
    ),
    "idempotent": _FLAG,
    "max_concurrency": (_or_none(lambda value: _is_count(value) and value > 0), "a whole number above 0, or None"),
    "time_limit": _SECONDS,
    "queue": (_or_none(_is_text), "the name of a queue"),
    "max_retries": (_or_none(_is_count), "a whole number from 0, or None for no bound"),
    "autoretry_for": (_are_exceptions, "a tuple of exception classes"),
    "dont_autoretry_for": (_are_exceptions, "a tuple of exception classes"),
    "retry_backoff": (lambda value: _is_flag(value) or _is_number(value), "True, False or seconds"),
    "retry_backoff_max": (_is_number, "seconds from 0"),
    "retry_jitter": _FLAG,
    "retry_delay": (_is_number, "seconds from 0"),
    "soft_time_limit": _SECONDS,
    "acks_late": _FLAG,
    "ignore_result": _FLAG,
    "track_started": _FLAG,
    "result_expires": _SECONDS,
    "priority": (lambda value: _is_count(value) and value <= 255, "a whole number from 0 to 255"),
    "rate_limit": (_or_none(_is_rate), "a number a second, or text like '100/m', or None"),
    "expires": _SECONDS,
    "bind": _FLAG,
    "serializer": (lambda value: value in ("msgpack", "json"), "msgpack or json"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposeOptions:
    """What was said in `@expose(…)`; raises `InvalidOption`."""

    #: The function's name on the wire; None means its own.
    name: str | None = None
    #: May run twice without harm, so the server need not remember its answers.
    idempotent: bool = False
    #: How many calls may run at once in one server; None means no bound of its own.
    max_concurrency: int | None = None
    #: Seconds that one run may take; None means the caller's deadline alone.
    time_limit: float | None = None
    #: The queue that its tasks go to; None means the default one.
    queue: str | None = None
    #: The options that only the task queue reads, as given.
    task: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", MappingProxyType(dict(self.task)))
        given = {option: getattr(self, option) for option in _OWN_OPTIONS}
        for option, value in {**given, **self.task}.items():
            if option not in _OPTIONS:
                near = difflib.get_close_matches(option, _OPTIONS, n=1)
                raise InvalidOption(f"there is no option {option!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
            accepts, wanted = _OPTIONS[option]
            if not accepts(value):
                raise InvalidOption(f"the option {option!r} should be {wanted}, not {value!r}")


_OWN_OPTIONS = ("name", "idempotent", "max_concurrency", "time_limit", "queue")


class Mark(NamedTuple):
    """What `expose` leaves on a function."""

    options: ExposeOptions
    #: The module whose code called `expose`: an object without a module of its own (a partial) belongs there.
    module: str | None
    #: What was marked. `functools.wraps` copies the mark to wrappers that nobody marked; this tells them apart.
    function: object


@overload
def expose(function: F, /, **options: Unpack[ExposeKeywords]) -> F: ...
@overload
def expose(function: None = None, /, **options: Unpack[ExposeKeywords]) -> Callable[[F], F]: ...
def expose(function: F | None = None, /, **options: Unpack[ExposeKeywords]) -> F | Callable[[F], F]:
    """Mark a function as callable from elsewhere; use it bare or with options.

    Args:
        function: the function; it is returned as it is, with a mark.
        options: name, idempotent, max_concurrency, time_limit and queue as in `ExposeOptions`; the options of tasks.

    Raises:
        InvalidExposure: this cannot be called remotely (a class, a generator), or was marked otherwise before.
        InvalidOption: an option is unknown or wrong.
    """
    frame = inspect.currentframe()
    caller = frame.f_back if frame is not None else None
    mark = make_marker(dict(options), caller.f_globals.get("__name__") if caller is not None else None)
    return mark if function is None else mark(function)


def make_marker(words: dict[str, Any], module: str | None) -> Callable[[F], F]:
    """What leaves a mark with these options on a function; `module` is where that is written. Raises as `expose`."""
    own = {option: words.pop(option) for option in _OWN_OPTIONS if option in words}
    checked = ExposeOptions(**own, task=words)

    def mark(marked: F) -> F:
        check_callable(marked, f"@expose: {marked!r}")
        old = mark_of(marked)
        if old is not None and old.function is marked and old.options != checked:
            raise InvalidExposure(f"{marked!r} is marked with @expose twice, and not alike")
        try:
            setattr(marked, MARK, Mark(checked, module, marked))
        except AttributeError as exc:
            raise InvalidExposure(f"{marked!r} cannot carry a mark; name it where its module is exposed") from exc
        return marked

    return mark


def mark_of(value: Any) -> Mark | None:
    """The mark on a function, a bound method, a staticmethod or classmethod; runs no code of the value."""
    # By type(), as isinstance() asks a proxy for its __class__: Flask's `request` then raises.
    kind = type(value)
    if issubclass(kind, type):
        return None
    mark = inspect.getattr_static(value, MARK, None)
    if mark is None and issubclass(kind, MethodType | staticmethod | classmethod):
        return mark_of(value.__func__)
    return mark if type(mark) is Mark else None


def is_generator(value: object) -> bool:
    """Whether a call gives a generator, which has no form on the wire."""
    return any(
        inspect.isgeneratorfunction(made) or inspect.isasyncgenfunction(made) for made in (value, _call_method(value))
    )


def is_async(value: object) -> bool:
    """Whether a call is known to give an awaitable: coroutine functions and Tornado's `gen.coroutine`."""
    return any(
        inspect.iscoroutinefunction(made) or getattr(made, "__tornado_coroutine__", False) is True
        for made in (value, _call_method(value))
    )


def _call_method(value: object) -> object:
    return inspect.getattr_static(type(value), "__call__", None)


def check_callable(value: object, label: str) -> None:
    """Raise `InvalidExposure` for what cannot be called remotely; `label` opens the message."""
    inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if not callable(inner) or isinstance(inner, type | ModuleType):
        raise InvalidExposure(f"{label} is not a function")
    if is_generator(inner):
        raise InvalidExposure(f"{label} is a generator; return a list instead, a generator has no form on the wire")
