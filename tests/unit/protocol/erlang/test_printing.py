"""Terms as an Erlang shell prints them; what stands here was printed by one."""

from __future__ import annotations

import enum
import math
from typing import Any

import pytest

from backwater_tornado.errors import Unserializable
from backwater_tornado.protocol.erlang.maps import ErlangMap
from backwater_tornado.protocol.erlang.printing import format_term, is_reserved, quote_atom
from backwater_tornado.protocol.erlang.terms import Atom, BitString, Charlist, Fun, ImproperList, Pid


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "undefined"),
        (True, "true"),
        (False, "false"),
        (Atom("ok"), "ok"),
        (Atom("a@b_C1"), "a@b_C1"),
        (Atom(""), "''"),
        (Atom("Ok"), "'Ok'"),
        (Atom("1a"), "'1a'"),
        (Atom("Elixir.Foo"), "'Elixir.Foo'"),
        (Atom("é"), "'é'"),
        (Atom("it's\\\n\x7f\x00"), r"'it\'s\\\n\x{7F}\x{0}'"),
        (Atom("end"), "'end'"),
        (0, "0"),
        (-5, "-5"),
        (Level.LOW, "1"),
        (2**70, "1180591620717411303424"),
        (1 << 14_000, "16#1" + "0" * 3500),
        (-(1 << 14_000), "-16#1" + "0" * 3500),
        (1.5, "1.5"),
        (-0.0, "-0.0"),
        (1e300, "1.0e300"),
        (1e16, "1.0e16"),
        (5e-324, "5.0e-324"),
        (1.25e-7, "1.25e-7"),
        (b"", "<<>>"),
        ("", "<<>>"),
        (b"abc", '<<"abc">>'),
        ('q"\\\n', r'<<"q\"\\\n">>'),
        ("łó", '<<"łó"/utf8>>'),
        (bytearray(b"a"), '<<"a">>'),
        (memoryview(b"a"), '<<"a">>'),
        (b"\xff\x00", "<<255,0>>"),
        (b"a\x00", "<<97,0>>"),
        (BitString(b"\xa0", 3), "<<5:3>>"),
        (BitString(b"\x01\x02\x38", 5), "<<1,2,7:5>>"),
        (BitString(b"\x01\x02", 8), "<<1,2>>"),
        ([], "[]"),
        ([1, 2], "[1,2]"),
        ([97, 98], '"ab"'),
        ([97, 10, 34], r'"a\n\""'),
        ([0x142], '"ł"'),
        ([97, 0], "[97,0]"),
        ([97, 0xD800], "[97,55296]"),
        ([97, 0x110000], "[97,1114112]"),
        ([97, -1], "[97,-1]"),
        ([97, True], "[97,true]"),
        ([2**200], "[" + str(2**200) + "]"),
        (Charlist("ab"), '"ab"'),
        (Charlist(""), "[]"),
        (Charlist("\x00"), "[0]"),
        (ImproperList((1, Atom("a")), (2,)), "[1,a|{2}]"),
        ((), "{}"),
        ((Atom("a"), [b"b"]), '{a,[<<"b">>]}'),
        ({}, "#{}"),
        ({1: Atom("one"), Atom("x"): {}}, "#{1 => one,x => #{}}"),
        (ErlangMap([([1], 2), (1, 1.0)]), "#{[1] => 2,1 => 1.0}"),
        (Pid(bytes.fromhex("58770161000000090000000000000000")), "<0.9.0>"),
        (Fun(b"", "fun erlang:abs/1"), "fun erlang:abs/1"),
    ],
)
def test_a_term_is_printed_as_in_the_shell(value: Any, text: str) -> None:
    assert format_term(value) == text


def test_none_is_the_atom_that_it_is_told_to_be() -> None:
    assert format_term([None, Atom("nil")], none="nil") == "[nil,nil]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1}, "set has no form as an Erlang term"),
        (math.nan, "the float nan has no form"),
        (-math.inf, "the float -inf has no form"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_what_is_no_term_is_not_printed(value: Any, message: str) -> None:
    with pytest.raises(Unserializable, match=message):
        format_term([value])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: [value],
        lambda value: (value,),
        lambda value: {1: value},
        lambda value: ErlangMap([([1], value)]),
        lambda value: ImproperList((value,), 1),
        lambda value: ImproperList((1,), (value,)),
    ],
)
def test_nesting_is_bounded(wrap: Any) -> None:
    value: Any = 1
    for _ in range(120):
        value = wrap(value)
    assert format_term(value)
    for _ in range(200):
        value = wrap(value)
    with pytest.raises(Unserializable, match="nested too deep, or holds itself"):
        format_term(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = [1]
    value.append({"k": value})
    with pytest.raises(Unserializable, match="holds itself"):
        format_term(value)


def test_a_stack_that_is_nearly_full_is_told() -> None:
    value: Any = 1
    for _ in range(250):
        value = [value]

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            format_term(value)

    with pytest.raises(Unserializable, match="the stack that is left here"):
        dive()


def test_reserved_words_are_told() -> None:
    assert is_reserved("when")
    assert not is_reserved("whence")
    assert quote_atom("whence") == "whence"
