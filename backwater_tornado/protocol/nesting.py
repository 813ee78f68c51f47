"""How deep a body is nested, told before anything is built from it.

Rule: nothing is decoded before its depth is known to be at most `MAX_DEPTH`. The decoders recurse on the C stack with
some 300 bytes a level; CPython 3.12 and 3.13 let them go thousands of levels deep, which kills a process whose thread
has a stack of 512 kB, and CPython 3.11 raises RecursionError at a depth that hangs on the caller's own.

Cheap where it matters: a body cannot be nested deeper than it has bytes that open a list, map or extension, and those
are counted at one nanosecond a byte. Only a body with more of them is looked into. This module knows the outer shape
of MessagePack and of JSON, and nothing of values.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

import msgspec

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep

#: Lists, maps and extensions within one another that a body may have (a tuple is two: the extension, and the list in
#: it). It is what ormsgpack writes at most.
MAX_DEPTH = 255

#: Extension types whose payload is itself MessagePack: tuple, set, frozenset, map with any keys.
NESTING_CODES = frozenset({1, 2, 3, 4})

# Every byte that opens a fixmap, fixarray, array16/32, map16/32, ext8/16/32 or fixext.
_OPENERS = bytes([*range(0x80, 0xA0), 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9), *range(0xDC, 0xE0)])
# Work allowed on one body, in bytes looked at per byte of it (and a fixed part, so that a body of up to 64 kB may be as deep as it likes):
# honest data is not nested 32 deep around most of its own bulk, and without a bound 8 MiB could cost ten seconds.
_WORK_FACTOR = 32
_WORK_FREE = 16 << 20
# Above this length the openers are not counted but the body is taken apart at once: it has more of them anyway.
_COUNTED = 40 * MAX_DEPTH
# A list of as many items is first tried as a list of plain scalars, which is five times as fast as looking at each.
_LONG = 256

# First byte -> length of the head, up to where the items (of an extension: the payload) begin.
_LIST_HEADS = {0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}
_MAP16_AND_32 = (0xDE, 0xDF)
_EXTENSION_HEADS = {0xC7: 3, 0xC8: 4, 0xC9: 6, **dict.fromkeys(range(0xD4, 0xD9), 2)}
_NESTING_BYTES = frozenset(bytes([code]) for code in NESTING_CODES)
_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])
_SCALARS = msgspec.msgpack.Decoder(list[int | float | str | bool | None])

# JSON: whole strings (one that does not end takes the rest), and all that is not a bracket.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def check_msgpack(data: bytes) -> None:
    """Raise NestedTooDeep unless `data` can be decoded without going deeper than `MAX_DEPTH`.

    Bytes that are not MessagePack pass where a decoder is sure to refuse them before it is deep in them.
    """
    work = _WORK_FREE + _WORK_FACTOR * len(data)
    pending = [(data, MAX_DEPTH)]
    while pending:
        chunk, room = pending.pop()
        if _is_shallow(chunk, room):
            continue
        work -= len(chunk)
        if work < 0:
            raise NestedTooDeep(f"the body is nested too deep for its size of {len(data)} bytes")
        if (children := _children(chunk)) is None:
            continue
        if room == 0:
            raise NestedTooDeep(f"the body is nested deeper than {MAX_DEPTH} levels")
        if max(map(len, children), default=0) >= room:
            pending += [(bytes(child), room - 1) for child in children if len(child) >= room and child[0] in _OPENERS]


def check_json(data: bytes) -> None:
    """As `check_msgpack`, for JSON."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise NestedTooDeep(f"the body is nested deeper than {MAX_DEPTH} levels")


def _is_shallow(chunk: bytes, room: int) -> bool:
    """Whether the chunk is cheaply seen to be nested at most `room` deep."""
    if len(chunk) <= room:
        return True
    return len(chunk) <= _COUNTED and len(chunk) - len(chunk.translate(None, _OPENERS)) <= room


def _children(chunk: bytes) -> list[memoryview] | None:
    """What a list, a map or a nesting extension holds, as far as it can be nested; None of anything else."""
    kind = chunk[0]
    if kind in _EXTENSION_HEADS:
        head = _EXTENSION_HEADS[kind]
        return [memoryview(chunk)[head:]] if chunk[head - 1 : head] in _NESTING_BYTES else []
    if 0x80 <= kind <= 0x9F:
        head, count = 1, kind & 0x0F
    elif kind in _LIST_HEADS:
        head = _LIST_HEADS[kind]
        count = int.from_bytes(chunk[1:head], "big")
    else:
        return None
    if kind <= 0x8F or kind in _MAP16_AND_32:
        count *= 2
        if count > len(chunk):  # or the number of keys and values might not fit into the head of a list
            raise BodyUndecodable("the body is not MessagePack: it ends inside a map")
        chunk = b"\xdd" + count.to_bytes(4, "big") + chunk[head:]
    return [] if count >= _LONG and _has_scalars_only(chunk) else _items(chunk)


def _has_scalars_only(chunk: bytes) -> bool:
    try:
        _SCALARS.decode(chunk)
    except (msgspec.DecodeError, ValueError):
        return False
    return True


def _items(chunk: bytes) -> list[memoryview]:
    """The items of a list, each as its bytes."""
    try:
        items: list[Any] = _LIST.decode(chunk)
        return [memoryview(item) for item in items]
    except RecursionError as exc:
        raise NestedTooDeep(f"the body is nested deeper than {MAX_DEPTH} levels") from exc
    except msgspec.DecodeError as exc:
        raise BodyUndecodable(f"the body is not MessagePack: {exc}") from exc
