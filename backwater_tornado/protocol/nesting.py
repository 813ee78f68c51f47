"""What shape a body has, told before anything is built from it: how deep it is nested, and what its maps have as keys.

Rule: nothing is decoded before its depth is known to be at most `MAX_DEPTH`. The decoders recurse on the C stack with
some 300 bytes a level; CPython 3.12 and 3.13 let them go thousands of levels deep, which kills a process whose thread
has a stack of 512 kB, and CPython 3.11 raises RecursionError at a depth that hangs on the caller's own.

And nothing is decoded that may have more than `MAX_ODD_KEYS` keys in a map that are lists or extensions. As tuples,
Decimals and the like they can all be made to have one hash, and a dict of n such keys takes time in the square of n.
We write no such map (it is an extension, and checked where that is read). Scalars are no danger of this kind: str and
bytes have hashes that nobody can foretell, and no more than some fifty numbers of 64 bits share one.

Cheap where it matters: a body cannot be nested deeper, nor have more such keys, than it has bytes that open a list, map
or extension, and those are counted at one nanosecond a byte. Only a body with more of them is looked into. This module
knows the outer shape of MessagePack and of JSON, and nothing of values.
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

#: Keys of one map that may be lists or extensions. Not less than `MAX_DEPTH`: both are told from one count of bytes.
MAX_ODD_KEYS = 255

#: Extension types whose payload is itself MessagePack: tuple, set, frozenset, map with any keys.
NESTING_CODES = frozenset({1, 2, 3, 4})

# Every byte that opens a fixmap, fixarray, array16/32, map16/32, ext8/16/32 or fixext.
_OPENERS = bytes([*range(0x80, 0xA0), 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9), *range(0xDC, 0xE0)])
# A body is taken apart level by level while no more than this is looked at, in bytes per byte of it (and a fixed part):
# every level costs a look at all that is in it. What remains is walked through item by item, once.
_WORK_FACTOR = 4
_WORK_FREE = 4 << 20
# A list whose items are shorter on average is walked through too: to hold each item takes more than it is worth.
_SHORT = 32
# Above this length the openers are not counted but the body is taken apart at once: it has more of them anyway.
_COUNTED = 40 * MAX_DEPTH
# A list of as many items is first tried as a list of plain scalars, which is five times as fast as looking at each.
_LONG = 256

# What a first byte announces, and how many bytes there are before what it holds (of a scalar: all of it).
_SCALAR, _TEXT, _CONTAINER, _EXTENSION = range(4)
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_LONG_MAPS = (0xDE, 0xDF)
_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_SPECIAL_HEADS = {
    **{kind: 1 + (kind & 0x1F) for kind in range(0xA0, 0xC0)},
    **{kind: 1 + width for kind, width in _WIDTHS.items()},
    **dict.fromkeys((0xCC, 0xD0), 2),
    **dict.fromkeys((0xCD, 0xD1, 0xDC, 0xDE), 3),
    **dict.fromkeys((0xCA, 0xCE, 0xD2, 0xDD, 0xDF), 5),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 9),
    **dict.fromkeys(_FIXED_EXTENSIONS, 2),
    0xC7: 3,
    0xC8: 4,
    0xC9: 6,
}
_HEADS = [_SPECIAL_HEADS.get(kind, 1) for kind in range(256)]
_SPECIAL_ROLES = {
    **dict.fromkeys(_OPENERS, _CONTAINER),
    **dict.fromkeys([0xC7, 0xC8, 0xC9, *_FIXED_EXTENSIONS], _EXTENSION),
    **dict.fromkeys(_WIDTHS, _TEXT),
}
_ROLES = bytes(_SPECIAL_ROLES.get(kind, _SCALAR) for kind in range(256))
_NESTING_BYTES = frozenset(bytes([code]) for code in NESTING_CODES)

_ITEMS = msgspec.msgpack.Decoder(list[msgspec.Raw])
_SCALARS = msgspec.msgpack.Decoder(list[int | float | str | bool | None])

# JSON: whole strings (one that does not end takes the rest), and all that is not a bracket.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def check_msgpack(data: bytes) -> None:
    """Raise NestedTooDeep unless `data` can be decoded without going deeper than `MAX_DEPTH`.

    Bytes that are not MessagePack pass where a decoder is sure to refuse them before it is deep in them.

    Raises:
        NestedTooDeep: it is deeper.
        BodyUndecodable: a map in it has more than `MAX_ODD_KEYS` lists or extensions as keys, or it is no MessagePack.
    """
    work = _WORK_FREE + _WORK_FACTOR * len(data)
    pending = [(data, MAX_DEPTH)]
    while pending:
        chunk, room = pending.pop()
        if _is_shallow(chunk, room) or (head := _read_head(chunk)) is None:
            continue
        if room == 0:
            raise _too_deep()
        count, items = head
        if count >= _LONG and _has_scalars_only(items):
            continue
        work -= len(chunk)
        if work < 0 or len(chunk) < _SHORT * count:
            pending += _walk(chunk, room)
        else:
            parts = _split(items)
            if count > 2 * MAX_ODD_KEYS and _is_map(chunk[0]):
                _check_keys(parts[::2])
            pending += ((bytes(item), room - 1) for item in parts if _may_be_deep(memoryview(item), room - 1))


def check_json(data: bytes) -> None:
    """As `check_msgpack`, for JSON."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise _too_deep()


def _is_shallow(chunk: bytes, room: int) -> bool:
    """Whether the chunk is cheaply seen to be nested at most `room` deep, with as few keys that are not scalars."""
    if len(chunk) <= room:
        return True
    return len(chunk) <= _COUNTED and len(chunk) - len(chunk.translate(None, _OPENERS)) <= room


def _may_be_deep(item: memoryview, room: int) -> bool:
    return len(item) > room and item[0] in _OPENERS


def _read_head(chunk: bytes) -> tuple[int, bytes] | None:
    """How many items a list, a map or a nesting extension holds, and they as a list; None of anything else."""
    kind = chunk[0]
    role, head = _ROLES[kind], _HEADS[kind]
    if role == _EXTENSION:
        return (1, b"\x91" + chunk[head:]) if chunk[head - 1 : head] in _NESTING_BYTES else (0, b"\x90")
    if role != _CONTAINER:
        return None
    count = _count(chunk[:head])
    if _is_map(kind):  # as a list; more than a list can say is more than there can be
        chunk = b"\xdd" + min(count, 0xFFFF_FFFF).to_bytes(4, "big") + chunk[head:]
    return count, chunk


def _has_scalars_only(items: bytes) -> bool:
    try:
        _SCALARS.decode(items)
    except (msgspec.DecodeError, ValueError):
        return False
    return True


def _split(items: bytes) -> list[Any]:
    """The items of a list, each as its bytes."""
    try:
        return _ITEMS.decode(items)
    except RecursionError as exc:
        raise _too_deep() from exc
    except msgspec.DecodeError as exc:
        raise BodyUndecodable(f"the body is not MessagePack: {exc}") from exc


def _walk(chunk: bytes, room: int) -> list[tuple[bytes, int]]:  # noqa: C901 - one loop, as calls cost half its time
    """Go over every item, however nested; gives the payloads of nesting extensions, and the room that each has."""
    payloads: list[tuple[bytes, int]] = []
    around: list[int] = []  # items still to come in each of the containers that are open but the innermost
    odd_keys: dict[int, int] = {}  # of each long map that is open, by how many containers are around its keys
    left, place = 1, 0
    try:
        while left or around:
            if not left:
                left = around.pop()
                continue
            left -= 1
            kind = chunk[place]
            place += _HEADS[kind]
            role = _ROLES[kind]
            if role == _SCALAR:
                continue
            if role == _TEXT:
                place += int.from_bytes(chunk[place - _WIDTHS[kind] : place], "big")
                continue
            if len(around) >= room:
                raise _too_deep()
            if odd_keys and left & 1 and len(around) in odd_keys:
                odd_keys[len(around)] += 1
                if odd_keys[len(around)] > MAX_ODD_KEYS:
                    raise _too_many_odd_keys()
            if role == _EXTENSION:
                size = _FIXED_EXTENSIONS.get(kind) or int.from_bytes(chunk[place - _HEADS[kind] + 1 : place - 1], "big")
                inside = room - len(around) - 1
                if size > inside and chunk[place - 1 : place] in _NESTING_BYTES:
                    payloads.append((chunk[place : place + size], inside))
                place += size
                continue
            if kind != 0x90 and kind != 0x80:  # noqa: PLR1714 - a set here takes a tenth longer
                around.append(left)
                left = kind & 0x0F if 0x90 <= kind <= 0x9F else _count(chunk[place - _HEADS[kind] : place])
                if kind in _LONG_MAPS:
                    odd_keys[len(around)] = 0
                elif odd_keys:
                    odd_keys.pop(len(around), None)  # the map that was there has ended
    except IndexError:
        place = -1
    if place != len(chunk):
        raise BodyUndecodable("the body is not MessagePack: its lengths do not fit")
    return payloads


def _count(head: bytes) -> int:
    """How many items, or keys and values, the head of a list or map announces."""
    kind = head[0]
    count = int.from_bytes(head[1:], "big") if len(head) > 1 else kind & 0x0F
    return 2 * count if _is_map(kind) else count


def _is_map(kind: int) -> bool:
    """Whether the first byte of a list or map is that of a map."""
    return kind <= 0x8F or kind in _LONG_MAPS


def _check_keys(keys: list[Any]) -> None:
    if sum(memoryview(key)[0] in _OPENERS for key in keys) > MAX_ODD_KEYS:
        raise _too_many_odd_keys()


def _too_many_odd_keys() -> BodyUndecodable:
    return BodyUndecodable(f"a map has more than {MAX_ODD_KEYS} lists or extensions as keys")


def _too_deep() -> NestedTooDeep:
    return NestedTooDeep(f"the body is nested deeper than {MAX_DEPTH} levels")
