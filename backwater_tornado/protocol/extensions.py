"""What MessagePack has no type for: how it is written, and how it is read back.

Rule: a value comes back equal and of the same type, with no annotation to help it: tuple, set, frozenset, dict with any
keys, complex, int beyond 64 bits, Decimal, UUID, datetime, date, time, timedelta. What has a class of its own gives its
plain form, and the annotation on the other side rebuilds it: a dataclass or Struct is a dict, an Enum its value, a
named tuple a tuple, a subclass of str, int, float, bytes, list or dict that type itself.

The extension types, for implementations in other languages:

====  ==========  =====================================================================================
code  type        payload
====  ==========  =====================================================================================
1     tuple       the items as one MessagePack list
2     set         the items as one MessagePack list
3     frozenset   the items as one MessagePack list
4     map         keys and values in turn as one MessagePack list; for keys that are not str, int, float,
                  bytes, bool or None
5     int         two's complement, big endian; at most `MAX_INT_BITS` bits
6     decimal     ASCII, as `1.50`, `1E+3`, `NaN`, `-Infinity`
7     UUID        its 16 bytes
8     datetime    ASCII, ISO 8601 with up to six decimals, with the offset from UTC unless it is naive
9     date        ASCII, ISO 8601
10    time        as datetime
11    timedelta   days, seconds, microseconds: three signed 32-bit numbers, big endian
12    complex     real and imaginary part: two doubles, big endian
-1    timestamp   MessagePack's own; read as an aware datetime in UTC, never written
====  ==========  =====================================================================================

Kept of a time zone is the offset, not the name. This module does not know what a message is.
"""

from __future__ import annotations

import dataclasses
import reprlib
import struct
from collections import Counter
from collections.abc import Callable, Collection
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from operator import mul
from typing import Any, TypeAlias
from uuid import UUID

import msgspec
import ormsgpack

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep, Unserializable

from .nesting import MAX_DEPTH

#: 4 300 decimal digits, as many as CPython's str() and int() convert (`sys.set_int_max_str_digits`).
MAX_INT_BITS = 14_280
#: Characters of a Decimal: the same bound on digits, and room for an exponent.
MAX_DECIMAL_CHARACTERS = 4_350
#: How often, on average, an item of a set or a key of a map may meet another of the same hash. Such are compared one by
#: one: peers can make any number of tuples, numbers or frozensets of one hash, and as many as that would take hours.
MAX_COMPARISONS = 100
#: Extensions within one another; each costs the reader some 2 kB of its C stack.
MAX_EXTENSIONS = 64

TUPLE, SET, FROZENSET, MAP = 1, 2, 3, 4
CONTAINERS: dict[type, int] = {tuple: TUPLE, set: SET, frozenset: FROZENSET}

_DELTA = struct.Struct(">iii")
_COMPLEX = struct.Struct(">dd")


# Writing -------------------------------------------------------------------------------------------------------------


def _write_int(value: int) -> ormsgpack.Ext:
    bits = value.bit_length()
    if bits > MAX_INT_BITS:
        raise Unserializable(f"an int of {bits} bits has no form on the wire, the limit is {MAX_INT_BITS}")
    return ormsgpack.Ext(5, value.to_bytes(bits // 8 + 1, "big", signed=True))


def _write_decimal(value: Decimal) -> ormsgpack.Ext:
    text = Decimal.__str__(value)
    if len(text) > MAX_DECIMAL_CHARACTERS:
        raise Unserializable(f"a Decimal of {len(text)} characters has no form on the wire")
    return ormsgpack.Ext(6, text.encode("ascii"))


LEAVES: dict[type, Callable[[Any], ormsgpack.Ext]] = {
    int: _write_int,
    Decimal: _write_decimal,
    UUID: lambda value: ormsgpack.Ext(7, value.bytes),
    datetime: lambda value: ormsgpack.Ext(8, datetime.isoformat(value).encode("ascii")),
    date: lambda value: ormsgpack.Ext(9, date.isoformat(value).encode("ascii")),
    time: lambda value: ormsgpack.Ext(10, time.isoformat(value).encode("ascii")),
    timedelta: lambda value: ormsgpack.Ext(11, _DELTA.pack(value.days, value.seconds, value.microseconds)),
    complex: lambda value: ormsgpack.Ext(12, _COMPLEX.pack(value.real, value.imag)),
}

#: Types that can be a dict's key or a set's item, and still can after the trip.
HASHABLE = frozenset({str, float, bytes, bool, type(None), tuple, frozenset, *LEAVES})

# Subclasses give what their base holds, by the base's own methods: an overridden __iter__ or __str__ has no say.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (list, list.copy),
    (dict, dict.copy),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (bytearray, bytes),
    (memoryview, memoryview.tobytes),
    (UUID, lambda value: UUID(int=value.int)),
    (Decimal, Decimal),
    (datetime, lambda value: datetime.combine(datetime.date(value), datetime.timetz(value))),
    (date, lambda value: date.fromordinal(date.toordinal(value))),
    (time, lambda value: time.fromisoformat(time.isoformat(value))),
    (timedelta, lambda value: timedelta(value.days, value.seconds, value.microseconds)),
    (complex, complex.__complex__),
)


def simplify(value: Any) -> Any:
    """The plain form of an object of a class that is not one of the wire's own.

    Raises:
        Unserializable: it has none.
    """
    kind = type(value)
    for base, plain in _BASES:
        if isinstance(value, base):
            return plain(value)
    if isinstance(value, msgspec.Struct):
        return _simplify_struct(value)
    if dataclasses.is_dataclass(kind):
        return {name: getattr(value, name) for name in _field_names(kind)}
    raise Unserializable(f"{type_name(kind)} has no form on the wire")


def _simplify_struct(value: msgspec.Struct) -> Any:
    kind = type(value)
    config = kind.__struct_config__
    values = [getattr(value, name) for name in kind.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    plain = {} if config.tag is None else {config.tag_field: config.tag}
    return plain | dict(zip(kind.__struct_encode_fields__, values, strict=True))


@lru_cache(maxsize=1024)
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def type_name(kind: type) -> str:
    """The name of a class for a message, with its module unless it is built in."""
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


# The careful way -----------------------------------------------------------------------------------------------------

#: Where a value stands: the place of what holds it, and its index or key there; None for the whole.
Place: TypeAlias = "tuple[Place, Any] | None"

_PLAIN_KEYS = frozenset({str, float, bytes, bool, type(None)})


def lower(value: Any, place: Place = None, room: int = MAX_DEPTH, extensions: int = MAX_EXTENSIONS) -> Any:
    """The value made of what ormsgpack writes by itself, from the bottom up.

    It takes a hundred times as long as ormsgpack with a hook on plain records, and twice as long where every part is a
    tuple, date or UUID. It is for what that refuses: keys that are not str, deep nesting; and to say what is wrong and
    where.

    Raises:
        Unserializable: naming the type, and the place as `[0]['user']`.
    """
    kind = type(value)
    if value is None or kind is bool or kind is float or kind is bytes:
        return value
    if kind is str:
        _check_text(value, place)
        return value
    if kind is int and _fits(value):
        return value
    if kind in LEAVES:
        return _read_out(LEAVES[kind], value, place)
    if room <= 0 or extensions <= 0:
        raise Unserializable(f"the value is nested too deep, or holds itself{place_text(place)}")
    if kind is list:
        return [lower(item, (place, index), room - 1, extensions) for index, item in enumerate(value)]
    if kind is dict:
        return _lower_dict(value, place, room, extensions)
    if kind in CONTAINERS:
        items = value if kind is tuple else _simple_items(value, place)
        inner = [lower(item, (place, index), room - 2, extensions - 1) for index, item in enumerate(items)]
        return ormsgpack.Ext(CONTAINERS[kind], pack_lowered(inner))
    # a step of simplifying is a level too, so that an Enum of Enums ends
    return lower(_read_out(simplify, value, place), place, room - 1, extensions)


def pack_lowered(value: Any) -> bytes:
    """What `lower` gave, as bytes."""
    return ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS)


def _lower_dict(value: dict[Any, Any], place: Place, room: int, extensions: int) -> Any:
    keys = _simple_items(value, place)
    if all(type(key) in _PLAIN_KEYS or (type(key) is int and _fits(key)) for key in keys):
        pairs = zip(keys, value.values(), strict=True)
        return {key: lower(item, (place, key), room - 1, extensions) for key, item in pairs}
    inner = []
    for key, item in zip(keys, value.values(), strict=True):
        inner.append(lower(key, (place, key), room - 2, extensions - 1))
        inner.append(lower(item, (place, key), room - 2, extensions - 1))
    return ormsgpack.Ext(MAP, pack_lowered(inner))


def _simple_items(value: Collection[Any], place: Place) -> list[Any]:
    """The keys of a dict, or the items of a set, each hashable on the other side too."""
    keys = [_simple_key(key, place) for key in value]
    if len(dict.fromkeys(keys)) < len(keys):
        raise Unserializable(f"two keys of a dict, or items of a set, become the same on the wire{place_text(place)}")
    return keys


def _simple_key(key: Any, place: Place) -> Any:
    for _ in range(MAX_EXTENSIONS):
        kind = type(key)
        if kind is str:
            _check_text(key, place)
            return key
        if kind in HASHABLE:
            return key
        key = _read_out(simplify, key, place)
    raise Unserializable(
        f"a key of a dict, or an item of a set, that cannot be one on the other side{place_text(place)}"
    )


def _read_out(read: Callable[[Any], Any], value: Any, place: Place) -> Any:
    """`read(value)`, which may run the value's own code, with the place told when it fails."""
    try:
        return read(value)
    except Unserializable as exc:
        raise Unserializable(f"{exc}{place_text(place)}") from exc
    except Exception as exc:
        raise Unserializable(
            f"{type_name(type(value))} cannot be read: {type(exc).__name__}{place_text(place)}"
        ) from exc


def _check_text(value: str, place: Place) -> None:
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError as exc:
        raise Unserializable(f"a str with a lone surrogate has no form on the wire{place_text(place)}") from exc


def _fits(value: int) -> bool:
    return -(1 << 63) <= value < 1 << 64


def place_text(place: Place) -> str:
    """` at [0]['user']`; of a deep place just the innermost steps."""
    steps: list[str] = []
    while place is not None:
        place, step = place
        if len(steps) == 8:
            return " at ..." + "".join(reversed(steps))
        steps.append(f"[{step if type(step) is int else reprlib.repr(step)}]")
    return " at " + "".join(reversed(steps)) if steps else ""


# Reading -------------------------------------------------------------------------------------------------------------


def _read_int(data: memoryview) -> int:
    if len(data) > MAX_INT_BITS // 8 + 1:
        raise BodyUndecodable(f"an int of {len(data)} bytes is beyond the limit of {MAX_INT_BITS} bits")
    return int.from_bytes(data, "big", signed=True)


def _read_decimal(data: memoryview) -> Decimal:
    if len(data) > MAX_DECIMAL_CHARACTERS:
        raise BodyUndecodable(f"a Decimal of {len(data)} characters is beyond the limit of {MAX_DECIMAL_CHARACTERS}")
    return Decimal(str(data, "ascii"))


_READERS: dict[int, Callable[[memoryview], Any]] = {
    5: _read_int,
    6: _read_decimal,
    7: lambda data: UUID(bytes=bytes(data)),
    8: lambda data: datetime.fromisoformat(str(data, "ascii")),
    9: lambda data: date.fromisoformat(str(data, "ascii")),
    10: lambda data: time.fromisoformat(str(data, "ascii")),
    11: lambda data: timedelta(*_DELTA.unpack(data)),
    12: lambda data: complex(*_COMPLEX.unpack(data)),
}


def _set(items: list[Any]) -> set[Any]:
    check_hashes(items)
    return set(items)


def _frozenset(items: list[Any]) -> frozenset[Any]:
    check_hashes(items)
    return frozenset(items)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    keys = items[::2]
    check_hashes(keys)
    return dict(zip(keys, items[1::2], strict=True))


def check_hashes(items: list[Any]) -> None:
    """Raise BodyUndecodable where a set of the items would take more than `MAX_COMPARISONS` for each.

    A share of equal hashes would not do as the bound: among as many others, half of the items are still too many.
    """
    bound = 2 * MAX_COMPARISONS * len(items)
    if len(items) ** 2 <= bound:
        return
    extra = len(items) - len(set(map(hash, items)))
    if extra * (extra + 1) <= bound:  # even if they all have the same hash
        return
    counts = Counter(map(hash, items)).values()
    if sum(map(mul, counts, counts)) - len(items) > bound:
        raise BodyUndecodable("a set or map has too many items of the same hash")


_BUILDERS: dict[int, Callable[[list[Any]], Any]] = {TUPLE: tuple, SET: _set, FROZENSET: _frozenset, MAP: _pairs}


def reader(inner: Callable[[memoryview], list[Any]] | None) -> Callable[[int, memoryview], Any]:
    """The hook that rebuilds extensions; `inner` decodes the list in one, and None where no further may come."""

    def read(code: int, data: memoryview) -> Any:
        build = _BUILDERS.get(code)
        if build is not None:
            if inner is None:
                raise NestedTooDeep(f"the body has more than {MAX_EXTENSIONS} extensions within one another")
            return build(inner(data))
        if code not in _READERS:
            raise BodyUndecodable(f"the body has an extension of the unknown type {code}")
        return _READERS[code](data)

    return read
