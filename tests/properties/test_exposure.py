from __future__ import annotations

import inspect
import keyword
import typing
from types import ModuleType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.arguments import Arguments
from backwater_tornado.errors import InvalidArguments, NotExposed, UnknownFunction
from backwater_tornado.exposure import Exposure, expose

KINDS = list(inspect._ParameterKind)
NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Any signature that Python allows."""
    kinds = sorted(draw(st.lists(st.sampled_from(KINDS), max_size=5)))
    parameters: list[inspect.Parameter] = []
    optional = False
    for name, kind in zip(NAMES, kinds, strict=False):
        variable = kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        if variable and any(parameter.kind is kind for parameter in parameters):
            continue
        positional = kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD
        has_default = not variable and (draw(st.booleans()) or (positional and optional))
        optional = optional or (positional and has_default)
        default = 0 if has_default else inspect.Parameter.empty
        annotation = draw(st.sampled_from([int, inspect.Parameter.empty, Any]))
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    return inspect.Signature(parameters)


def function_with(signature: inspect.Signature) -> Any:
    names = {"typing": typing}
    exec(f"def function{signature}: ...", names)  # noqa: S102
    return names["function"]


@given(
    signatures(),
    st.lists(st.integers(), max_size=6),
    st.dictionaries(st.sampled_from([*NAMES, "z"]), st.integers(), max_size=4),
)
def test_arguments_are_accepted_exactly_when_python_accepts_them(
    signature: inspect.Signature, args: list[int], kwargs: dict[str, int]
) -> None:
    function = function_with(signature)
    try:
        function(*args, **kwargs)  # inspect's own bind refuses some calls that Python 3.11 accepts
    except TypeError:
        accepted = False
    else:
        accepted = True
    try:
        found = Arguments(function, "f").bind(args, kwargs)
    except InvalidArguments:
        assert not accepted
    else:
        assert accepted
        assert found == (tuple(args), kwargs)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)
ANNOTATIONS: list[tuple[Any, Any]] = [
    (int, int),
    (float, float),
    (str, str),
    (bytes, bytes),
    (bool, bool),
    (list[int], list),
    (dict[str, int], dict),
    (set[str], set),
    (tuple[int, str], tuple),
    (int | None, (int, type(None))),
    (str | bytes, (str, bytes)),
    (list[str] | dict[str, int], (list, dict)),
]


@given(VALUES, st.sampled_from(ANNOTATIONS))
def test_a_value_ends_as_what_the_annotation_says_or_is_refused(value: Any, annotation: tuple[Any, Any]) -> None:
    def function(x):  # type: ignore[no-untyped-def]
        return x

    function.__annotations__["x"] = annotation[0]
    arguments = Arguments(function, "f")
    try:
        (found,), _ = arguments.bind([value], {})
    except InvalidArguments as exc:
        reason = exc.detail.removeprefix("f() argument 'x': ")
    else:
        assert isinstance(found, annotation[1])
        return
    assert reason != ""
    assert not reason.startswith("f()")


IDENTIFIERS = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))


@given(st.dictionaries(IDENTIFIERS, st.sampled_from(["marked", "plain", "class", "value"]), min_size=1))
def test_what_is_found_is_what_is_listed_and_nothing_else(contents: dict[str, str]) -> None:
    module = ModuleType("made")
    for name, kind in contents.items():
        made: Any = {"class": type(name, (), {}), "value": 3}.get(kind)
        if made is None:
            made = eval("lambda: 1", {"__name__": "made"})  # noqa: S307
            made.__name__ = name
        if kind == "marked":
            expose(made)
        vars(module)[name] = made
    marked = {name for name, kind in contents.items() if kind == "marked"}
    public = {name for name, kind in contents.items() if kind == "plain" and not name.startswith("_")}
    expected = marked or public
    exposure = Exposure.of([module] if expected else [])
    assert {function.name for function in exposure.functions()} == expected
    for name, kind in contents.items():
        if not expected:
            break
        if name in expected:
            assert exposure.find("made", name).call is vars(module)[name]
            continue
        try:
            exposure.find("made", name)
        except UnknownFunction:
            assert kind == "value"
        except NotExposed:
            assert kind != "value"
        else:
            raise AssertionError(name)
