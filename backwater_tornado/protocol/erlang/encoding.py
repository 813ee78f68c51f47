"""Values to bytes of Erlang's external term format, as a VM of today writes it.

Rule: whatever has no form as a term is `Unserializable`, which names the type and the place. A list of bytes is a
STRING_EXT, atoms are UTF-8, floats are eight bytes. Subclasses give what their base holds, by the base's own methods.
This module does not know what a term is for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection, Iterable
from typing import Any

from backwater_tornado.errors import Unserializable
from backwater_tornado.protocol.extensions import Place, place_text, type_name
from backwater_tornado.protocol.nesting import MAX_DEPTH

from . import tags
from .maps import ErlangMap
from .terms import Atom, BitString, Charlist, Fun, ImproperList, Pid, Port, Reference

__all__ = ["encode_term"]

_U16 = struct.Struct(">BH").pack
_U32 = struct.Struct(">BI").pack
_I32 = struct.Struct(">Bi").pack
_F64 = struct.Struct(">Bd").pack

_SMALL_INTEGERS = [bytes([tags.SMALL_INTEGER, value]) for value in range(256)]
_STRING_MAX = 0xFFFF
#: Keys of one of these types differ as terms when they differ in Python.
_PLAIN_KEYS = ({str}, {Atom}, {bytes}, {int}, set[type]())


def encode_term(value: Any, *, none: str = "undefined") -> bytes:
    """The value as the version byte 131 and a term.

    Args:
        value: anything of the table in `terms`.
        none: the atom that None is written as; "nil" suits Elixir.

    Raises:
        Unserializable: a part of it is no term, or it is nested deeper than `MAX_DEPTH`, which what holds itself is.
    """
    writer = _Writer(none)
    try:
        writer.write(value, MAX_DEPTH)
    except _Misfit as exc:
        place: Place = None
        for step in reversed(exc.steps):
            place = (place, step)
        raise Unserializable(f"{exc.what}{place_text(place)}") from exc
    except RecursionError as exc:
        raise Unserializable("the value is nested too deep for the stack that is left here") from exc
    except struct.error as exc:
        raise Unserializable("a part of the value is longer than a term can be") from exc
    return bytes(writer.out)


class _Misfit(Exception):
    """A value that is no term; on its way up each container adds the index or key, the innermost first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.steps: list[Any] = []


class _Writer:
    """Appends terms to `out`."""

    __slots__ = ("_none", "out")

    def __init__(self, none: str) -> None:
        self.out = bytearray([tags.VERSION])
        self._none = Atom(none)

    def write(self, value: Any, room: int) -> None:
        _WRITERS.get(type(value), _Writer._write_base)(self, value, room)

    def _write_base(self, value: Any, room: int) -> None:
        self.write(_base_of(value), room)

    def _write_each(self, values: Iterable[Any], room: int) -> None:
        index = 0
        try:
            for index, value in enumerate(values):  # noqa: B007 - it is needed below
                _WRITERS.get(type(value), _Writer._write_base)(self, value, room)
        except _Misfit as exc:
            exc.steps.append(index)
            raise

    # Atoms, numbers, bytes

    def write_none(self, value: None, room: int) -> None:
        self.write_atom(self._none, room)

    def write_bool(self, value: bool, room: int) -> None:
        self.out += _TRUE if value else _FALSE

    def write_atom(self, value: str, room: int) -> None:
        raw = _utf8(value)
        if len(raw) < 256:
            self.out.append(tags.SMALL_UTF8_ATOM)
            self.out.append(len(raw))
        else:
            self.out += _U16(tags.UTF8_ATOM, len(raw))
        self.out += raw

    def write_int(self, value: int, room: int) -> None:
        if 0 <= value < 256:
            self.out += _SMALL_INTEGERS[value]
        elif -(1 << 31) <= value < 1 << 31:
            self.out += _I32(tags.INTEGER, value)
        else:
            raw = abs(value).to_bytes((value.bit_length() + 7) // 8, "little")
            self.out += bytes([tags.SMALL_BIG, len(raw)]) if len(raw) < 256 else _U32(tags.LARGE_BIG, len(raw))
            self.out.append(value < 0)
            self.out += raw

    def write_float(self, value: float, room: int) -> None:
        if not math.isfinite(value):
            raise _Misfit(f"the float {value} has no form as an Erlang term")
        self.out += _F64(tags.FLOAT, value)

    def write_str(self, value: str, room: int) -> None:
        self.write_bytes(_utf8(value), room)

    def write_bytes(self, value: bytes | bytearray, room: int) -> None:
        self.out += _U32(tags.BINARY, len(value))
        self.out += value

    def write_view(self, value: memoryview, room: int) -> None:
        self.write_bytes(value.tobytes(), room)

    def write_bits(self, value: BitString, room: int) -> None:
        if value.bits == 8:
            self.write_bytes(value.data, room)
            return
        self.out += _U32(tags.BITS, len(value.data))
        self.out.append(value.bits)
        self.out += value.data

    def write_opaque(self, value: Pid | Port | Reference | Fun, room: int) -> None:
        self.out += value.data

    # Lists, tuples, maps

    def write_list(self, value: list[Any], room: int) -> None:
        _check_room(room)
        if not value:
            self.out.append(tags.NIL)
            return
        if type(value[0]) is int and len(value) <= _STRING_MAX and (raw := _as_bytes(value)) is not None:
            self.out += _U16(tags.STRING, len(raw))
            self.out += raw
            return
        self.out += _U32(tags.LIST, len(value))
        self._write_each(value, room - 1)
        self.out.append(tags.NIL)

    def write_charlist(self, value: Charlist, room: int) -> None:
        _utf8(value)
        self.write_list(list(map(ord, value)), room)

    def write_improper(self, value: ImproperList, room: int) -> None:
        _check_room(room)
        self.out += _U32(tags.LIST, len(value.items))
        self._write_each((*value.items, value.tail), room - 1)

    def write_tuple(self, value: tuple[Any, ...], room: int) -> None:
        _check_room(room)
        if len(value) < 256:
            self.out.append(tags.SMALL_TUPLE)
            self.out.append(len(value))
        else:
            self.out += _U32(tags.LARGE_TUPLE, len(value))
        self._write_each(value, room - 1)

    def write_dict(self, value: dict[Any, Any], room: int) -> None:
        self._write_map(value.items(), room, plain=set(map(type, value)) in _PLAIN_KEYS)

    def write_map(self, value: ErlangMap, room: int) -> None:
        self._write_map(value.pairs, room, plain=False)

    def _write_map(self, pairs: Collection[tuple[Any, Any]], room: int, *, plain: bool) -> None:
        """A map; of keys that are not plain, no two may be the same term (as "a" and b"a" are)."""
        _check_room(room)
        self.out += _U32(tags.MAP, len(pairs))
        keys = set()
        key = None
        try:
            for key, item in pairs:
                start = len(self.out)
                _WRITERS.get(type(key), _Writer._write_base)(self, key, room - 1)
                if not plain:
                    keys.add(bytes(self.out[start:]))
                _WRITERS.get(type(item), _Writer._write_base)(self, item, room - 1)
        except _Misfit as exc:
            exc.steps.append(key)
            raise
        if not plain and len(keys) < len(pairs):
            raise _Misfit("two keys of a dict become the same Erlang term")


def _check_room(room: int) -> None:
    if room <= 0:
        raise _Misfit("the value is nested too deep, or holds itself")


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _Misfit("a str with a lone surrogate has no form on the wire") from None


def _as_bytes(value: list[Any]) -> bytes | None:
    """The list as bytes, if it has nothing but integers from 0 to 255: a bool is none."""
    if set(map(type, value)) != {int}:
        return None
    try:
        return bytes(value)
    except ValueError:
        return None


_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Atom, lambda value: Atom(str.__str__(value))),
    (Charlist, lambda value: Charlist(str.__str__(value))),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (bytearray, bytes),
    (list, list.copy),
    (dict, dict.copy),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
)


def _base_of(value: Any) -> Any:
    """What an object holds as an instance of one of the bases."""
    kind = type(value)
    for base, plain in _BASES:
        if issubclass(kind, base):
            return plain(value)
    raise _Misfit(f"{type_name(kind)} has no form as an Erlang term")


_WRITERS: dict[type, Callable[[_Writer, Any, int], None]] = {
    type(None): _Writer.write_none,
    bool: _Writer.write_bool,
    Atom: _Writer.write_atom,
    int: _Writer.write_int,
    float: _Writer.write_float,
    str: _Writer.write_str,
    bytes: _Writer.write_bytes,
    bytearray: _Writer.write_bytes,
    memoryview: _Writer.write_view,
    BitString: _Writer.write_bits,
    list: _Writer.write_list,
    Charlist: _Writer.write_charlist,
    ImproperList: _Writer.write_improper,
    tuple: _Writer.write_tuple,
    dict: _Writer.write_dict,
    ErlangMap: _Writer.write_map,
    **dict.fromkeys((Pid, Port, Reference, Fun), _Writer.write_opaque),
}
_TRUE, _FALSE = b"w\x04true", b"w\x05false"
