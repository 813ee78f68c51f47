"""How deep a body is nested: exact, and told without building anything."""

from __future__ import annotations

import json
import random
import sys

import ormsgpack
import pytest

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep
from backwater_tornado.protocol.nesting import MAX_DEPTH, MAX_ODD_KEYS, NESTING_CODES, check_json, check_msgpack

WIDE = b"\x9a" + b"\x91\x01" * 10  # ten lists in a list
TUPLE = b"\xc7\x04\x01"  # the head of an extension of four bytes


def extension(payload: bytes, code: int = 1) -> bytes:
    return b"\xc9" + len(payload).to_bytes(4, "big") + bytes([code]) + payload


def spread(levels: int, innermost: bytes = b"\x01") -> bytes:
    """Nested through first, middle and last places, in lists and maps, as keys and values, among many others."""
    data = innermost
    shapes = [
        lambda inner: b"\x91" + inner,
        lambda inner: b"\x93" + WIDE[:0] + b"\x01" + inner + b"\xc0",
        lambda inner: b"\xdc\x00\x02" + inner + b"\xa1a",
        lambda inner: b"\xdd\x00\x00\x00\x02\xa1b" + inner,
        lambda inner: b"\x81\xa1k" + inner,
        lambda inner: b"\xde\x00\x01\x01" + inner,
        lambda inner: b"\xdf\x00\x00\x00\x01" + inner + b"\x01",
    ]
    for level in range(levels):
        data = shapes[level % len(shapes)](data)
    return data


@pytest.mark.parametrize("beside", [b"", b"\x91\x01" * 4000, b"\xa1\x91" * 4000])
def test_exactly_the_limit_passes_and_one_level_more_is_refused(beside: bytes) -> None:
    count = len(beside) // 2
    head = b"\xdd" + (count + 1).to_bytes(4, "big")
    check_msgpack(head + beside + spread(MAX_DEPTH - 1))
    with pytest.raises(NestedTooDeep, match=str(MAX_DEPTH)):
        check_msgpack(head + beside + spread(MAX_DEPTH))


def test_the_limit_is_exact_where_each_level_holds_much_beside_the_next() -> None:
    def padded(levels: int) -> bytes:
        data = b"\x90"
        for _ in range(levels - 1):
            data = b"\x92\xd9\x50" + b"\x91" * 80 + data
        return data

    check_msgpack(padded(MAX_DEPTH))
    with pytest.raises(NestedTooDeep):
        check_msgpack(padded(MAX_DEPTH + 1))


@pytest.mark.parametrize("innermost", [b"\x90", b"\x80", b"\xc7\x00\x05", b"\xd4\x05\x00"])
def test_an_empty_container_and_any_extension_is_a_level(innermost: bytes) -> None:
    check_msgpack(spread(MAX_DEPTH - 1, innermost))
    with pytest.raises(NestedTooDeep):
        check_msgpack(spread(MAX_DEPTH, innermost))


@pytest.mark.parametrize("code", sorted(NESTING_CODES))
@pytest.mark.parametrize("head", ["fixext", "ext8", "ext16", "ext32"])
def test_the_payload_of_a_nesting_extension_is_looked_into(code: int, head: str) -> None:
    payload = spread(MAX_DEPTH - 1)
    if head == "fixext":
        payload = b"\x91" * MAX_DEPTH + b"\x01" * 16
        data = b"\xd8" + bytes([code]) + payload
    elif head == "ext8":
        payload = b"\x91" * 250
        data = b"\x91" * 10 + b"\xc7\xfa" + bytes([code]) + payload
    elif head == "ext16":
        data = b"\x91" + b"\xc8" + len(payload).to_bytes(2, "big") + bytes([code]) + payload
    else:
        data = b"\x91" + extension(payload, code)
    with pytest.raises((NestedTooDeep, BodyUndecodable)):
        check_msgpack(data)


def test_the_payload_of_any_other_extension_is_not() -> None:
    check_msgpack(extension(b"\x91" * 5000, 99))


def test_ordinary_large_bodies_pass() -> None:
    record = {
        "id": 70_000,
        "name": "Ünï" * 30,
        "tags": ["a", "b"],
        "address": {"street": "x" * 40},
        "blob": b"\x91" * 300,
    }
    check_msgpack(ormsgpack.packb([[[record] * 2000], {}]))
    check_msgpack(
        ormsgpack.packb(
            [[[1.5] * 10_000, list(range(70_000)), ["Ü"] * 9000, [b"\x91"] * 9000], {"a": b"\x91" * 99_999}]
        )
    )
    check_msgpack(ormsgpack.packb({str(number): number * 1000 for number in range(9000)}))
    check_msgpack(ormsgpack.packb("Ü" * 100_000))


def test_random_values_are_as_deep_as_they_are() -> None:
    dice = random.Random(7)

    def build(levels: int) -> object:
        value: object = "é" * dice.randrange(400)
        for _ in range(levels):
            beside = [dice.choice([1.5, "x" * 300, [[[]]], {"a": {}}]) for _ in range(dice.randrange(4))]
            value = [*beside, value] if dice.random() < 0.5 else {"v": value, "b": beside}
        return value

    for levels in (*range(1, 60), 240, 250):
        check_msgpack(ormsgpack.packb(build(levels)))


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff" + b"\x91" * 5000,
        b"\xdf\xff\xff\xff\xff" + b"\x91" * 5000,
        b"\xde\xff\xff" + b"\x91" * 5000,
        b"\x92" + b"\xa1\x91" * 300,
        b"\xdc\x01\x2c" + b"\xc1" * 300 + b"\x91" * 300,
        b"\xdc\x01\x2c" + b"\xa1\xff" * 300 + b"\x91" * 300,
    ],
)
def test_what_lies_about_its_length_is_refused_before_it_is_decoded(data: bytes) -> None:
    with pytest.raises((BodyUndecodable, NestedTooDeep)):
        check_msgpack(data)


def test_a_body_so_deep_that_it_cannot_even_be_skipped_is_refused() -> None:
    with pytest.raises(NestedTooDeep):
        check_msgpack(b"\x91" * 1_000_000)


def test_a_body_nested_around_most_of_its_own_bulk_is_looked_at_a_few_times_only() -> None:
    bulk = b"\xdd" + (200_000).to_bytes(4, "big") + b"\x91\x01" * 200_000
    check_msgpack(b"\x91" * (MAX_DEPTH - 2) + bulk)
    with pytest.raises(NestedTooDeep):
        check_msgpack(b"\x91" * (MAX_DEPTH - 1) + bulk)
    nested = extension(b"\x92" + bulk + extension(spread(100)))
    check_msgpack(b"\x91" * (MAX_DEPTH - 103) + nested)
    with pytest.raises(NestedTooDeep):
        check_msgpack(b"\x91" * (MAX_DEPTH - 102) + nested)


EVERY_KIND = (
    b"\x01\xff\xc0\xc2\xc3\xcc\x91\xd0\x91\xcd\x91\x91\xd1\x91\x91\xce\x91\x91\x91\x91\xd2\x91\x91\x91\x91\xca\x91\x91\x91\x91"
    b"\xcb"
    + b"\x91" * 8
    + b"\xcf"
    + b"\x91" * 8
    + b"\xd3"
    + b"\x91" * 8
    + b"\xa2\x91\x91\xd9\x01\x91\xda\x00\x01\x91\xdb\x00\x00\x00\x01\x91"
    b"\xc4\x01\x91\xc5\x00\x01\x91\xc6\x00\x00\x00\x01\x91\x90\x80\xdc\x00\x00\xdd\x00\x00\x00\x00\xde\x00\x00\xdf\x00\x00\x00\x00"
    b"\x91\x01\x81\x01\x01\xdc\x00\x01\x01\xdd\x00\x00\x00\x01\x01\xde\x00\x01\x01\x01\xdf\x00\x00\x00\x01\x01\x01"
    b"\xc7\x01\x09\x91\xc8\x00\x01\x09\x91\xc9\x00\x00\x00\x01\x09\x91\xd4\x09\x91\xd5\x09\x91\x91\xd6\x09\x91\x91\x91\x91"
    b"\xd7\x09" + b"\x91" * 8 + b"\xd8\x09" + b"\x91" * 16 + b"\xd5\x01\x91\x01"
)  # 43 items


@pytest.mark.parametrize("times", [1, 40, 4000])
def test_every_kind_of_item_is_passed_over_by_its_own_length(times: int) -> None:
    count = 43 * times + 1
    data = b"\xdd" + count.to_bytes(4, "big") + EVERY_KIND * times
    check_msgpack(data + spread(MAX_DEPTH - 1))
    with pytest.raises(NestedTooDeep):
        check_msgpack(data + spread(MAX_DEPTH))
    for broken in (
        data + spread(MAX_DEPTH - 1) + b"\x01",
        data + spread(MAX_DEPTH - 1)[:-1],
        data + b"\xdb\x00\x00\x01\x00",
    ):
        if times > 1:
            with pytest.raises(BodyUndecodable):
                check_msgpack(broken)


@pytest.mark.parametrize("last", [b"\xd4\x09\x00", b"\xd5\x01\x91\x01", b"\x90"])
def test_extensions_in_a_dense_list_are_levels_too(last: bytes) -> None:
    dense = b"\xdd\x00\x00\x10\x00" + b"\x91\x01" * 4095
    check_msgpack(dense + b"\x91" * (MAX_DEPTH - 3) + last)
    with pytest.raises(NestedTooDeep):
        check_msgpack(dense + b"\x91" * (MAX_DEPTH - 1) + last)


def test_long_flat_lists_are_not_taken_apart() -> None:
    calls = []

    def watch(_frame: object, event: str, called: object) -> None:
        if event == "c_call":
            calls.append(called)

    data = ormsgpack.packb([1.5, *["x" * 40] * 5000])
    sys.setprofile(watch)
    try:
        check_msgpack(data)
    finally:
        sys.setprofile(None)
    assert len(calls) < 30


# Keys of maps --------------------------------------------------------------------------------------------------------

ODD_KEYS = {
    "a list": b"\x92\x01\x02",
    "a list16": b"\xdc\x00\x01\x01",
    "a list that is empty": b"\x90",
    "a long list": b"\xdc\x00\x28" + b"\x01" * 40,
    "an extension": b"\xd4\x09\x00",
    "a tuple": b"\xc7\x02\x01\x91\x01",
    "a map": b"\x81\x01\x01",
}
BEFORE = {  # what is before the map: such that it is split, or walked through item by item
    "nothing": b"",
    "a sparse list": b"\x92\xd9\xff" + b"a" * 255,
    "a dense list": b"\xdc\x10\x01" + b"\x91\x01" * 4096,
    "a tuple": b"\xc9%b\x01\x91",
    "a tuple in a dense list": b"\xdc\x10\x01" + b"\x91\x01" * 4096 + b"\xc9%b\x01\x91",
}


def long_map(key: bytes, odd: int, plain: int = 300, value: bytes = b"\x01") -> bytes:
    """A map of as many odd keys (all the same: nothing here looks at them), and of plain ones around them."""
    count = (odd + 2 * plain).to_bytes(4, "big")
    return b"\xdf" + count + (b"\xa1k" + value) * plain + (key + value) * odd + (b"\xa1k" + value) * plain


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("value", [b"\x01", b"\x91\x01", b"\xda\x00\x40" + b"\x91" * 64], ids=["int", "list", "str"])
@pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS)
def test_a_map_may_have_so_many_lists_or_extensions_as_keys_and_not_one_more(
    key: bytes, value: bytes, before: bytes
) -> None:
    def within(data: bytes) -> bytes:
        return before.replace(b"%b", (len(data) + 1).to_bytes(4, "big")) + data

    check_msgpack(within(long_map(key, MAX_ODD_KEYS, value=value)))
    with pytest.raises(BodyUndecodable, match=f"more than {MAX_ODD_KEYS} lists or extensions as keys"):
        check_msgpack(within(long_map(key, MAX_ODD_KEYS + 1, value=value)))


@pytest.mark.parametrize("head", [b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff"])
def test_a_map_that_lies_about_its_length_is_not_decoded_as_far_as_it_goes(head: bytes) -> None:
    with pytest.raises(BodyUndecodable):
        check_msgpack(head + b"\x91\x01\x01" * 5000)


def test_keys_are_counted_for_each_map_alone() -> None:
    one = long_map(b"\x91\x01", 200, plain=0)
    within = b"\xde\x01\x00" + (b"\x91\x01" + one) * 200 + b"\x01\x01" * 56
    for dense in (b"", b"\x91\x01" * 4096):
        head = b"\xdd" + (3 + len(dense) // 2).to_bytes(4, "big") + dense
        check_msgpack(head + one * 3)
        check_msgpack(head + within * 3)
        with pytest.raises(BodyUndecodable):
            check_msgpack(head + within * 2 + long_map(b"\x91\x01", MAX_ODD_KEYS + 1))


@pytest.mark.parametrize("dense", [b"", b"\x91\x01" * 4096])
def test_lists_that_are_no_keys_are_not_counted(dense: bytes) -> None:
    head = b"\xdd" + (3 + len(dense) // 2).to_bytes(4, "big") + dense
    lists = b"\xdc\x01\x2c" + b"\x91\x01" * 300
    texts = b"\xdc\x01\x2c" + (b"\x91\xd9\x40" + b"a" * 64) * 300
    values = b"\xde\x01\x2c" + b"\x01\x91\x01" * 300
    for item in (lists, texts, values):
        check_msgpack(head + long_map(b"\x91\x01", 200, plain=30) + item + b"\x01")
        check_msgpack(head + long_map(b"\x91\x01", 200, plain=30, value=item) + item + b"\x01")


# JSON ----------------------------------------------------------------------------------------------------------------


def nested_json(levels: int) -> bytes:
    value: object = 1
    for level in range(levels):
        value = [0, value] if level % 2 else {"k": value}
    return json.dumps(value).encode()


def test_json_of_exactly_the_limit_passes_and_one_level_more_is_refused() -> None:
    check_json(nested_json(MAX_DEPTH))
    check_json(b"[" + nested_json(MAX_DEPTH - 1) + b", [], {}, []" * 400 + b"]")
    with pytest.raises(NestedTooDeep, match=str(MAX_DEPTH)):
        check_json(nested_json(MAX_DEPTH + 1))
    with pytest.raises(NestedTooDeep):
        check_json(b"[{}, " * 300)


def test_brackets_in_json_strings_are_text() -> None:
    check_json(json.dumps(["[" * 5000, '"[', '\\"' + "{" * 5000, "\\"]).encode())
    check_json(b'"' + b"[" * 5000)
    check_json(rb'"\"' + b"[" * 5000)
    check_json(b"[]" * 5000)
    with pytest.raises(NestedTooDeep):
        check_json(b'["]",' * 300)
    with pytest.raises(NestedTooDeep):
        check_json(rb'["\\",' * 300)
