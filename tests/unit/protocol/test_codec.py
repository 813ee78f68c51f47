"""Values to bytes and back: what survives, what is refused, and that no other error ever comes out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import ormsgpack
import pytest

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep, Unserializable
from backwater_tornado.protocol.codec import JSON, MAX_DEPTH, MSGPACK, PICKLE, Codec, codec_for


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Struct(msgspec.Struct, tag=True, rename="camel"):
    a_b: int


class Name(str):
    __slots__ = ()


class Evil:
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class Opens:
    """A pickle of it cannot be loaded."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def deep(levels: int, wrap: Any, value: Any = 1) -> Any:
    for _ in range(levels):
        value = wrap(value)
    return value


def circular() -> list[Any]:
    value: list[Any] = [1]
    value.append((value,))
    return value


@pytest.mark.parametrize(
    ("media_type", "codec"), [("application/msgpack", MSGPACK), ("application/json", JSON), ("text/html", None)]
)
def test_a_codec_is_found_by_its_media_type(media_type: str, codec: Codec | None) -> None:
    assert codec_for(media_type) is codec
    assert codec_for(media_type, unsafe=True) is codec
    assert codec is None or codec.media_type == media_type


def test_pickle_is_found_only_where_it_is_asked_for() -> None:
    assert codec_for("application/x-python-pickle") is None
    assert codec_for("application/x-python-pickle", unsafe=True) is PICKLE


# MessagePack ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], {}],
        (1, (2, (3, (4, (5, (6,)))))),
        [{1, 2}, frozenset({(1, 2)})],
        {"a": {1: (2,)}},
        {(1, 2): 3},
        2**64,
        2**99,
        -(2**99),
        Decimal("1.50"),
        UUID(int=7),
        datetime(2026, 8, 1, tzinfo=UTC),
        datetime(2026, 8, 1),  # noqa: DTZ001
        date(2026, 8, 1),
        1 + 2j,
        math.inf,
        "Ü",
        b"\x00\xff",
        None,
        {date(2026, 1, 1): {UUID(int=1): 1}},
        {(date(2026, 1, 1), 5)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_msgpack_gives_a_value_back_as_itself(value: Any) -> None:
    back = MSGPACK.decode(MSGPACK.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_msgpack_gives_the_plain_form_of_objects() -> None:
    value = [Point(1, Point(2)), Struct(3), {"k": Name("n")}, {Name("k"): 1}, bytearray(b"b")]
    back = MSGPACK.decode(MSGPACK.encode(value))
    assert back == [
        {"x": 1, "y": {"x": 2, "y": None}},
        {"type": "Struct", "aB": 3},
        {"k": "n"},
        {"k": 1},
        b"b",
    ]
    assert type(back[2]["k"]) is str


def test_a_set_of_what_would_not_be_hashable_is_refused_by_the_sender() -> None:
    frozen = dataclasses.make_dataclass("Frozen", ["x"], frozen=True)
    with pytest.raises(Unserializable, match="item of a set"):
        MSGPACK.encode([{frozen(1)}])


def test_ordinary_bytes_are_what_any_other_library_writes() -> None:
    value = [[1, "a", None, True, 1.5, b"x"], {"k": [{}]}]
    assert MSGPACK.encode(value) == ormsgpack.packb(value) == msgspec.msgpack.encode(value)


def test_a_timestamp_of_another_library_is_an_aware_datetime() -> None:
    moment = datetime(2026, 8, 1, 12, tzinfo=UTC)
    assert MSGPACK.decode(msgspec.msgpack.encode(moment)) == moment


def test_a_list_as_a_key_comes_as_a_tuple() -> None:
    assert MSGPACK.decode(b"\x81\x92\x01\x02\x03") == {(1, 2): 3}


def test_many_lists_as_keys_are_refused() -> None:
    with pytest.raises(BodyUndecodable, match="as keys"):
        MSGPACK.decode(b"\xde\x01\x00" + b"".join(b"\x91\xcc%c\x01" % number for number in range(256)))


def test_many_keys_that_are_tuples_are_still_written_and_read() -> None:
    value = {(number, str(number)): {number} for number in range(5000)}
    assert MSGPACK.decode(MSGPACK.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[], {"x": object()}], r"^object has no form on the wire at \[1\]\['x'\]$"),
        (["\ud800"], r"lone surrogate .* at \[0\]"),
        (2**20_000, "an int of 20001 bits"),
        (circular(), "nested too deep, or holds itself"),
        (deep(300, lambda inner: [inner]), "nested too deep"),
        (deep(5000, lambda inner: (inner,)), "nested too deep"),
        ((item for item in "ab"), "generator"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "value",
)
def test_msgpack_refuses_what_has_no_form_and_says_where(value: Any, message: str) -> None:
    with pytest.raises(Unserializable, match=message):
        MSGPACK.encode(value)


def test_a_stack_that_is_used_up_is_an_unserializable_value_or_a_body_nested_too_deep() -> None:
    value = deep(200, lambda inner: {1: inner})
    data, text = MSGPACK.encode(value), JSON.encode(deep(200, lambda inner: [inner]))
    caught: set[str] = set()

    def attempt(action: Any) -> None:
        try:
            action()
        except (Unserializable, NestedTooDeep) as exc:
            caught.add(f"{type(exc).__name__}: {exc}"[:200])

    def sink(levels: int) -> None:
        with contextlib.suppress(RecursionError):
            sink(levels + 1)
        if levels % 10 == 0 and levels > 300:
            for action in (lambda: MSGPACK.encode(value), lambda: MSGPACK.decode(data)):
                with_room(action)
            for action in (
                lambda: JSON.decode(text),
                lambda: JSON.encode(value),
                lambda: JSON.encode([value, object()]),
            ):
                with_room(action)

    def with_room(action: Any) -> None:
        try:
            attempt(action)
        except RecursionError:  # none left even for the call itself
            caught.add("RecursionError outside")

    sink(0)
    assert any("for the stack that is left here" in text for text in caught), caught


UNDECODABLE = {
    "nothing": b"",
    "bytes behind": b"\x01\x01",
    "a beginning": b"\x92\x01",
    "a list that lies": b"\xdd\xff\xff\xff\xff\x01",
    "a map that lies": b"\xdf\xff\xff\xff\xff\x01\x01",
    "a str that lies": b"\xdb\xff\xff\xff\xffa",
    "an extension that lies": b"\xc9\xff\xff\xff\xff\x01a",
    "invalid UTF-8": b"\xa1\xff",
    "a surrogate": b"\xa3\xed\xa0\x80",
    "a reserved byte": b"\xc1",
    "a map as a key": b"\x81\x80\x01",
    "a set as a key": b"\x81\xc7\x01\x02\x90\x01",
    "an unknown extension": b"\xd4\x63\x00",
    "a bad timestamp": b"\xc7\x0c\xff" + b"\xff" * 12,
    "a tuple of no list": b"\xd4\x01\x05",
    "a tuple that is cut": b"\xd4\x01\x91",
    "a tuple with more behind": b"\xd5\x01\x90\x90",
    "a set of lists": b"\xc7\x02\x02\x91\x90",
    "a map of an odd number": b"\xc7\x02\x04\x91\x01",
    "a map with list keys": b"\xc7\x03\x04\x92\x90\x01",
    "a Decimal that is none": b"\xc7\x02\x06ab",
    "a Decimal in another script": b"\xc7\x02\x06\xd9\xa1",
    "a UUID too short": b"\xd4\x07\x00",
    "a date that is none": b"\xc7\x02\x09ab",
    "a day that is none": b"\xc7\x0a\x092026-02-30",
    "a datetime that is none": b"\xd4\x08a",
    "a time that is none": b"\xd4\x0aa",
    "a timedelta too long": b"\xc7\x0c\x0b\x7f\xff\xff\xff" + b"\0" * 8,
    "a timedelta cut": b"\xd4\x0b\x00",
    "a complex cut": b"\xd4\x0c\x00",
    "an int too long": b"\xc8\x10\x00\x05" + b"\x7f" * 4096,
    "a set of unhashable NaN": b"\xc7\x08\x02\x91\xc7\x04\x06sNaN",
}


@pytest.mark.parametrize("data", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_msgpack_refuses_what_is_none(data: bytes) -> None:
    with pytest.raises(BodyUndecodable):
        MSGPACK.decode(data)
    with pytest.raises((BodyUndecodable, NestedTooDeep)):
        MSGPACK.decode(b"\x92\xc5\x02\x00" + b"\x91" * 512 + data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * (MAX_DEPTH + 1) + b"\x01",
        b"\x81\x01" * (MAX_DEPTH + 1) + b"\x01",
        b"\x91" * 500_000,
        b"\x81" * 500_000,
        b"\x81\x91" * 500_000,
    ],
)
def test_msgpack_refuses_what_is_nested_too_deep(data: bytes) -> None:
    with pytest.raises(NestedTooDeep):
        MSGPACK.decode(data)


def test_msgpack_decodes_what_is_nested_to_the_limit() -> None:
    value = deep(MAX_DEPTH, lambda inner: [inner])
    assert MSGPACK.decode(MSGPACK.encode(value)) == value


def test_extensions_within_one_another_are_bounded() -> None:
    def tuples(levels: int) -> bytes:
        data = b"\x90"
        for _ in range(levels):
            data = b"\xc9" + len(data).to_bytes(4, "big") + b"\x01" + data
            data = b"\x91" + data
        return data

    assert MSGPACK.decode(tuples(64)) == [deep(63, lambda inner: (inner,), ())]
    with pytest.raises(NestedTooDeep, match="64 extensions"):
        MSGPACK.decode(tuples(65))


# JSON ----------------------------------------------------------------------------------------------------------------


def test_json_writes_what_it_has_no_type_for_as_text_and_lists() -> None:
    value = [
        (1, 2),
        {3},
        b"x",
        Decimal("1.50"),
        UUID(int=7),
        date(2026, 8, 1),
        Point(1),
        Struct(2),
        Name("n"),
        None,
        {"a": 1.5},
        2**70,
    ]
    assert JSON.decode(JSON.encode(value)) == [
        [1, 2],
        [3],
        "eA==",
        "1.50",
        str(UUID(int=7)),
        "2026-08-01",
        {"x": 1, "y": None},
        {"type": "Struct", "aB": 2},
        "n",
        None,
        {"a": 1.5},
        2**70,
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, math.nan], "nan and infinity have no form in JSON"),
        ({"a": [(None, math.inf)]}, "application/msgpack"),
        ([Point(1, -math.inf), b"x", "null"], "nan and infinity"),
        ({math.nan: 1, "a": None}, "nan and infinity|has no form"),
        ([object()], r"object has no form on the wire at \[0\]"),
        ([1j], "complex has no form in JSON"),
        ([{None: 1}], "has no form in JSON"),
        ("\ud800", "lone surrogate"),
        (circular(), "holds itself"),
        (deep(300, lambda inner: [inner]), "nested too deep"),
        (deep(100_000, lambda inner: [inner]), "nested too deep"),
        (2**20_000, "an int of"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "value",
)
def test_json_refuses_what_has_no_form_in_it(value: Any, message: str) -> None:
    with pytest.raises(Unserializable, match=message):
        JSON.encode(value)


def test_null_is_no_nan() -> None:
    value = [None, {"null": [1.5, "x", (None, {2}), Name("n")]}]
    assert JSON.decode(JSON.encode(value)) == [None, {"null": [1.5, "x", [None, [2]], "n"]}]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1] x",
        b"[1,]",
        b"NaN",
        b"\xef\xbb\xbf1",
        b'"\xff"',
        b'"\\ud800"',
        b"1e999",
        b"1" * 5000,
        b"01",
        b"nul",
        b'{"a":1',
    ],
)
def test_json_refuses_what_is_none(data: bytes) -> None:
    with pytest.raises(BodyUndecodable, match="JSON"):
        JSON.decode(data)


@pytest.mark.parametrize("data", [b"[" * 500_000, b'{"a":' * 500_000, b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)])
def test_json_refuses_what_is_nested_too_deep(data: bytes) -> None:
    with pytest.raises(NestedTooDeep):
        JSON.decode(data)


# pickle --------------------------------------------------------------------------------------------------------------


def test_pickle_gives_everything_back() -> None:
    value = [Point(1, (2, {3})), 1j, Decimal("1.5")]
    assert PICKLE.decode(PICKLE.encode(value)) == value


def test_pickle_refuses_what_cannot_be_pickled() -> None:
    for value in (lambda: 1, Evil(), deep(100_000, lambda inner: [inner])):
        with pytest.raises(Unserializable, match="pickle"):
            PICKLE.encode(value)


@pytest.mark.parametrize("data", [b"", b"junk", pickle.dumps(1)[:-1], pickle.dumps(1) + b"x", pickle.dumps(Opens())])
def test_pickle_refuses_what_is_none(data: bytes) -> None:
    with pytest.raises(BodyUndecodable, match="pickle"):
        PICKLE.decode(data)
