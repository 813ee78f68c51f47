"""What MessagePack has no type for: written, read back, and refused with its place."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import sys
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep, Unserializable
from backwater_tornado.protocol.extensions import (
    CONTAINERS,
    FROZENSET,
    LEAVES,
    MAP,
    MAX_COMPARISONS,
    MAX_DECIMAL_CHARACTERS,
    MAX_INT_BITS,
    SET,
    TUPLE,
    lower,
    pack_lowered,
    reader,
    simplify,
)
from backwater_tornado.protocol.nesting import MAX_DEPTH


def read_list(data: memoryview) -> list[Any]:
    return msgspec.msgpack.decode(data, type=list, ext_hook=hook)


hook = reader(read_list)


def trip(value: Any) -> Any:
    return msgspec.msgpack.decode(pack_lowered(lower(value)), ext_hook=hook)


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Number(int):
    def __int__(self) -> int:
        return 99


class Ratio(float): ...


class Blob(bytes): ...


class Items(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("not asked")


class Group(set[Any]): ...


class Moment(datetime): ...


class Colour(enum.Enum):
    RED = 1
    ODD = (1, 2)
    LISTED = [1]  # noqa: RUF012


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    ONE = "one"


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: Any = None


@dataclasses.dataclass(slots=True)
class Half:
    x: int = dataclasses.field(init=False)


class Plain(msgspec.Struct):
    a_b: int
    c: Any = None


class Tagged(msgspec.Struct, tag="t", tag_field="kind", rename="camel"):
    a_b: int


class Row(msgspec.Struct, array_like=True):
    a: int
    b: int


class TaggedRow(msgspec.Struct, array_like=True, tag=7):
    a: int


Pair = namedtuple("Pair", "a b")  # noqa: PYI024


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**64 - 1,
        -(2**63),
        2**64,
        -(2**63) - 1,
        2**MAX_INT_BITS - 1,
        1.5,
        -0.0,
        math.inf,
        "",
        "Ü𐀀",
        b"",
        b"\xff",
        [],
        [1, [2]],
        {},
        {"a": {"b": 1}},
        (),
        (1,),
        ((1, 2), [3, (4,)]),
        set(),
        {1, "a", None},
        frozenset(),
        frozenset({(1, 2)}),
        {2: 2, None: 3, True: 4, 1.5: 5, b"x": 6},
        {(1, 2): 3, "a": 4},
        {date(2026, 1, 1): 1},
        {2**70: 1},
        {frozenset({1}): {2: 3}},
        Decimal("1.50"),
        Decimal("1E+400"),
        Decimal("-Infinity"),
        UUID(int=5),
        complex(1.5, -2),
        datetime(2026, 8, 1, 12),  # noqa: DTZ001
        datetime(1, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 8, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30, seconds=-7))),
        date.min,
        date.max,
        time(1, 2, 3, 4),
        time(1, 2, tzinfo=UTC),
        timedelta.min,
        timedelta.max,
        timedelta(-1, 5, 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    back = trip(value)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value) or isinstance(value, set | frozenset)


def test_nan_survives_in_floats_and_decimals() -> None:
    assert math.isnan(trip(math.nan))
    assert str(trip(Decimal("sNaN12"))) == "sNaN12"


def test_a_named_time_zone_becomes_its_offset() -> None:
    back = trip(datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Etc/GMT-3")))
    assert back.isoformat() == "2026-07-01T12:00:00+03:00"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text("a"), "a"),
        (Number(5), 5),
        (Number(2**70), 2**70),
        (Ratio(1.5), 1.5),
        (Blob(b"x"), b"x"),
        (Items([1]), [1]),
        (OrderedDict(a=1), {"a": 1}),
        (Counter("aa"), {"a": 2}),
        (Pair(1, Pair(2, 3)), (1, (2, 3))),
        (Group({1}), {1}),
        (bytearray(b"x"), b"x"),
        (memoryview(b"abcd")[::2], b"ac"),
        (type("F", (frozenset,), {})({1}), frozenset({1})),
        (type("U", (UUID,), {})(int=1), UUID(int=1)),
        (type("D", (Decimal,), {})("1.0"), Decimal("1.0")),
        (Moment(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        (type("Day", (date,), {})(2026, 1, 1), date(2026, 1, 1)),
        (type("T", (time,), {})(1, 2), time(1, 2)),
        (type("TD", (timedelta,), {})(1), timedelta(1)),
        (type("C", (complex,), {})(1, 2), 1 + 2j),
        (Colour.RED, 1),
        (Colour.ODD, (1, 2)),
        (Level.LOW, 1),
        (Word.ONE, "one"),
        (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}),
        (Plain(1, (2,)), {"a_b": 1, "c": (2,)}),
        (Tagged(1), {"kind": "t", "aB": 1}),
        (Row(1, 2), [1, 2]),
        (TaggedRow(1), [7, 1]),
        ({Word.ONE: 1, Colour.RED: 2, Text("t"): 3}, {"one": 1, 1: 2, "t": 3}),
        ({Colour.ODD: 1}, {(1, 2): 1}),
        ({Colour.RED, Word.ONE}, {1, "one"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_of_another_class_gives_its_plain_form(value: Any, plain: Any) -> None:
    back = trip(value)
    assert back == plain
    assert type(back) is type(plain)


def circular() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


def deep(levels: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


class Broken(tzinfo):
    def utcoffset(self, _: Any) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "^object has no form on the wire$"),
        ([[], {"a": [1, object()]}], r"^object has no form on the wire at \[1\]\['a'\]\[1\]$"),
        ([{1: Point(1, object())}], r"at \[0\]\[1\]\['y'\]$"),
        ({(1, 2): object()}, r"object has no form on the wire at \[\(1, 2\)\]$"),
        ((0, {1, object()}), r"on the wire at \[1\]$"),
        (Broken(), "test_extensions.Broken has no form"),
        ("\ud800", "^a str with a lone surrogate has no form"),
        ({"\ud800": 1}, "lone surrogate"),
        (2 ** (MAX_INT_BITS + 1), "an int of 14282 bits"),
        (-(2**99_999), "limit is 14280"),
        (Decimal("1" * (MAX_DECIMAL_CHARACTERS + 1)), "a Decimal of 4351 characters"),
        ([datetime(2026, 1, 1, tzinfo=Broken())], r"^datetime.datetime cannot be read: RuntimeError at \[0\]"),
        (Half(), "Half cannot be read: AttributeError"),
        (circular(), r"nested too deep, or holds itself at \.\.\.\["),
        (deep(300, lambda inner: [inner]), "nested too deep"),
        (deep(70, lambda inner: (inner,)), "nested too deep"),
        (deep(70, lambda inner: {(): inner}), "nested too deep"),
        (deep(200, lambda inner: {"a": (inner,)}), "nested too deep"),
        ({Level.LOW: 1, Colour.RED: 2}, "two keys of a dict"),
        ({Colour.RED, Point}, "has no form"),
        ({Point(1), Point(2)}, "cannot be one on the other side"),
        ({Colour.LISTED: 1}, "cannot be one on the other side"),
        ({Word.ONE, Text("one"), 5}, None),
        ({Colour.RED: 1, 1: 2}, "two keys of a dict, or items of a set, become the same"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "value",
)
def test_what_has_no_form_is_named_with_its_place(value: Any, message: str | None) -> None:
    if message is None:
        assert trip(value) == {"one", 5}
        return
    with pytest.raises(Unserializable, match=message):
        lower(value)


def test_what_is_nested_to_the_limit_can_be_written() -> None:
    value = deep(MAX_DEPTH, lambda inner: [inner])
    assert trip(value) == value
    assert trip(deep(60, lambda inner: (inner,))) == deep(60, lambda inner: (inner,))
    with pytest.raises(Unserializable):
        lower([value])


def test_the_hook_of_the_fast_way_knows_the_same_types() -> None:
    assert dict(CONTAINERS) == {tuple: 1, set: 2, frozenset: 3}
    assert {UUID, datetime, date, time, timedelta, Decimal, complex, int} == set(LEAVES)
    with pytest.raises(Unserializable):
        simplify(object())


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (5, b"\x7f" * (MAX_INT_BITS // 8 + 2)),
        (6, b"1" * (MAX_DECIMAL_CHARACTERS + 1)),
        (99, b""),
        (-1, b"\0"),
        (0, b""),
    ],
)
def test_an_unknown_or_oversized_extension_is_undecodable(code: int, data: bytes) -> None:
    with pytest.raises(BodyUndecodable):
        hook(code, memoryview(data))


def test_no_extension_may_come_where_the_levels_end() -> None:
    with pytest.raises(NestedTooDeep, match="64 extensions"):
        reader(None)(1, memoryview(b"\x90"))
    assert reader(None)(9, memoryview(b"2026-01-01")) == date(2026, 1, 1)


# What shares a hash ---------------------------------------------------------------------------------------------------

MODULUS = sys.hash_info.modulus  # ints have one hash when they differ by it
ENOUGH = 2 * MAX_COMPARISONS + 1  # of one hash, each meets more than the bound on average


def build(code: int, items: list[Any]) -> Any:
    if code == MAP:
        items = [part for item in items for part in (item, None)]
    return hook(code, memoryview(pack_lowered(lower(items))))


ONE_HASH: dict[str, Callable[[int], Any]] = {
    "int": lambda number: (number + 1) * MODULUS,
    "Decimal": lambda number: Decimal((number + 1) * MODULUS),
    "complex": lambda number: complex(-1000003.0 * number, float(number)),
    "UUID": lambda number: UUID(int=(number + 1) * MODULUS),
    "tuple": lambda number: tuple(-1 - (number >> bit & 1) for bit in range(10)),
    "tuple of tuples": lambda number: ((number * MODULUS,),),
    "frozenset": lambda number: frozenset({number * MODULUS}),
}


@pytest.mark.parametrize("code", [SET, FROZENSET, MAP])
@pytest.mark.parametrize("make", ONE_HASH.values(), ids=ONE_HASH)
def test_too_many_items_of_one_hash_are_refused(code: int, make: Callable[[int], Any]) -> None:
    items = [make(number) for number in range(ENOUGH + 1)]
    assert len(set(map(hash, items))) == 1
    assert len(build(code, items[: ENOUGH - 1])) == ENOUGH - 1
    with pytest.raises(BodyUndecodable, match="too many items of the same hash"):
        build(code, items)


@pytest.mark.parametrize("code", [SET, FROZENSET, MAP])
def test_too_many_items_of_one_hash_are_refused_among_as_many_others(code: int) -> None:
    with pytest.raises(BodyUndecodable, match="same hash"):
        build(code, [*range(5000), *(number * MODULUS for number in range(1, 5000))])


def test_a_set_in_which_hashes_happen_to_be_shared_is_built() -> None:
    twins = [*range(1, 2001), *(number + MODULUS for number in range(1, 2001))]
    grid = list(itertools.product((-2, -1, 0, 1, 2), repeat=5))
    powers = [2**power for power in range(3000)]
    for items in (list(range(5000)), twins, grid, powers):
        assert build(SET, items) == set(items)
        assert build(MAP, items) == dict.fromkeys(items)


def test_a_tuple_may_hold_any_number_of_items_of_one_hash() -> None:
    items = [number * MODULUS for number in range(1000)]
    assert build(TUPLE, items) == tuple(items)
