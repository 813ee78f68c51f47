"""Any value survives as itself; any bytes are decoded or refused, and nothing else."""

from __future__ import annotations

import json
import math
from datetime import timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep, Unserializable
from backwater_tornado.protocol.codec import JSON, MSGPACK

# Whole seconds: of a fraction alone CPython's `fromisoformat` makes UTC.
offsets = st.none() | st.integers(-82_800, 82_800).map(lambda seconds: timezone(timedelta(seconds=seconds)))
hashable_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.datetimes(timezones=offsets),
    st.dates(),
    st.timedeltas(),
    st.times(timezones=offsets),
)
keys = st.recursive(
    hashable_scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)
values = st.recursive(
    hashable_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(keys, max_size=3),
        st.frozensets(keys, max_size=3),
    ),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one == other and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if hasattr(one, "utcoffset") and one.utcoffset() != other.utcoffset():
        return False
    return bool(one == other)


@given(values)
@settings(max_examples=300, deadline=None)
def test_msgpack_gives_any_value_back_as_itself(value: Any) -> None:
    assert same(MSGPACK.decode(MSGPACK.encode(value)), value)


@given(json_values)
@settings(max_examples=150, deadline=None)
def test_json_gives_what_json_knows_back_and_any_reader_reads_it(value: Any) -> None:
    data = JSON.encode(value)
    assert same(JSON.decode(data), value)
    assert json.loads(data) == value


@given(values)
@settings(max_examples=150, deadline=None)
def test_json_writes_any_value_or_says_that_it_cannot(value: Any) -> None:
    try:
        data = JSON.encode(value)
    except Unserializable:
        return
    JSON.decode(data)


@given(st.binary(max_size=400))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    for codec in (MSGPACK, JSON):
        _decoded_or_refused(codec, data)


@given(values, st.integers(0, 10_000), st.integers(0, 7), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_or_a_cut_is_decoded_or_refused(value: Any, place: int, bit: int, cut: bool) -> None:
    data = bytearray(MSGPACK.encode([value, "é" * 150, [[1]] * 99]))
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    _decoded_or_refused(MSGPACK, bytes(data))


def _decoded_or_refused(codec: Any, data: bytes) -> None:
    try:
        codec.decode(data)
    except (BodyUndecodable, NestedTooDeep):
        return
