"""Checks and converts the arguments of a call against the function's own signature and annotations.

Rule: all that depends only on the function is prepared once, in `Arguments`; a call with positional arguments that
already have the annotated types costs one look at each. Whatever is wrong with the arguments is `InvalidArguments`,
raised before the function runs, with the function and the argument named. What cannot be known is let through: a
builtin without a signature, an annotation that does not resolve or that msgspec does not support.
This module does not know how values travel; it only allows for what JSON leaves of them (dates as text, string keys).
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union

import msgspec

from backwater_tornado.errors import InvalidArguments

Convert = Callable[[Any], Any]
#: What else a value may stand for, likeliest first.
Readings = Callable[[Any], Iterable[Any]]

#: Characters of a name, and of a reason, that a message repeats: both may come from the peer.
SHOWN_NAME, SHOWN_REASON = 80, 400

#: A position that no positional argument reaches.
_NEVER = sys.maxsize

_POSITIONAL_ONLY, _KEYWORD_ONLY = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY
_VAR_POSITIONAL, _VAR_KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_SEQUENCES = frozenset((list, tuple))

#: Stands for the signature of a builtin that has none.
_UNKNOWN = inspect.Signature([inspect.Parameter("args", _VAR_POSITIONAL), inspect.Parameter("kwargs", _VAR_KEYWORD)])


class Plan(NamedTuple):
    """How one annotation is checked."""

    #: Values of exactly these types are right as they are.
    exact: frozenset[type]
    #: Gives every other value its annotated type; raises whatever it likes.
    convert: Convert


class Parameter(NamedTuple):
    """One parameter of a function, prepared."""

    name: str
    position: int
    keyword: bool
    required: bool
    #: None: any value is right.
    plan: Plan | None


class Arguments:
    """The arguments that one function takes.

    Attributes:
        text: the signature for listings, such as `(x: int, y: int = 0) -> int`.
    """

    __slots__ = ("_by_name", "_exact", "_label", "_least", "_positional", "_required", "_rest", "_rest_named", "text")

    def __init__(self, call: Callable[..., Any], label: str) -> None:
        self._label = label
        try:
            signature = _resolved(inspect.signature(call), _globals_of(call))
        except (ValueError, TypeError):  # some builtins have none; what it cannot take is its own matter
            signature = _UNKNOWN
        self.text = _text(signature)
        self._rest: Parameter | None = None
        self._rest_named: Parameter | None = None
        self._prepare(signature)

    def _prepare(self, signature: inspect.Signature) -> None:
        parameters = []
        for position, declared in enumerate(signature.parameters.values()):
            parameter = _parameter(declared, position)
            if declared.kind is _VAR_POSITIONAL:
                self._rest = parameter
            elif declared.kind is _VAR_KEYWORD:
                self._rest_named = parameter
            else:
                parameters.append(parameter)
        self._positional = [parameter for parameter in parameters if parameter.position != _NEVER]
        self._by_name = {parameter.name: parameter for parameter in parameters if parameter.keyword}
        self._required = [parameter for parameter in parameters if parameter.required]
        self._exact = [parameter.plan and parameter.plan.exact for parameter in self._positional]
        # With a required keyword-only parameter no call is simple: no number of arguments is at least _NEVER.
        self._least = len([parameter for parameter in self._required if parameter.position != _NEVER])
        if len(self._required) > self._least:
            self._least = _NEVER

    def accepts(self, count: int) -> bool:
        """Whether a call with so many positional arguments, and nothing else, may fit."""
        return self._least <= count and (count <= len(self._positional) or self._rest is not None)

    def bind(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], readings: Readings | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the function with; raises `InvalidArguments`.

        Args:
            args: those by position.
            kwargs: those by name.
            readings: what else a value that does not fit may stand for, where the wire has fewer types than Python.
        """
        if not kwargs and self._least <= len(args) <= len(self._exact) and type(args) in _SEQUENCES:
            for value, exact in zip(args, self._exact, strict=False):
                if exact is not None and type(value) not in exact:
                    break
            else:
                return tuple(args), {}
        return self._bind_each(args, kwargs, readings or _no_readings)

    def _bind_each(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], readings: Readings
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not isinstance(args, list | tuple):
            raise self._refusal(f"takes its arguments as a list, not {type(args).__name__}")
        if not isinstance(kwargs, Mapping):
            raise self._refusal(f"takes its named arguments as a dict, not {type(kwargs).__name__}")
        named = {
            name: self._convert(self._named(name, len(args)), name, value, readings) for name, value in kwargs.items()
        }
        positional = tuple(
            self._convert(parameter, parameter.name, value, readings)
            for parameter, value in zip(self._positional, args, strict=False)
        )
        rest = args[len(positional) :]
        if rest and self._rest is None:
            raise self._refusal(f"takes at most {len(self._positional)} positional arguments, and got {len(args)}")
        for parameter in self._required:
            if parameter.position >= len(args) and not (parameter.keyword and parameter.name in named):
                raise self._refusal(f"misses its argument {parameter.name!r}")
        if self._rest is None:
            return positional, named
        more = (
            self._convert(self._rest, f"{self._rest.name}[{place}]", value, readings)
            for place, value in enumerate(rest)
        )
        return (*positional, *more), named

    def _named(self, name: object, given: int) -> Parameter:
        """The parameter that a named argument is for, with `given` positional arguments before it."""
        parameter = self._by_name.get(name) if isinstance(name, str) else None
        if parameter is not None and parameter.position >= given:
            return parameter
        shown = repr(name)[:SHOWN_NAME]
        if not isinstance(name, str):
            raise self._refusal(f"takes names that are text, not {shown}")
        if parameter is not None:
            raise self._refusal(f"got its argument {shown} twice")
        if self._rest_named is not None:
            return self._rest_named
        if any(parameter.name == name for parameter in self._positional):
            raise self._refusal(f"takes its argument {shown} by position only")
        raise self._refusal(f"has no argument {shown}; it takes {self.text}")

    def _convert(self, parameter: Parameter, name: str, value: Any, readings: Readings) -> Any:
        plan = parameter.plan
        if plan is None or type(value) in plan.exact:
            return value
        try:
            return plan.convert(value)
        except Exception as exc:  # a dataclass's own __post_init__ runs in there and may raise anything
            for other in readings(value):
                try:
                    return plan.convert(other)
                except Exception:  # noqa: BLE001, S112 - as above; the first reading is the one that is told
                    continue
            raise InvalidArguments(f"{self._label}() argument {name[:SHOWN_NAME]!r}: {_reason(exc, name)}") from exc

    def _refusal(self, what: str) -> InvalidArguments:
        return InvalidArguments(f"{self._label}() {what}")


def _no_readings(value: Any) -> Iterable[Any]:
    return ()


def _parameter(declared: inspect.Parameter, position: int) -> Parameter:
    keyword_only = declared.kind is _KEYWORD_ONLY
    return Parameter(
        name=declared.name,
        position=_NEVER if keyword_only else position,
        keyword=declared.kind is not _POSITIONAL_ONLY,
        required=declared.default is inspect.Parameter.empty,
        plan=plan_for(declared.annotation),
    )


def plan_for(annotation: Any) -> Plan | None:
    """How to check values of an annotation; None where it says nothing, or nothing that can be checked."""
    if typing.get_origin(annotation) is Annotated and not any(
        isinstance(note, msgspec.Meta) for note in annotation.__metadata__
    ):
        annotation = annotation.__origin__  # the notes are somebody else's
    if annotation in _ANYTHING:
        return None
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    exact = frozenset(member for member in members if isinstance(member, type) and not typing.get_args(member))
    convert = _msgspec_converter(annotation)
    if convert is None and len(members) > 1:
        convert = _union_converter(members)
    return None if convert is None else Plan(exact, convert)


_ANYTHING = (Any, object, inspect.Parameter.empty)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _msgspec_converter(annotation: Any) -> Convert | None:
    # msgspec keeps what it knows of a type only on a Struct: converting [1, 2] to list[int] takes 1.1 µs, and within
    # a struct of one field 0.4 µs; an optional dict of lists of dataclasses 5.8 µs and 1.1 µs.
    def convert(value: Any) -> Any:
        return msgspec.convert((value,), holder, str_keys=True).value  # type: ignore[attr-defined]

    try:
        holder = msgspec.defstruct("Argument", [("value", annotation)], array_like=True)
        convert(object())
    except msgspec.ValidationError:
        return convert
    except Exception:  # noqa: BLE001 - not supported, or not even a type
        return None
    return convert


def _union_converter(members: Sequence[Any]) -> Convert | None:
    """For the unions that msgspec does not support (str | bytes, two dataclasses): the first member that fits."""
    plans = [plan_for(member) for member in members]
    converts = [plan.convert for plan in plans if plan is not None]
    if len(converts) < len(plans):
        return None
    wanted = " or ".join(inspect.formatannotation(member) for member in members)

    def convert(value: Any) -> Any:
        for attempt in converts:
            try:
                return attempt(value)
            except Exception:  # noqa: BLE001, S112 - the next member may fit
                continue
        raise msgspec.ValidationError(f"expected {wanted}, got {type(value).__name__} - at `$[0]`")

    return convert


#: What msgspec calls by their JSON names.
_PYTHONS = {"array": "list", "object": "dict", "null": "None"}


def _reason(exc: Exception, name: str) -> str:
    """What was wrong with a value; msgspec says it like so: "Expected `array`, got `str` - at `$[0].a`"."""
    if not isinstance(exc, msgspec.ValidationError):
        return f"{type(exc).__name__}: {exc}"[:SHOWN_REASON]
    text, _, place = str(exc).partition(" - at `")
    text = re.sub(
        "`([^`]*)`",
        lambda quoted: re.sub(r"\b(?:array|object|null)\b", lambda word: _PYTHONS[word[0]], quoted[1]),
        text,
    )
    place = place.replace("`", "").replace("$[0]", name, 1)
    where = "" if place == name else f", at {place}"
    return text[:1].lower() + text[1:SHOWN_REASON] + where[:SHOWN_REASON]


def _resolved(signature: inspect.Signature, names: dict[str, Any]) -> inspect.Signature:
    """The signature with each annotation resolved that can be: one bad hint must not hide the others."""
    parameters = []
    for parameter in signature.parameters.values():
        hint = _hint(parameter.annotation, names)
        if parameter.default is None and hint is not inspect.Parameter.empty:
            hint = _optional(hint)  # `x: int = None`, as many still write it
        parameters.append(parameter.replace(annotation=hint))
    return signature.replace(parameters=parameters, return_annotation=_hint(signature.return_annotation, names))


def _hint(annotation: Any, names: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    holder = types.SimpleNamespace(__annotations__={"hint": annotation})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:  # noqa: BLE001 - evaluates what the annotation says, which may be anything
        return inspect.Parameter.empty


def _optional(hint: Any) -> Any:
    try:
        return hint | None
    except TypeError:
        return hint


def _globals_of(call: Any) -> dict[str, Any]:
    """Where the names in a callable's annotations are looked up."""
    while True:
        if isinstance(call, functools.partial):
            call = call.func
        elif isinstance(call, types.MethodType):
            call = call.__func__
        elif hasattr(call, "__wrapped__"):
            call = inspect.unwrap(call)
        elif isinstance(call, types.FunctionType):
            return call.__globals__
        else:
            inner = inspect.getattr_static(type(call), "__call__", None)
            return inner.__globals__ if isinstance(inner, types.FunctionType) else {}


def _text(signature: inspect.Signature) -> str:
    if signature.return_annotation is types.NoneType:  # as resolving has made of `-> None`
        signature = signature.replace(return_annotation=None)
    try:
        return str(signature)
    except Exception:  # noqa: BLE001 - shows the defaults by their own repr
        return "(...)"
