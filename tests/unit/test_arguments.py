from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, NewType, Protocol, TypedDict
from uuid import UUID

import msgspec
import pytest

from backwater_tornado.arguments import Arguments, plan_for
from backwater_tornado.errors import InvalidArguments

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


@dataclass
class User:
    name: str
    age: int = 0


@dataclass
class Group:
    members: list[User]


class Point(msgspec.Struct):
    x: int
    y: int


class Pair(NamedTuple):
    left: int
    right: str


class Movie(TypedDict):
    title: str


class Colour(Enum):
    RED = "red"


class Number(Enum):
    ONE = 1


class Plain:
    pass


class Duck(Protocol):
    def quack(self) -> None: ...


UserId = NewType("UserId", int)
Positive = Annotated[int, msgspec.Meta(gt=0)]


def add(x: int, y: int) -> int:
    return x + y


def bind(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return Arguments(function, "f").bind(list(args), kwargs)


def refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidArguments) as caught:
        bind(function, *args, **kwargs)
    return caught.value.detail


def taking(annotation: Any) -> Callable[..., Any]:
    """A function of one argument `x` with that annotation."""

    def function(x):  # type: ignore[no-untyped-def]
        return x

    function.__annotations__["x"] = annotation
    return function


# How many, and which ------------------------------------------------------------------------------------------------


def test_right_arguments_pass_as_they_are() -> None:
    assert bind(add, 1, 2) == ((1, 2), {})
    assert bind(add, 1, y=2) == ((1,), {"y": 2})
    assert bind(add, x=1, y=2) == ((), {"x": 1, "y": 2})
    assert Arguments(add, "add").bind((1, 2), {}) == ((1, 2), {})


def test_a_missing_argument_is_named() -> None:
    assert refusal(add, 1) == "f() misses its argument 'y'"
    assert refusal(add, y=1) == "f() misses its argument 'x'"
    assert refusal(add) == "f() misses its argument 'x'"


def test_too_many_arguments_are_counted() -> None:
    assert refusal(add, 1, 2, 3) == "f() takes at most 2 positional arguments, and got 3"


def test_an_argument_given_twice_is_named() -> None:
    assert refusal(add, 1, 2, x=3) == "f() got its argument 'x' twice"


def test_an_unexpected_argument_is_named_beside_those_that_there_are() -> None:
    assert refusal(add, 1, 2, z=3) == "f() has no argument 'z'; it takes (x: int, y: int) -> int"


def test_defaults_are_left_to_the_function() -> None:
    def function(x: int, y: int = 5, *, z: int = 6) -> None: ...

    assert bind(function, 1) == ((1,), {})
    assert bind(function, 1, z=2) == ((1,), {"z": 2})


def test_a_positional_only_argument_is_not_taken_by_name() -> None:
    def function(x: int, /, y: int) -> None: ...

    assert bind(function, 1, y=2) == ((1,), {"y": 2})
    assert refusal(function, x=1, y=2) == "f() takes its argument 'x' by position only"


def test_a_positional_only_name_is_free_among_the_named_rest() -> None:
    def function(x: int, /, **rest: str) -> None: ...

    assert bind(function, 1, x="a") == ((1,), {"x": "a"})
    assert refusal(function, x="a") == "f() misses its argument 'x'"


def test_a_keyword_only_argument_is_not_taken_by_position() -> None:
    def function(x: int, *, y: int) -> None: ...

    assert bind(function, 1, y=2) == ((1,), {"y": 2})
    assert refusal(function, 1) == "f() misses its argument 'y'"
    assert refusal(function, 1, 2, y=3) == "f() takes at most 1 positional arguments, and got 2"


def test_the_rest_is_checked_by_its_own_annotations() -> None:
    def function(x: int, *rest: int, **named: str) -> None: ...

    assert bind(function, 1, 2, 3, a="b") == ((1, 2, 3), {"a": "b"})
    assert refusal(function, 1, 2, "3") == "f() argument 'rest[1]': expected int, got str"
    assert refusal(function, 1, a=2) == "f() argument 'a': expected str, got int"
    assert bind(function, 1) == ((1,), {})


def test_a_text_or_a_dict_in_place_of_the_list_is_refused() -> None:
    arguments = Arguments(lambda x, y: None, "f")
    for args in ("ab", b"ab", {"a": 1, "b": 2}, {1, 2}):
        with pytest.raises(InvalidArguments, match=r"f\(\) takes its arguments as a list, not "):
            arguments.bind(args, {})  # type: ignore[arg-type]


def test_a_list_in_place_of_the_dict_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="takes its named arguments as a dict, not list"):
        Arguments(add, "f").bind([1, 2], ["x"])  # type: ignore[arg-type]


def test_names_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidArguments, match=r"f\(\) takes names that are text, not 3"):
        Arguments(lambda **named: None, "f").bind([], {3: 4})  # type: ignore[dict-item]


def test_a_long_name_from_the_peer_is_not_repeated_whole() -> None:
    assert len(refusal(add, **{"z" * 10_000: 1})) < 300


def test_a_long_value_from_the_peer_is_not_repeated_whole() -> None:
    assert len(refusal(taking(Colour), "z" * 10_000)) < 600
    assert len(refusal(taking(dict[str, dict[Literal["a"], int]]), {"k" * 10_000: {"z" * 10_000: 1}})) < 1_000

    def function(**named: int) -> None: ...

    assert len(refusal(function, **{"n" * 10_000: "x"})) < 300

    def deeper(**named: list[int]) -> None: ...

    assert len(refusal(deeper, **{"n" * 10_000: ["x"]})) < 1_000

    @dataclass
    class Loud:
        text: str

        def __post_init__(self) -> None:
            raise KeyError(self.text)

    assert len(refusal(taking(Loud), {"text": "z" * 10_000})) < 600


# What they are ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 1, 1),
        (int, 2**100, 2**100),
        (float, 1, 1.0),
        (Any, "anything", "anything"),
        (object, 1, 1),
        (int | None, None, None),
        (int | None, 3, 3),
        (int | str, "a", "a"),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[int], [1, 2], {1, 2}),
        (frozenset, [1, 2], frozenset({1, 2})),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (dict[int, str], {1: "a"}, {1: "a"}),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (datetime, "2024-05-01T12:00:00Z", datetime(2024, 5, 1, 12, tzinfo=UTC)),
        (datetime, datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)),
        (date, "2024-05-01", date(2024, 5, 1)),
        (date | None, "2024-05-01", date(2024, 5, 1)),
        (timedelta, "PT60S", timedelta(seconds=60)),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        (Decimal, "1.5", Decimal("1.5")),
        (bytes, "aGk=", b"hi"),
        (bytes, b"hi", b"hi"),
        (User, {"name": "a"}, User("a")),
        (User, User("a"), User("a")),
        (list[User], [{"name": "a"}, User("b")], [User("a"), User("b")]),
        (Group, {"members": [{"name": "a", "age": 3}]}, Group([User("a", 3)])),
        (Point, {"x": 1, "y": 2}, Point(1, 2)),
        (Pair, [1, "a"], Pair(1, "a")),
        (Movie, {"title": "a"}, {"title": "a"}),
        (Colour, "red", Colour.RED),
        (Colour, Colour.RED, Colour.RED),
        (Colour | None, Colour.RED, Colour.RED),
        (Number, Number.ONE, Number.ONE),
        (Literal["a", 1], "a", "a"),
        (UserId, 3, 3),
        (Positive, 3, 3),
        (Annotated[int, "a note of others"], 3, 3),
        (complex, 1j, 1j),
        (str | bytes, b"a", b"a"),
        (datetime | str, "today", "today"),
        (User | Point, {"x": 1, "y": 2}, Point(1, 2)),
        (User | Point | None, None, None),
        (int | complex, 1j, 1j),
        (None, None, None),
    ],
)
def test_a_value_becomes_what_the_annotation_says(annotation: Any, value: Any, expected: Any) -> None:
    (found,), named = bind(taking(annotation), value)
    assert found == expected
    assert type(found) is type(expected)
    assert named == {}
    assert bind(taking(annotation), x=value) == ((), {"x": expected})


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (int, "1", "expected int, got str"),
        (int, True, "expected int, got bool"),
        (int, 1.0, "expected int, got float"),
        (int, None, "expected int, got None"),
        (float, "1", "expected float, got str"),
        (float, True, "expected float, got bool"),
        (float, 10**400, "number out of range"),
        (bool, 1, "expected bool, got int"),
        (str, b"a", "expected str, got bytes"),
        (int | None, "a", "expected int | None, got str"),
        (list, 3, "expected list, got int"),
        (list[int], "ab", "expected list, got str"),
        (list[int], [1, "a"], "expected int, got str, at x[1]"),
        (dict[int, str], {"a": "b"}, "expected int, got str, at key in x"),
        (User, [1], "expected dict, got list"),
        (User, {}, "object missing required field name"),
        (User, {"name": 3}, "expected str, got int, at x.name"),
        (Group, {"members": [{"name": 3}]}, "expected str, got int, at x.members[0].name"),
        (Positive, 0, "expected int >= 1"),
        (Literal["a"], "b", "invalid enum value 'b'"),
        (Colour, "blue", "invalid enum value 'blue'"),
        (datetime, "yesterday", "invalid RFC3339 encoded datetime"),
        (Plain, 3, "expected Plain, got int"),
        (str | bytes, 3, "expected str or bytes, got int"),
        (User | Point, {}, "got dict"),
        (None, 3, "expected None, got int"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_place(annotation: Any, value: Any, reason: str) -> None:
    detail = refusal(taking(annotation), value)
    assert detail.startswith("f() argument 'x': ")
    assert detail.endswith(reason)


def test_what_a_dataclass_itself_refuses_is_a_wrong_argument() -> None:
    @dataclass
    class Picky:
        kind: str

        def __post_init__(self) -> None:
            raise {"key": KeyError, "value": ValueError}[self.kind](f"no {self.kind}")

    assert refusal(taking(Picky), {"kind": "value"}) == "f() argument 'x': no value"
    assert refusal(taking(Picky), {"kind": "key"}) == "f() argument 'x': KeyError: 'no key'"


def test_none_passes_where_it_is_the_default() -> None:
    def function(x: int = None, y: Duck = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert bind(function, None, None) == ((None, None), {})
    assert bind(function, x=None) == ((), {"x": None})
    assert refusal(function, "a").startswith("f() argument 'x': expected int")


@pytest.mark.parametrize("annotation", [Duck, list[str | bytes], ClassVar[int], 5, Duck | int, "an ill ( expression"])
def test_an_annotation_that_cannot_be_checked_lets_everything_pass(annotation: Any) -> None:
    thing = object()
    assert bind(taking(annotation), thing) == ((thing,), {})


def test_an_annotation_that_fits_everything_lets_everything_pass() -> None:
    assert bind(taking(Hashable), 3) == ((3,), {})


def test_an_annotation_that_does_not_resolve_leaves_the_others_checked() -> None:
    def function(x: Unknown, y: int) -> Unknown: ...

    assert bind(function, "anything", 1) == (("anything", 1), {})
    assert refusal(function, 1, "a") == "f() argument 'y': expected int, got str"


def test_an_odd_annotation_with_none_as_default_is_not_checked() -> None:
    def function(x=None):  # type: ignore[no-untyped-def]
        return x

    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=OddHint())]
    )
    assert bind(function, 3) == ((3,), {})


class OddHint:
    """Passes typing's look at a hint, which wants a callable, and fits into no union."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None: ...


def test_an_unannotated_parameter_takes_anything() -> None:
    assert plan_for(inspect.Parameter.empty) is None
    assert bind(lambda x: None, [1]) == (([1],), {})


# Of what ------------------------------------------------------------------------------------------------------------


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Service:
    def method(self, x: User) -> None: ...

    @classmethod
    def of_class(cls, x: User) -> None: ...

    @staticmethod
    def static(x: User) -> None: ...

    def __call__(self, x: User) -> None: ...


def takes_user(x: User) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        takes_user,
        decorated(takes_user),
        decorated(functools.partial(decorated(takes_user))),
        functools.partial(takes_user),
        functools.lru_cache(takes_user),
        Service().method,
        Service.of_class,
        Service.static,
        Service(),
        functools.partial(Service().method),
    ],
)
def test_annotations_are_found_behind_wrappers_methods_and_objects(function: Callable[..., Any]) -> None:
    assert bind(function, {"name": "a"}) == ((User("a"),), {})
    assert "expected dict, got int" in refusal(function, 3)
    assert "misses its argument 'x'" in refusal(function)


def test_a_partial_takes_what_is_left() -> None:
    assert bind(functools.partial(add, 1), 2) == ((2,), {})
    assert "at most 1" in refusal(functools.partial(add, 1), 2, 3)
    assert bind(functools.partial(add, y=1), 2) == ((2,), {})


def test_a_builtin_with_a_signature_is_held_to_it() -> None:
    assert bind(math.pow, 1, 2) == ((1, 2), {})
    assert refusal(math.pow, 1) == "f() misses its argument 'y'"


def test_a_builtin_without_a_signature_takes_anything() -> None:
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(max)
    arguments = Arguments(max, "max")
    assert arguments.bind([1, 2], {"key": abs}) == ((1, 2), {"key": abs})
    assert arguments.text == "(*args, **kwargs)"


def test_the_text_shows_resolved_annotations() -> None:
    def function(x: User, *, y: list[int] | None = None) -> dict[str, int]: ...

    assert Arguments(add, "add").text == "(x: int, y: int) -> int"

    def nothing() -> None: ...

    assert Arguments(nothing, "nothing").text == "() -> None"
    assert Arguments(function, "f").text == f"(x: {__name__}.User, *, y: list[int] | None = None) -> dict[str, int]"


def test_a_default_that_cannot_be_shown_does_no_harm() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    def function(x: object = Shy()) -> None: ...

    assert Arguments(function, "f").text == "(...)"


# How many arguments, and what else they may stand for


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda: None, [0]),
        (lambda x, y: None, [2]),
        (lambda x, y=0, /: None, [1, 2]),
        (lambda x, *rest: None, [1, 2, 3, 4]),
        (lambda *, key=0: None, [0]),
        (lambda *rest, key: None, []),
        (lambda x, *, key: None, []),
        (max, [0, 1, 2, 3, 4]),
    ],
)
def test_a_function_accepts_these_numbers_of_arguments(function: Callable[..., Any], counts: list[int]) -> None:
    arguments = Arguments(function, "f")
    assert [count for count in range(5) if arguments.accepts(count)] == counts


def reading(value: Any) -> list[Any]:
    return [value.decode(), len(value)] if isinstance(value, bytes) else []


def test_what_does_not_fit_may_stand_for_something_else() -> None:
    def function(x: str, y: int = 0, *more: str, z: Any = None) -> None: ...

    arguments = Arguments(function, "f")
    assert arguments.bind([b"a", b"bc", b"d"], {"z": b"e"}, reading) == (("a", 2, "d"), {"z": b"e"})
    assert arguments.bind(["a", 7], {}, reading) == (("a", 7), {})
    with pytest.raises(InvalidArguments, match=r"f\(\) argument 'x': expected str, got int"):
        arguments.bind([7], {}, reading)
    with pytest.raises(InvalidArguments, match=r"'x': expected str, got bytes"):
        arguments.bind([b"a"], {})


def test_what_fits_as_it_is_is_not_read_otherwise() -> None:
    def function(x: bytes | None, y: Any) -> None: ...

    assert Arguments(function, "f").bind([b"a", b"b"], {}, reading) == ((b"a", b"b"), {})


def test_the_first_reading_is_the_one_that_is_told() -> None:
    def function(x: float) -> None: ...

    with pytest.raises(InvalidArguments, match="expected float, got bytes"):
        Arguments(function, "f").bind([b"a"], {}, lambda value: ["text", None])
    assert Arguments(function, "f").bind([b"a"], {}, lambda value: ["text", 1.5]) == ((1.5,), {})
