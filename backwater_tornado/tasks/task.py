"""What `@expose` makes of a function: still the function, which can also be sent to a worker.

Rule: the function stays the same object. What is added are attributes (`delay`, `apply_async`, `s`, …), each of them a
line over `signatures`; as a type it is `Task`, which knows the function's parameters.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from backwater_tornado.errors import InvalidOption
from backwater_tornado.marks import ExposeKeywords, make_marker, mark_of

from .current import current_sender
from .options import SendOptions, make_send_options
from .signatures import Group, Signature

if TYPE_CHECKING:
    from backwater_tornado.results import AsyncResult

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
#: What `expose` leaves as it is: a descriptor of a class.
D = TypeVar("D", bound="staticmethod[Any, Any] | classmethod[Any, Any, Any]")


class Task(Protocol[P, R_co]):
    """A function that was exposed."""

    __name__: str
    __qualname__: str
    __module__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it here and now."""
        ...

    @overload
    def __get__(self: Task[Concatenate[S, Q], R], instance: S, owner: Any = None, /) -> Callable[Q, R]: ...
    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> Task[P, R_co]: ...

    # Send it to a worker; the options of `apply_async` are fields of `SendOptions`.
    @overload
    def delay(  # type: ignore[misc]  # of a Task of its own parameters only
        self: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[R]: ...
    @overload
    def delay(self: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]: ...

    @overload
    def apply_async(  # type: ignore[misc]
        self: Callable[P, Awaitable[R]],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]: ...
    @overload
    def apply_async(
        self: Callable[P, R], args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]: ...

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """A call as a value."""
        ...

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """A call as a value that takes no result of what went before."""
        ...

    def signature(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Signature:
        """A call as a value, with options."""
        ...

    def map(self, items: Iterable[Any]) -> Group:
        """A group: one call for each item, with it as the only argument."""
        ...

    def starmap(self, items: Iterable[Iterable[Any]]) -> Group:
        """A group: one call for each item, with what is in it as arguments."""
        ...


@overload
def expose(function: D, /, **options: Unpack[ExposeKeywords]) -> D: ...  # type: ignore[overload-overlap]
@overload
def expose(function: Callable[P, R], /, **options: Unpack[ExposeKeywords]) -> Task[P, R]: ...
@overload
def expose(
    function: None = None, /, *, bind: Literal[True], **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def expose(function: None = None, /, **options: Unpack[ExposeKeywords]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def expose(function: Any = None, /, **options: Any) -> Any:
    """Mark a function as callable from elsewhere, and as a task; use it bare or with options.

    Args:
        function: the function; it is returned as it is, with a mark and what `Task` says.
        options: name, idempotent, max_concurrency, time_limit and queue as in `ExposeOptions`; the options of tasks.

    Raises:
        InvalidExposure: this cannot be called remotely (a class, a generator), or was marked otherwise before.
        InvalidOption: an option is unknown or wrong.
    """
    mark = make_marker(options, sys._getframe(1).f_globals.get("__name__"))

    def expose_one(marked: Any) -> Any:
        return _with_methods(mark(marked))

    return expose_one if function is None else expose_one(function)


def _with_methods(function: Any) -> Any:
    """A function with the methods of `Task`; one that takes no attributes (a descriptor of a class) as it is."""
    if isinstance(function, staticmethod | classmethod):
        return function
    calls = _Calls(function)
    for name in ("delay", "apply_async", "s", "si", "signature", "map", "starmap"):
        setattr(function, name, getattr(calls, name))
    return function


class _Calls:
    """The methods of one task."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._sending: tuple[str, SendOptions] | None = None

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """See `Task`."""
        return current_sender().send(self.signature(args, kwargs))

    def apply_async(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """See `Task`."""
        return current_sender().send(self.signature(args, kwargs, **options))

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """See `Task`."""
        name, options = self._known()
        return Signature(name, args, kwargs, options)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """See `Task`."""
        name, options = self._known()
        return Signature(name, args, kwargs, options, immutable=True)

    def signature(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Signature:
        """See `Task`."""
        name, own = self._known()
        chosen = make_send_options(options, own) if options else own
        return Signature(name, tuple(args), {} if kwargs is None else dict(kwargs), chosen)

    def map(self, items: Iterable[Any]) -> Group:
        """See `Task`."""
        return Group(tuple(self.s(item) for item in items))

    def starmap(self, items: Iterable[Iterable[Any]]) -> Group:
        """See `Task`."""
        return Group(tuple(self.s(*item) for item in items))

    def _known(self) -> tuple[str, SendOptions]:
        """The task's name, and what its function says of its sending."""
        if self._sending is None:
            self._sending = task_name(self._function), send_options_of(self._function)
        return self._sending


#: Options of `@expose` that concern the sender.
_SENT = ("queue", "priority", "expires", "ignore_result", "result_expires", "serializer")


def send_options_of(function: Any) -> SendOptions:
    """What a function's mark says of sending it."""
    mark = mark_of(function)
    if mark is None:
        return SendOptions()
    given = {"queue": mark.options.queue, **mark.options.task}
    return make_send_options({name: given[name] for name in _SENT if given.get(name) is not None})


def task_name(function: Any) -> str:
    """The name under which workers know an exposed function: `module.name`.

    A function of the script that runs is known by the script's file, as a worker imports it: `tasks.add` for
    `python tasks.py`. Raises `InvalidOption` for what was not exposed, or has no name of its own (a partial).
    """
    mark = mark_of(function)
    if mark is None:
        raise InvalidOption(f"{function!r} is no task; mark it with @backwater.expose")
    own = getattr(function, "__name__", None)
    name = mark.options.name or own
    if name is None:
        raise InvalidOption(f"{function!r} has no name; give it one, expose(name=…)")
    module = mark.module if own is None else function.__module__
    return f"{_script_name() if module == '__main__' else module}.{name}"


def _script_name() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    return Path(getattr(main, "__file__", None) or "__main__").stem
