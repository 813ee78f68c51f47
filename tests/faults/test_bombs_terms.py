"""Erlang terms made to kill: each is tried in a process of its own, with little stack and its memory measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Many seconds: once, on the source tree.
pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]

PRELUDE = """
import resource, sys, threading, time
from backwater_tornado.errors import BodyUndecodable, NestedTooDeep, Unserializable
from backwater_tornado.protocol.erlang.decoding import MAX_PARTS, decode_term
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.maps import ErlangMap
from backwater_tornado.protocol.erlang.notation import format_term, parse_term
from backwater_tornado.protocol.erlang.terms import ImproperList, text_of

SIZE = 8 << 20
PID = b"Xw\\1a" + bytes(12)

def u32(number):
    return number.to_bytes(4, "big")

def listed(item, count=None):
    count = count or SIZE // len(item)
    return b"\\x83l" + u32(count) + item * count + b"j"

def mapped(pairs):
    return b"\\x83t" + u32(len(pairs)) + b"".join(pairs)

def outcome(action, *args):
    try:
        action(*args)
    except (BodyUndecodable, NestedTooDeep, Unserializable) as exc:
        return type(exc).__name__
    return "fine"

def grown(action, *args):
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before, start = peak(), time.process_time()
    result = outcome(action, *args)
    return result, peak() - before, time.process_time() - start

def seconds(action, *args):
    start = time.process_time()
    outcome(action, *args)
    return time.process_time() - start
"""

STACK = """
def closure(inner):
    rest = bytes(21) + u32(1) + b"w\\1ma\\1a\\1" + PID + inner
    return b"p" + u32(4 + len(rest)) + rest

wraps = {
    "list": lambda d: b"l" + u32(1) + d + b"j",
    "last": lambda d: b"l" + u32(2) + b"a\\1" + d + b"j",
    "tail": lambda d: b"l" + u32(1) + b"a\\1" + d,
    "tuple": lambda d: b"h\\1" + d,
    "long tuple": lambda d: b"i" + u32(1) + d,
    "value": lambda d: b"t" + u32(1) + b"a\\1" + d,
    "key": lambda d: b"t" + u32(1) + d + b"a\\1",
    "key beside a list": lambda d: b"t" + u32(2) + d + b"a\\1ja\\1",
    "closure": closure,
    "old fun": lambda d: b"u" + u32(1) + PID + b"w\\1ma\\1a\\1" + d,
}
mixtures = [[name] for name in wraps] + [
    ["tuple", "key"], ["tail", "tuple"], ["key", "list"], ["closure", "key"], ["tail", "tuple", "key"],
    ["key", "tail", "tuple"], ["tuple"] * 200 + ["key"], ["key"] * 100 + ["tail", "tuple"], list(wraps)]

def nest(levels, names, innermost=b"a\\1"):
    data = innermost
    for level in range(levels):
        data = wraps[names[level % len(names)]](data)
    return b"\\x83" + data

def hold(levels, *holders):
    value = 1
    for level in range(levels):
        value = holders[level % len(holders)](value)
    return value

a_list, a_tuple, a_dict = (lambda v: [v]), (lambda v: (v,)), (lambda v: {"k": v})
tailed, a_map = (lambda v: ImproperList((1,), (v,))), (lambda v: ErlangMap([([1], v)]))
circle = []
circle.append(({"k": circle},))

# made and freed by the main thread, which has stack enough for CPython 3.13 to free them
values = [
    hold(levels, *holders)
    for holders in ([a_list], [a_tuple], [a_dict], [tailed], [a_map], [a_list, a_map, tailed, a_dict])
    for levels in (60, 127, 200, 255, 256, 2000, 20_000)]

def attack():
    seen = set()
    for names in mixtures:
        for levels in (60, 127, 200, 254, 255, 256, 600, 2000, 20_000):
            if levels == 20_000 and "closure" in names:
                continue  # it takes long to build, and would be just as refused
            data = nest(levels, names)
            for body in (data, data[:-1], data + data):
                seen.add(outcome(decode_term, body))
            try:
                value = decode_term(data)
            except (BodyUndecodable, NestedTooDeep):
                continue
            assert outcome(encode_term, value) == "fine" and outcome(format_term, value) == "fine"
            hash(ErlangMap([(value, 1)])) if levels < 255 else None
    for value in values:
        seen.add(outcome(encode_term, value))
        seen.add(outcome(format_term, value))
    assert outcome(encode_term, circle) == outcome(format_term, circle) == "Unserializable"
    for head in ("[", "{", "#{1=>", "#{", "[1|{"):
        for text in (head * 100_000, head * 255, head * 200 + "1"):
            try:
                parse_term(text)
            except ValueError:
                seen.add("ValueError")
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


def test_no_nesting_overflows_a_stack_of_512_kb() -> None:
    expected = ["BodyUndecodable", "NestedTooDeep", "Unserializable", "ValueError", "fine"]
    assert run(STACK).strip() == str(expected)


def test_a_length_that_lies_costs_no_memory() -> None:
    script = """
for head in (b"l", b"i", b"t", b"m", b"o", b"k\\xff\\xff", b"M", b"p", b"d\\xff\\xff", b"v\\xff\\xff"):
    for behind in (b"a\\1", b"j" * 1000):
        print(head, *grown(decode_term, b"\\x83" + head + b"\\xff\\xff\\xff\\xff" + behind))
"""
    for line in run(script).splitlines():
        head, result, megabytes, _ = line.split()
        assert (head, result) == (head, "BodyUndecodable")
        assert (head, float(megabytes) < 8) == (head, True)


def test_lengths_that_lie_within_one_another_cost_no_memory() -> None:
    result, megabytes, _ = run(
        'print(*grown(decode_term, b"\\x83" + b"".join(b"l" + u32(8_000_000 - 5 * n) for n in range(250))'
        ' + b"a\\1" * 4_000_000))'
    ).split()
    assert result == "BodyUndecodable"
    assert float(megabytes) < 160


#: 8 MiB of each, and what becomes of it.
DENSE = {
    "empty lists": ('listed(b"j")', "BodyUndecodable"),
    "a million empty lists": ('listed(b"j", MAX_PARTS - 1)', "fine"),
    "empty maps": ('listed(b"t\\0\\0\\0\\0")', "BodyUndecodable"),
    "maps of one": ('listed(b"t\\0\\0\\0\\1a\\1a\\1")', "fine"),
    "maps of lists": ('listed(b"t\\0\\0\\0\\1jj", 333_000)', "fine"),
    "improper lists": ('listed(b"l\\0\\0\\0\\1a\\1a\\1")', "fine"),
    "bytes": ('listed(b"a\\1")', "fine"),
    "strings": ('listed(b"k\\xff\\xff" + bytes(65535))', "fine"),
    "floats": ('listed(b"F?abcdefg")', "fine"),
    "bits": ('listed(b"M\\0\\0\\0\\1\\1a")', "fine"),
    "pids": ('listed(b"Xw\\0" + bytes(12))', "fine"),
    "funs": ('listed(b"qw\\0w\\0a\\0")', "fine"),
    "atoms": ('listed(b"w\\1a")', "fine"),
    "different atoms": (
        'b"\\x83l" + u32(999_000) + b"".join(b"w\\5%05x" % n for n in range(999_000)) + b"j"',
        "fine",
    ),
}


@pytest.mark.parametrize(("body", "expected"), DENSE.values(), ids=DENSE.keys())
def test_8_mib_never_become_600(body: str, expected: str) -> None:
    script = f"""
resource.setrlimit(resource.RLIMIT_AS, (1500 << 20,) * 2)
data = {body}
print(*grown(decode_term, data))
"""
    result, megabytes, seconds = run(script).split()
    assert result == expected
    assert float(megabytes) < 400
    assert float(seconds) < 12


COLLIDING = {
    "big numbers": 'b"n\\x0c\\0" + ((n + 9) * modulus).to_bytes(12, "little")',
    "tuples": 'b"h\\x14" + b"".join(b"b" + u32((1 << 32) - 1 - (n >> bit & 1)) for bit in range(20))',
    "improper lists": 'b"l" + u32(1) + b"n\\x0c\\0" + ((n + 9) * modulus).to_bytes(12, "little") + b"a\\1"',
    "lists": 'b"l" + u32(20) + b"".join(b"b" + u32((1 << 32) - 1 - (n >> bit & 1)) for bit in range(20)) + b"j"',
    "maps": 'b"t" + u32(1) + b"n\\x0c\\0" + ((n + 9) * modulus).to_bytes(12, "little") + b"a\\1"',
}


@pytest.mark.parametrize("end", ["", "ja\\1"], ids=["alone", "with a list at the end"])
@pytest.mark.parametrize("key", COLLIDING.values(), ids=COLLIDING.keys())
def test_keys_of_one_hash_take_no_time_by_the_square(key: str, end: str) -> None:
    script = f"""
modulus = sys.hash_info.modulus

def least(count):
    pairs = [{key} + b"a\\1" for n in range(count)]
    data = b"\\x83t" + u32(count + {int(bool(end))}) + b"".join(pairs) + b"{end}"
    return min(seconds(decode_term, data) for _ in range(2))

print(least(4000), least(16_000))
"""
    once, fourfold = run(script).split()
    assert float(fourfold) < 9 * float(once) + 0.02  # by the square it would be 16 times as long


SLOW = {
    "maps as keys in maps": """
data = b"a\\1"
for _ in range(250):
    data = b"t" + u32(2) + b"k\\x80\\0" + bytes(0x8000) + b"a\\1" + data + b"a\\1"
""",
    "a long key below many": """
data = b"l" + u32(1_600_000) + b"b\\0\\0\\1\\0" * 1_600_000 + b"j"
data = (b"t" + u32(1)) * 250 + data + b"a\\1" * 250
""",
    "a long list as the last of many tails": """
data = b"l\\0\\0\\0\\1a\\1" * 1_000_000 + b"j"
""",
    "keys that hold much": """
data = b"t" + u32(190) + b"".join(b"h\\2i" + u32(9000) + b"a\\1" * 9000 + b"a" + bytes([n, 97, 1]) for n in range(190))
""",
    "a number of 8 MiB": """
data = b"o" + u32(SIZE) + b"\\0" + b"a" * SIZE
""",
    "a key of 8 MiB": """
data = b"t" + u32(2) + b"o" + u32(SIZE // 2) + b"\\0" + b"a" * (SIZE // 2) + b"a\\1ja\\1"
""",
}


@pytest.mark.parametrize("made", SLOW.values(), ids=SLOW.keys())
def test_no_body_of_8_mib_takes_more_than_a_few_seconds(made: str) -> None:
    result, megabytes, seconds = run(f"{made}\ndata = b'\\x83' + data\nprint(*grown(decode_term, data))").split()
    assert result == "fine"
    assert float(megabytes) < 400
    assert float(seconds) < 12


def test_a_text_that_asks_for_much_memory_is_refused() -> None:
    script = """
def parsed(text):
    try:
        parse_term(text)
    except ValueError:
        raise BodyUndecodable from None

print(*grown(parsed, "<<0:999999999>>"))
"""
    result, megabytes, _ = run(script).split()
    assert result == "BodyUndecodable"
    assert float(megabytes) < 4
