"""A call as a value, and calls that follow one another or run side by side: `add.s(1, 2) | double.s()`.

    Signature            one call
    Chain(a, b, c)       each begins when the one before has ended well, with its result in front of its arguments
    Group(a, b, c)       all at once; its result is the list of theirs
    Chord(group, body)   the body begins when the whole group has ended well: a chain of the two

Rule: values only. They know nothing of a broker; `workflow` says what becomes of them, and whoever sends them is found
by `current`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, Union

import msgspec

from backwater_tornado.errors import InvalidOption

from .current import current_sender
from .options import SendOptions, make_send_options

if TYPE_CHECKING:
    from .current import Sent

C = TypeVar("C", bound="_Sendable")
#: What can be sent: one call, or several that belong together.
Canvas = Union["Signature", "Chain", "Group"]


class _Sendable:
    """What all of them can do."""

    __slots__ = ()

    def __or__(self, other: Canvas) -> Chain:
        """First this, then the other."""
        if not isinstance(other, _Sendable):
            return NotImplemented
        return Chain((*_steps(self), *_steps(other)))

    def delay(self, *args: Any, **kwargs: Any) -> Sent:
        """Send it, with these arguments in front of those it has, and these named ones over them."""
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Sent:
        """Send it; the options are fields of `SendOptions`."""
        return current_sender().send(clone(self, args, kwargs, options))

    def set(self, **options: Any) -> Self:
        """The same with other options, see `SendOptions`; of a chain for its last, of a group for each."""
        return clone(self, (), None, options)

    def clone(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """The same with more arguments in front, other named ones, other options."""
        return clone(self, args, kwargs, options)

    def link(self, *after: Signature) -> Self:
        """With calls that follow when it has ended well; each gets its result in front."""
        return _linked(self, "link", after)

    def on_error(self, *after: Signature) -> Self:
        """With calls that follow when it has failed; each gets its id in front."""
        return _linked(self, "link_error", after)


class Signature(_Sendable, msgspec.Struct, frozen=True):
    """One call of a task.

    Attributes:
        task: `module.name`.
        immutable: it takes no result of what went before (`si`).
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    options: SendOptions = SendOptions()
    immutable: bool = False


class Chain(_Sendable, msgspec.Struct, frozen=True):
    """Calls one after the other."""

    steps: tuple[Canvas, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise InvalidOption("a chain has at least one call")

    __call__ = _Sendable.delay


class Group(_Sendable, msgspec.Struct, frozen=True):
    """Calls side by side."""

    members: tuple[Canvas, ...]

    __call__ = _Sendable.delay


def _steps(canvas: Any) -> tuple[Canvas, ...]:
    return canvas.steps if isinstance(canvas, Chain) else (canvas,)


def signature(
    task: str, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
) -> Signature:
    """A call of a task that is known by its name only, `module.name`."""
    if not all(str(task).rpartition(".")[::2]):
        raise InvalidOption(f"a task is named as module.name, not {task!r}")
    return Signature(task, tuple(args), {} if kwargs is None else dict(kwargs), make_send_options(options))


def chain(*steps: Canvas) -> Chain:
    """Calls one after the other; each gets the result of the one before in front of its arguments."""
    return Chain(tuple(each for step in _canvases(steps) for each in _steps(step)))


def group(*members: Canvas | Iterable[Canvas]) -> Group:
    """Calls side by side, given one by one or as an iterable; the result is the list of theirs."""
    return Group(tuple(_canvases(members)))


def chord(header: Group | Iterable[Canvas], body: Canvas | None = None) -> Any:
    """Calls side by side, and one that gets the list of their results: `chord([a, b], body)`, `chord([a, b])(body)`."""
    members = header if isinstance(header, Group) else group(header)
    if body is None:
        return lambda body, **options: chord(members, body).apply_async(**options)
    return Chain((members, *_steps(body)))


def _canvases(given: Iterable[Any]) -> Iterable[Canvas]:
    for each in given:
        if isinstance(each, Signature | Chain | Group):
            yield each
        elif isinstance(each, Iterable) and not isinstance(each, str | bytes | Mapping):
            yield from _canvases(each)
        else:
            raise InvalidOption(f"a call is made by .s(…), .si(…) or signature(…); {each!r} is none")


def clone(canvas: C, args: Iterable[Any], kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]) -> C:
    """More arguments in front, named ones over those there; of a chain for its first call, of a group for each.

    Options are for the last of a chain (what is asked for its result), `countdown` and `eta` for its first.
    """
    args = tuple(args)
    if not args and not kwargs and not options:
        return canvas
    return _cloned(canvas, args, kwargs, options)  # type: ignore[return-value]  # each kind gives its own


def _cloned(canvas: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Canvas:
    match canvas:
        case Signature():
            return msgspec.structs.replace(
                canvas,
                args=canvas.args if canvas.immutable else (*args, *canvas.args),
                kwargs=canvas.kwargs if canvas.immutable else {**canvas.kwargs, **(kwargs or {})},
                options=make_send_options(options, canvas.options),
            )
        case Chain(steps):
            early = {name: value for name, value in options.items() if name in ("countdown", "eta")}
            late = {name: value for name, value in options.items() if name not in early}
            begun = (clone(steps[0], args, kwargs, early), *steps[1:])
            return Chain((*begun[:-1], clone(begun[-1], (), None, late)))
        case Group(members):
            if "task_id" in options:
                raise InvalidOption("task_id is for one call, and this is a group")
            return Group(tuple(clone(each, args, kwargs, options) for each in members))
    raise InvalidOption(f"{canvas!r} cannot be sent")


def _linked(canvas: C, option: str, after: tuple[Signature, ...]) -> C:
    """With more links: of a chain for its last, of a group for each."""
    made: Canvas
    if isinstance(canvas, Chain):
        made = Chain((*canvas.steps[:-1], _linked(canvas.steps[-1], option, after)))
    elif isinstance(canvas, Group):
        made = Group(tuple(_linked(each, option, after) for each in canvas.members))
    else:
        assert isinstance(canvas, Signature)
        made = canvas.set(**{option: (*getattr(canvas.options, option), *after)})
    return made  # type: ignore[return-value]  # each kind gives its own
