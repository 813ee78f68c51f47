"""Any term survives, on the wire and in Erlang's notation; any bytes are decoded or refused, and nothing else."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep
from backwater_tornado.protocol.erlang.decoding import decode_term
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.maps import ErlangMap, map_of
from backwater_tornado.protocol.erlang.notation import format_term, parse_term
from backwater_tornado.protocol.erlang.terms import Atom, BitString, Fun, ImproperList, Pid, Port, Reference

NODE = bytes.fromhex("64000d6e6f6e6f6465406e6f686f7374")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
atoms = texts.filter(lambda text: text not in ("true", "false", "undefined", "nil")).map(Atom)
bits = st.builds(BitString, st.binary(min_size=1, max_size=5), st.integers(1, 7))
plain = st.one_of(
    st.none(),
    st.booleans(),
    atoms,
    st.integers(),
    st.builds(lambda number, shift: (number << shift) - 1, st.integers(-9, 9), st.integers(0, 2100)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=20),
    texts.map(str.encode),
    bits,
    st.lists(st.integers(0, 255), max_size=5),
    st.lists(st.integers(0, 0x10FFFF), max_size=5),
)
opaque = st.one_of(
    st.binary(min_size=12, max_size=12).map(lambda data: Pid(b"X" + NODE + data)),
    st.binary(min_size=8, max_size=8).map(lambda data: Port(b"Y" + NODE + data)),
    st.binary(min_size=12, max_size=12).map(lambda data: Reference(b"Z\0\2" + NODE + data)),
    st.integers(0, 255).map(lambda arity: Fun(b"qw\1mw\1fa" + bytes([arity]), f"fun m:f/{arity}")),
)


def made_map(pairs: list[tuple[Any, Any]]) -> Any:
    """A map of those pairs that it can have together."""
    kept: dict[bytes, tuple[Any, Any]] = {}
    for key, value in pairs:
        kept[ErlangMap([(key, None)]).identify(255)] = (key, value)
    return map_of([key for key, _ in kept.values()], [value for _, value in kept.values()])


def improper(items: list[Any], tail: Any) -> ImproperList:
    return ImproperList(tuple(items), (tail,) if isinstance(tail, list | ImproperList) else tail)


def containers(inner: Any) -> Any:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.builds(improper, st.lists(inner, min_size=1, max_size=3), inner),
        st.lists(st.tuples(inner, inner), max_size=4).map(made_map),
        st.lists(st.tuples(st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, False]), inner), max_size=4).map(made_map),
    )


notable = st.recursive(plain, containers, max_leaves=12)
terms = st.recursive(plain | opaque, containers, max_leaves=12)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, ImproperList):
        return same(one.items, other.items) and same(one.tail, other.tail)
    if isinstance(one, ErlangMap):
        return one == other and same(one.pairs, other.pairs)
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@given(terms, st.binary(max_size=3))
@settings(max_examples=400, deadline=None)
def test_any_term_comes_back_as_itself(value: Any, behind: bytes) -> None:
    data = encode_term(value)
    back = decode_term(data + behind)
    assert same(back, value)
    assert encode_term(back) == data
    assert same(decode_term(encode_term(value, none="nil"), none="nil"), value)


@given(notable)
@example([3**10_000, -(3**10_000), 5e-324, 1.7976931348623157e308])
@settings(max_examples=400, deadline=None)
def test_what_is_printed_is_read_as_an_equal_term(value: Any) -> None:
    text = format_term(value)
    assert encode_term(parse_term(text)) == encode_term(value)
    assert format_term(parse_term(text)) == text


@given(st.text(max_size=40) | st.text("[]{}#<>=|,:/\"'\\$%.- \n0123456789abxeE_", max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_term(text)
    except ValueError as exc:
        complaint = str(exc)
    else:
        complaint = "column 1"
    assert "column " in complaint


def _decoded_or_refused(data: bytes) -> None:
    try:
        value = decode_term(data)
    except (BodyUndecodable, NestedTooDeep):
        return
    again = encode_term(value)
    assert encode_term(decode_term(again)) == again
    assert format_term(value)


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    _decoded_or_refused(data)
    _decoded_or_refused(b"\x83" + data)


@given(terms, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.booleans())
@settings(max_examples=600, deadline=None)
def test_changed_bytes_and_cuts_are_decoded_or_refused(value: Any, changes: list[tuple[int, int]], cut: bool) -> None:
    data = bytearray(encode_term([value, Atom("é" * 150), [[1]] * 9, {b"k": (1, 2**70)}]))
    for place, byte in changes:
        data[place % len(data)] = byte
    if cut and changes:
        del data[changes[0][0] % len(data) :]
    _decoded_or_refused(bytes(data))


tags = st.sampled_from([*b"abnocFdsvwmMjklhitgXfYxerZpuqPR"]).map(lambda tag: bytes([tag]))
counts = st.sampled_from([b"\0", b"\1", b"\2", b"\0\1", b"\0\0\0\1", b"\0\0\0\2", b"\xff\xff\xff\xff", NODE])


@given(st.lists(tags | counts | st.binary(max_size=3), max_size=30).map(b"".join))
@settings(max_examples=1000, deadline=None)
def test_what_looks_like_a_term_is_decoded_or_refused(data: bytes) -> None:
    _decoded_or_refused(b"\x83" + data)
