"""Values to terms: the bytes are those that a VM of OTP 25 writes with {minor_version, 2}, unless a test says else."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, namedtuple
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from backwater_tornado.errors import Unserializable
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.maps import ErlangMap
from backwater_tornado.protocol.erlang.terms import Atom, BitString, Charlist, Fun, ImproperList, Pid, Port, Reference


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    ADA = "ada"


class Colour(enum.Enum):
    RED = 1


class Odd(Atom):
    __slots__ = ()


class Word(Charlist):
    __slots__ = ()


class Ratio(float):
    __slots__ = ()


class Row(list):
    pass


class Blob(bytes):
    __slots__ = ()


class Buffer(bytearray):
    pass


Point = namedtuple("Point", "x y")  # noqa: PYI024


@pytest.mark.parametrize(
    ("value", "term"),
    [
        (None, "7709756e646566696e6564"),
        (True, "770474727565"),
        (False, "770566616c7365"),
        (Atom("ok"), "77026f6b"),
        (Atom(""), "7700"),
        (Atom("ł"), "7702c582"),
        (Atom("é" * 127), "77fe" + "c3a9" * 127),
        (Atom("é" * 128), "760100" + "c3a9" * 128),
        (0, "6100"),
        (255, "61ff"),
        (256, "6200000100"),
        (-1, "62ffffffff"),
        (2**31 - 1, "627fffffff"),
        (-(2**31), "6280000000"),
        (2**31, "6e040000000080"),
        (-(2**31) - 1, "6e040101000080"),
        (2**64, "6e0900000000000000000001"),
        (-(2**64), "6e0901000000000000000001"),
        (256**255 - 1, "6eff00" + "ff" * 255),
        (256**255, "6f0000010000" + "00" * 255 + "01"),
        (-(256**255), "6f0000010001" + "00" * 255 + "01"),
        (1.5, "463ff8000000000000"),
        (-0.0, "468000000000000000"),
        (b"abc", "6d00000003616263"),
        ("é", "6d00000002c3a9"),
        (bytearray(b"a"), "6d0000000161"),
        (memoryview(b"abcd")[::2], "6d000000026163"),
        (BitString(b"\xff", 3), "4d0000000103e0"),
        (BitString(b"\xff", 8), "6d00000001ff"),
        ([], "6a"),
        ([1, 2], "6b00020102"),
        ([0, 255], "6b000200ff"),
        ([1, 256], "6c0000000261016200000100" + "6a"),
        ([1, -1], "6c00000002610162ffffffff" + "6a"),
        ([1, True], "6c000000026101770474727565" + "6a"),
        ([1.0], "6c00000001463ff00000000000006a"),
        ([[]], "6c000000016a6a"),
        (Charlist("ab"), "6b00026162"),
        (Charlist("ł"), "6c000000016200000142" + "6a"),
        (Charlist(""), "6a"),
        (ImproperList((Atom("a"),), Atom("b")), "6c00000001770161770162"),
        ((), "6800"),
        ((1, (2,)), "6802610168016102"),
        ({}, "7400000000"),
        ({Atom("a"): 1}, "74000000017701616101"),
        ({1: 2, b"a": 3}, "740000000261016102" + "6d0000000161" + "6103"),
        (ErlangMap([([], 1), (1.0, 2)]), "74000000026a6101463ff00000000000006102"),
        (Pid(b"Xpid"), b"Xpid".hex()),
        (Port(b"Yport"), b"Yport".hex()),
        (Reference(b"Zref"), b"Zref".hex()),
        (Fun(b"qfun", "fun"), b"qfun".hex()),
        (Level.LOW, "6101"),
        (Name.ADA, "6d00000003616461"),
        (Odd("ok"), "77026f6b"),
        (Word("ab"), "6b00026162"),
        (Ratio(1.5), "463ff8000000000000"),
        (Row([1, 2]), "6b00020102"),
        (Blob(b"a"), "6d0000000161"),
        (Buffer(b"a"), "6d0000000161"),
        (OrderedDict({1: 2}), "740000000161016102"),
        (Point(1, 2), "680261016102"),
        ([Level.LOW], "6c0000000161016a"),
        ({Name.ADA: Level.LOW}, "74000000016d000000036164616101"),
    ],
)
def test_a_value_is_written_as_the_vm_writes_it(value: Any, term: str) -> None:
    assert encode_term(value).hex() == "83" + term


def test_long_tuples_and_lists_have_long_counts() -> None:
    assert encode_term((1,) * 255)[:3].hex() == "8368ff"
    assert encode_term((1,) * 256)[:6].hex() == "836900000100"
    assert encode_term([1] * 65535)[:4].hex() == "836bffff"
    assert encode_term([1] * 65536)[:6].hex() == "836c00010000"


def test_none_is_the_atom_that_it_is_told_to_be() -> None:
    assert encode_term([None], none="nil").hex() == "836c0000000177036e696c6a"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"when": datetime(2026, 8, 1, tzinfo=UTC)}], r"datetime.datetime has no form .* at \[0\]\['when'\]"),
        ([1, (2, {3})], r"set has no form as an Erlang term at \[1\]\[1\]"),
        ([{"a": 1, frozenset(): 2}], r"frozenset has no form .* at \[0\]\[frozenset\(\)\]"),
        (ImproperList((1,), {2}), r"set has no form .* at \[1\]"),
        (Decimal(1), "^decimal.Decimal has no form as an Erlang term$"),
        (Colour.RED, "Colour has no form"),
        (object(), "^object has no form"),
        (1j, "complex has no form"),
        ([math.nan], r"the float nan has no form as an Erlang term at \[0\]"),
        (-math.inf, "the float -inf has no form"),
        (["\ud800"], r"a str with a lone surrogate has no form .* at \[0\]"),
        (Charlist("\ud800"), "a str with a lone surrogate"),
        (Atom("\ud800"), "a str with a lone surrogate"),
        ([{"a": 1, b"a": 2}], r"two keys of a dict become the same Erlang term at \[0\]"),
        ({True: 1, Atom("true"): 2}, "two keys of a dict become the same"),
        ({None: 1, Atom("undefined"): 2}, "two keys of a dict become the same"),
        ({("a",): 1, (b"a",): 2}, "two keys of a dict become the same"),
        (ErlangMap([(None, 1), (Atom("undefined"), 2)]), "two keys of a dict become the same"),
    ],
)
def test_what_is_no_term_is_named_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(Unserializable, match=message):
        encode_term(value)


def test_a_part_beyond_all_lengths_is_refused() -> None:
    try:
        zeros = bytes(1 << 32)  # that nobody looks at take no memory
    except MemoryError:
        pytest.skip("no room for an address space of 4 GiB")
    with pytest.raises(Unserializable, match="longer than a term can be"):
        encode_term([zeros])


WRAPS = [
    lambda value: [value],
    lambda value: (value,),
    lambda value: {1: value},
    lambda value: ErlangMap([(1, value)]),
    lambda value: ImproperList((value,), 1),
    lambda value: ImproperList((1,), (value,)) if isinstance(value, ImproperList) else ImproperList((value,), 1),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_255_levels_are_written_and_not_one_more(wrap: Any) -> None:
    value: Any = 1
    for _ in range(127):
        value = wrap(value)
    assert encode_term(value)
    for _ in range(129):
        value = wrap(value)
    with pytest.raises(Unserializable, match="nested too deep, or holds itself"):
        encode_term(value)


@pytest.mark.parametrize("innermost", [[], [1], (), {}])
def test_an_empty_list_and_a_list_of_bytes_are_levels_too(innermost: Any) -> None:
    value = innermost
    for _ in range(254):
        value = [value]
    assert encode_term(value)
    with pytest.raises(Unserializable, match="nested too deep"):
        encode_term([value])


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = [1]
    value.append(({"k": value},))
    with pytest.raises(Unserializable, match=r"holds itself at \.\.\."):
        encode_term(value)


def test_a_stack_that_is_nearly_full_is_told() -> None:
    value: Any = 1
    for _ in range(250):
        value = [value]

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            encode_term(value)

    with pytest.raises(Unserializable, match="the stack that is left here"):
        dive()
