"""Bodies made to kill: each is tried in a process of its own, with little stack and its memory measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Many seconds: once, on the source tree.
pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]

PRELUDE = """
import resource, sys, threading
from backwater_tornado.errors import BodyTooLarge, BodyUndecodable, NestedTooDeep, Unserializable
from backwater_tornado.protocol.codec import JSON, MAX_DEPTH, MSGPACK
from backwater_tornado.protocol.compression import compress, decompress

def ext(data, code=1):
    return b"\\xc9" + len(data).to_bytes(4, "big") + bytes([code]) + data

def outcome(action, *args):
    try:
        action(*args)
    except (BodyTooLarge, BodyUndecodable, NestedTooDeep, Unserializable) as exc:
        return type(exc).__name__
    return "fine"

def grown(action, *args):
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = peak()
    result = outcome(action, *args)
    return result, peak() - before
"""

STACK = """
def nest(levels, shapes, innermost=b"\\x01"):
    data = innermost
    for level in range(levels):
        data = shapes[level % len(shapes)](data)
    return data

LIST, MAP_VALUE, MAP_KEY = lambda d: b"\\x91" + d, lambda d: b"\\x81\\x01" + d, lambda d: b"\\x81" + d + b"\\x01"
LAST, FIRST = lambda d: b"\\x92\\x01" + d, lambda d: b"\\x92" + d + b"\\x01"
TUPLE, SET, FROZEN = [lambda d, c=c: ext(b"\\x91" + d, c) for c in (1, 2, 3)]
MAP = lambda d: ext(b"\\x92\\x01" + d, 4)
BARE, UNKNOWN = lambda d: ext(d), lambda d: ext(d, 99)
LIE = lambda d: b"\\xdd\\xff\\xff\\xff\\xff" + d
PLENTY = b"\\xdc\\x10\\x00" + b"\\x91\\x01" * 4095
mixtures = [
    [LIST], [MAP_VALUE], [MAP_KEY], [LAST], [FIRST], [TUPLE], [SET], [FROZEN], [MAP], [BARE], [UNKNOWN], [LIE],
    [LIST, TUPLE], [LIST] * 3 + [MAP], [LIST, MAP_VALUE, TUPLE], [MAP_KEY, FROZEN], [MAP_KEY, TUPLE],
    [LIST] * 30 + [TUPLE],
    [LIST] * 126 + [TUPLE], [LIST, TUPLE, SET, MAP, MAP_VALUE], [LIE, TUPLE], [LAST, FIRST, TUPLE, MAP]]

class Thing:
    pass

def hold(levels, *wraps):
    value = 1
    for level in range(levels):
        value = wraps[level % len(wraps)](value)
    return value

a_list, a_tuple, a_dict, numbered = (lambda v: [v]), (lambda v: (v,)), (lambda v: {"k": v}), (lambda v: {1: v})
circle = []; circle.append(({"k": circle},))
values = [hold(n, *w) for n in (60, 127, 200, 255, 256, 1000, 20_000) for w in (
    [a_list], [a_tuple], [a_dict], [numbered], [a_list, a_tuple], [a_list] * 40 + [a_tuple], [a_list] * 250 + [a_tuple],
    [a_dict, a_tuple, numbered])]

def attack():
    seen = set()
    for shapes in mixtures:
        for levels in (60, 63, 64, 65, 120, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 600, 2000, 20_000):
            if levels == 20_000 and any(shape in (TUPLE, SET, FROZEN, MAP, BARE, UNKNOWN) for shape in shapes):
                continue  # it takes long to build, and would be just as refused
            data = nest(levels, shapes)
            for body in (data, b"\\x92" + PLENTY + data, b"\\x92" + data + PLENTY, data + PLENTY, data[:-1]):
                seen.add(outcome(MSGPACK.decode, body))
    for head in (b"[", b'{"a":', b'[1,{"a":', b'["]",'):
        for levels in (100, MAX_DEPTH, MAX_DEPTH + 1, 100_000):
            seen.add(outcome(JSON.decode, head * levels))
            seen.add(outcome(JSON.decode, b"[" * levels + b"1" + b"]" * levels))
    for value in [circle, *values]:
        for codec in (MSGPACK, JSON):
            seen.add(outcome(codec.encode, value))
    print(sorted(seen))

threading.stack_size(512 * 1024)
thread = threading.Thread(target=attack)
thread.start()
thread.join()
"""


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_no_nesting_overflows_a_stack_of_512_kb() -> None:
    expected = ["BodyUndecodable", "NestedTooDeep", "Unserializable", "fine"]
    assert run(STACK).strip() == str(expected)


LIES = {
    "a list of 2^32 - 1 items": 'b"\\xdd\\xff\\xff\\xff\\xff\\x01"',
    "a map of 2^32 - 1 items": 'b"\\xdf\\xff\\xff\\xff\\xff\\x01\\x01"',
    "a str of 4 GiB": 'b"\\xdb\\xff\\xff\\xff\\xffa"',
    "bytes of 4 GiB": 'b"\\xc6\\xff\\xff\\xff\\xffa"',
    "an extension of 4 GiB": 'b"\\xc9\\xff\\xff\\xff\\xff\\x01a"',
    "such lists within one another": 'b"\\xdd\\xff\\xff\\xff\\xff" * 250 + b"\\x01"',
    "such lists in a long body": 'b"\\xdd\\xff\\xff\\xff\\xff" * 250 + b"\\x01" * 100_000',
    "such maps as values": 'b"\\xdf\\xff\\xff\\xff\\xff\\x01" * 250 + b"\\x01" * 100_000',
    "such a list in a tuple": 'ext(b"\\xdd\\xff\\xff\\xff\\xff\\x01")',
}


def test_a_length_that_lies_costs_no_memory() -> None:
    tried = "".join(f"print(*grown(MSGPACK.decode, {body}))\n" for body in LIES.values())
    for name, line in zip(LIES, run(tried).splitlines(), strict=True):
        result, megabytes = line.split()
        assert (name, result) == (name, "BodyUndecodable")
        assert (name, float(megabytes) < 12) == (name, True)


DENSE = {
    "empty lists": 'b"\\xdd\\x00\\x20\\x00\\x00" + b"\\x90" * (1 << 21)',
    "empty maps": 'b"\\xdd\\x00\\x20\\x00\\x00" + b"\\x80" * (1 << 21)',
    "lists of one": 'b"\\xdd\\x00\\x10\\x00\\x00" + b"\\x91\\x01" * (1 << 20)',
    "empty sets": 'b"\\xdd\\x00\\x08\\x00\\x00" + b"\\xc7\\x01\\x02\\x90" * (1 << 19)',
    "numbers": 'b"\\xdd\\x00\\x20\\x00\\x00" + b"\\x07" * (1 << 21)',
}


@pytest.mark.parametrize("body", DENSE.values(), ids=DENSE.keys())
def test_a_decoded_body_takes_at_most_a_hundred_times_its_bytes(body: str) -> None:
    result, megabytes = run(f"print(*grown(MSGPACK.decode, {body}))").split()
    assert result == "fine"
    assert float(megabytes) < 200


def test_a_tuple_within_a_tuple_around_much_data_copies_nothing() -> None:
    script = """
data = b"\\xc6" + (4 << 20).to_bytes(4, "big") + bytes(4 << 20)
for _ in range(15):
    data = ext(b"\\x91" + data)
print(*grown(MSGPACK.decode, data))
"""
    result, megabytes = run(script).split()
    assert result == "fine"
    assert float(megabytes) < 40


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("limit", [100_000, 8 << 20])
def test_a_compression_bomb_stops_at_the_limit(sized: bool, limit: int) -> None:
    script = f"""
import zstandard
maker = zstandard.ZstdCompressor(write_content_size={sized}).compressobj(*({[1 << 30] if sized else []}))
bomb = b"".join(maker.compress(bytes(1 << 20)) for _ in range(1024)) + maker.flush()
print(len(bomb), *grown(decompress, bomb, {limit}))
"""
    length, result, megabytes = run(script).split()
    assert int(length) < 200_000
    assert result == "BodyTooLarge"
    assert float(megabytes) < limit / 1e6 + 8


def test_a_frame_of_13_bytes_that_asks_for_terabytes_is_refused() -> None:
    script = """
frame = bytes.fromhex("28b52ffd") + b"\\xe0" + (1 << 42).to_bytes(8, "little")
print(len(frame), *grown(decompress, frame, 8 << 20))
"""
    length, result, megabytes = run(script).split()
    assert (length, result) == ("13", "BodyTooLarge")
    assert float(megabytes) < 2


def test_a_frame_that_asks_for_a_wide_window_is_refused() -> None:
    script = """
import zstandard
maker = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compressobj()
frame = maker.compress(b"a" * 100) + maker.flush()
print(*grown(decompress, frame, 8 << 20))
"""
    result, megabytes = run(script).split()
    assert result == "BodyUndecodable"
    assert float(megabytes) < 8


@pytest.mark.parametrize("body", DENSE.values(), ids=DENSE.keys())
def test_to_tell_how_deep_a_dense_body_is_takes_little_memory(body: str) -> None:
    script = f"from backwater_tornado.protocol.nesting import check_msgpack\nprint(*grown(check_msgpack, {body}))"
    result, megabytes = run(script).split()
    assert result == "fine"
    assert float(megabytes) < 24


def test_to_tell_how_deep_a_body_is_takes_no_longer_for_each_level() -> None:
    script = """
import time
from backwater_tornado.protocol.nesting import check_msgpack
def seconds(levels):
    body = b"\\x92\\x01" * levels + b"\\xdd\\x00\\x20\\x00\\x00" + b"\\x90" * 0x200000
    start = time.process_time()
    assert outcome(check_msgpack, body) == "fine"
    return time.process_time() - start
flat = min(seconds(1) for _ in range(3))
print(seconds(252) / flat)
"""
    assert float(run(script)) < 3


COLLISIONS = """
import sys, time
modulus = sys.hash_info.modulus

def items(parts, code=0):
    return ext(b"\\xdd" + len(parts).to_bytes(4, "big") + b"".join(parts), code)

def a_list(n):  # -1 and -2 have the same hash
    return b"\\xdc\\x00\\x14" + bytes(0xff - (n >> bit & 1) for bit in range(20))

def an_int(n):
    return b"\\xc7\\x0c\\x05" + ((n + 9) * modulus).to_bytes(12, "big")

def a_decimal(n):
    text = str((n + 9) * modulus).encode()
    return b"\\xc7" + bytes([len(text)]) + b"\\x06" + text

def a_uuid(n):
    return b"\\xd8\\x07" + ((n + 9) * modulus).to_bytes(16, "big")

def a_frozenset(n):
    return ext(b"\\x91" + an_int(n), 3)

def plain_map(keys):
    return b"\\xdf" + len(keys).to_bytes(4, "big") + b"".join(key + b"\\x01" for key in keys)

def lying_map(keys):
    return b"\\xdf\\xff\\xff\\xff\\xff" + b"".join(key + b"\\x01" for key in keys)

def seconds(make, container, n):
    body = container([make(number) for number in range(n)])
    best = 99.0
    for _ in range(3):
        start = time.process_time()
        outcome(MSGPACK.decode, body)
        best = min(best, time.process_time() - start)
    return best
"""
COLLIDING = [
    ("a_list", "plain_map"),
    ("a_list", "lying_map"),
    ("an_int", "plain_map"),
    ("a_frozenset", "plain_map"),
    ("lambda n: ext(a_list(n))", "plain_map"),
    ("an_int", "lambda parts: items(parts, 2)"),
    ("an_int", "lambda parts: items(parts + [bytes([0xce]) + n.to_bytes(4) for n in range(len(parts) + 99)], 2)"),
    ("a_decimal", "lambda parts: items(parts, 3)"),
    ("a_uuid", "lambda parts: items(parts, 2)"),
    ("a_frozenset", "lambda parts: items(parts, 2)"),
    ("lambda n: ext(a_list(n))", "lambda parts: items(parts, 2)"),
    ("an_int", "lambda parts: items([x for part in parts for x in (part, part)], 4)"),
    ("lambda n: ext(a_list(n))", "lambda parts: items([x for part in parts for x in (part, part)], 4)"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "container"), COLLIDING)
def test_keys_and_items_of_one_hash_take_no_time_by_the_square(make: str, container: str) -> None:
    once, fourfold = run(f"{COLLISIONS}\nprint(*(seconds({make}, {container}, n) for n in (4000, 16000)))").split()
    assert float(fourfold) < 9 * float(once) + 0.02  # by the square it would be 16 times as long


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        'b"\\x92\\x91\\x01" * 2_000_000',
        'b"\\xde\\xff\\xff" * 2_000_000',
        'b"\\xdd\\x00\\x60\\x00\\x00" + b"\\x90" * 0x600000',
    ],
)
def test_no_body_of_6_mib_takes_more_than_a_few_seconds(body: str) -> None:
    script = f"""
import time
body = {body}
start = time.process_time()
outcome(MSGPACK.decode, body)
print(time.process_time() - start)
"""
    assert float(run(script)) < 12
