"""The types of Erlang's terms: how they compare, print and refuse."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from backwater_tornado.protocol.erlang.terms import (
    Atom,
    BitString,
    Charlist,
    Fun,
    ImproperList,
    Pid,
    Port,
    Reference,
    text_of,
)

NODE = "64000d6e6f6e6f6465406e6f686f7374"


def test_an_atom_is_a_str_with_a_repr_of_its_own() -> None:
    assert Atom("ok") == "ok"
    assert {Atom("ok"): 1}["ok"] == 1
    assert repr(Atom("it's")) == 'Atom("it\'s")'
    assert str(Atom("ok")) == "ok"
    assert Atom("") == ""
    assert type(pickle.loads(pickle.dumps(Atom("ok")))) is Atom


def test_an_atom_has_at_most_255_characters() -> None:
    assert len(Atom("é" * 255)) == 255
    with pytest.raises(ValueError, match="an atom of 256 characters, at most 255"):
        Atom("a" * 256)


def test_a_charlist_is_a_str_with_a_repr_of_its_own() -> None:
    assert Charlist("ab") == "ab"
    assert repr(Charlist("ab")) == "Charlist('ab')"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Atom("ok"), "ok"),
        (True, "true"),
        (False, "false"),
        ("plain", "plain"),
        (Charlist("łó"), "łó"),
        (b"\xc3\xa9", "é"),
        (bytearray(b"a"), "a"),
        (memoryview(b"a"), "a"),
        ([], ""),
        ([97, 0x142], "ał"),
        ([97, [b"b", [99], []], "d", Charlist("e")], "abcde"),
        (ImproperList((97, [98]), b"c"), "abc"),
        ([0xD7FF, 0xE000, 0x10FFFF], "\ud7ff\ue000\U0010ffff"),
    ],
)
def test_the_text_of_what_stands_for_one(value: Any, text: str) -> None:
    found = text_of(value)
    assert found == text
    assert type(found) is str


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "NoneType is no part of a text"),
        (65, "an integer is no text"),
        (1.5, "float is no part of a text"),
        ((97,), "tuple is no part of a text"),
        ([97, Atom("b")], "Atom is no part of a text"),
        ([97, True], "bool is no part of a text"),
        ([-1], "an integer beyond all characters"),
        ([0xD800], "an integer beyond all characters"),
        ([0xDFFF], "an integer beyond all characters"),
        ([0x110000], "an integer beyond all characters"),
        ([2**99], "an integer beyond all characters"),
        (b"\xff", "invalid start byte"),
    ],
)
def test_what_stands_for_no_text_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_of(value)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: ImproperList((value,), b"")])
def test_a_text_is_nested_only_so_deep(wrap: Any) -> None:
    value: Any = b"a"
    for _ in range(255):
        value = wrap(value)
    assert text_of(value) == "a"
    with pytest.raises(ValueError, match="nested too deep"):
        text_of(wrap(value))


def test_unused_bits_are_nought() -> None:
    assert BitString(b"\x01\xff", 3) == BitString(b"\x01\xe0", 3)
    assert BitString(b"\xff", 1).data == b"\x80"
    assert BitString(b"\xff", 8).data == b"\xff"


@pytest.mark.parametrize(("data", "bits"), [(b"", 1), (b"", 0), (b"a", 0), (b"a", 9)])
def test_a_bit_string_has_a_last_byte_with_bits(data: bytes, bits: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        BitString(data, bits)


def test_an_improper_list_takes_its_items_as_a_tuple() -> None:
    items: Any = [1, 2]
    assert ImproperList(items, Atom("a")) == ImproperList((1, 2), Atom("a"))
    assert hash(ImproperList(items, 3)) == hash(ImproperList((1, 2), 3))


@pytest.mark.parametrize(
    ("items", "tail"), [((), 1), ((1,), []), ((1,), [2]), ((1,), Charlist("a")), ((1,), ImproperList((1,), 2))]
)
def test_an_improper_list_is_no_proper_one(items: Any, tail: Any) -> None:
    with pytest.raises(ValueError, match="an improper list has items"):
        ImproperList(items, tail)


@pytest.mark.parametrize(
    ("value", "shown", "text"),
    [
        (Pid(bytes.fromhex(f"58{NODE}000000090000000200000000")), "#Pid<0.9.2>", "<0.9.2>"),
        (Pid(bytes.fromhex(f"67{NODE}000000090000000203")), "#Pid<0.9.2>", "<0.9.2>"),
        (Port(bytes.fromhex(f"59{NODE}0000000700000000")), "#Port<0.7>", None),
        (Port(bytes.fromhex(f"66{NODE}0000000700")), "#Port<0.7>", None),
        (Port(bytes.fromhex(f"78{NODE}000000090000000900000001")), "#Port<0.38654705673>", None),
        (Reference(bytes.fromhex(f"5a0003{NODE}00000000000000010000000200000003")), "#Ref<0.3.2.1>", None),
        (Reference(bytes.fromhex(f"720002{NODE}000000000100000002")), "#Ref<0.2.1>", None),
        (Reference(bytes.fromhex(f"65{NODE}0000000900")), "#Ref<0.9>", None),
        (Fun(b"q", "fun erlang:abs/1"), "fun erlang:abs/1", None),
    ],
)
def test_opaque_values_are_shown_as_erlang_shows_them(value: Any, shown: str, text: str | None) -> None:
    assert repr(value) == shown
    assert str(value) == (text or shown)


def test_opaque_values_are_equal_by_their_bytes() -> None:
    assert {Pid(b"a"), Pid(b"a"), Pid(b"b"), Port(b"a")} == {Pid(b"a"), Pid(b"b"), Port(b"a")}
    assert Fun(b"a", "one") == Fun(b"a", "other")
    assert hash(Fun(b"a", "one")) == hash(Fun(b"a", "other"))
