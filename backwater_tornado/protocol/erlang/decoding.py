"""Bytes of Erlang's external term format to values.

Rule: whatever bytes a peer sends, the outcome is a value, `BodyUndecodable` or `NestedTooDeep`, and what it costs is
bounded by their number. Terms are nested at most `MAX_DEPTH` deep, no length is believed before the bytes are there,
and there are at most `MAX_PARTS` of what takes far more memory than bytes (an empty list is one byte, and 64 here).
What every VM writes is read, old tags too; what depends on a connection between two VMs is refused, and so are
compressed terms. This module does not know what a term is for.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Container
from typing import Any, NoReturn

from backwater_tornado.errors import BodyUndecodable, NestedTooDeep
from backwater_tornado.protocol.nesting import MAX_DEPTH

from . import tags
from .maps import map_of
from .printing import quote_atom
from .terms import MAX_ATOM, Atom, BitString, Fun, ImproperList, Pid, Port, Reference

__all__ = ["MAX_PARTS", "decode_term"]

#: Lists, tuples, maps and funs in one term, and different atoms: each of them.
MAX_PARTS = 1_000_000

#: Atoms that every VM knows, whatever a caller says is known.
_ALWAYS_KNOWN = frozenset({"true", "false", "undefined", "nil"})

_U16 = struct.Struct(">H").unpack_from
_U32 = struct.Struct(">I").unpack_from
_I32 = struct.Struct(">i").unpack_from
_F64 = struct.Struct(">d").unpack_from

_OLD_FLOAT = re.compile(rb"([+-]?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?)\0*")
_SHORT_ATOMS = (tags.SMALL_UTF8_ATOM, tags.SMALL_LATIN1_ATOM)
_LONG_ATOMS = (tags.UTF8_ATOM, tags.LATIN1_ATOM)
_LATIN1_ATOMS = (tags.LATIN1_ATOM, tags.SMALL_LATIN1_ATOM)
_PIDS = (tags.PID, tags.OLD_PID)
#: The class, and how many bytes follow the name of the node.
_OPAQUE: dict[int, tuple[Callable[[bytes], Any], int]] = {
    tags.PID: (Pid, 12),
    tags.OLD_PID: (Pid, 9),
    tags.PORT: (Port, 12),
    tags.NEW_PORT: (Port, 8),
    tags.OLD_PORT: (Port, 5),
    tags.OLDEST_REFERENCE: (Reference, 5),
}
#: Words of 32 bits in a reference.
_MAX_WORDS = 5


def decode_term(data: bytes, *, none: str = "undefined", known_atoms: Container[str] | None = None) -> Any:
    """The value that the bytes stand for; bytes behind the term are ignored, as Erlang does.

    Args:
        data: the version byte 131 and the term.
        none: the atom that becomes None; "nil" suits Elixir, and `undefined` is an `Atom` then.
        known_atoms: if given, another atom is refused, also in the name of a fun. Not meant are true, false, undefined
            and nil, nor the names of nodes, which nobody gets to see.

    Raises:
        BodyUndecodable: they stand for no term, or one of the wrong kind; the message names the byte.
        NestedTooDeep: it is nested deeper than `MAX_DEPTH`.
    """
    reader = _Reader(data, none, known_atoms)
    try:
        if data[0] != tags.VERSION:
            raise reader.refusal(f"its first byte is {data[0]}, not {tags.VERSION}", 0)
        return reader.read_items(1, MAX_DEPTH)[0]
    except (IndexError, struct.error):
        reader.cut()
    except RecursionError as exc:
        raise NestedTooDeep("the body is nested too deep for the stack that is left here") from exc


class _Reader:
    """Reads one term from the byte at `at` on; every method leaves `at` behind what it has read."""

    __slots__ = ("_atoms", "_known", "_none", "_parts", "at", "data", "size")

    def __init__(self, data: bytes, none: str, known: Container[str] | None) -> None:
        self.data = data
        self.size = len(data)
        self.at = 1
        self._none = none
        self._known = known
        self._parts = MAX_PARTS
        self._atoms: dict[bytes, Any] = {}  # by all their bytes, so that the same one is built once

    def read_items(self, count: int, room: int) -> list[Any]:
        """So many terms, one after the other, each of them at most `room` levels deep."""
        data, at, size = self.data, self.at, self.size
        if count > size - at:  # each takes a byte at least
            self.cut()
        items: list[Any] = []
        for _ in range(count):
            tag = data[at]
            if tag == _SMALL_INTEGER:
                items.append(data[at + 1])
                at += 2
            elif tag == _BINARY:
                start = at + 5
                at = start + _U32(data, at + 1)[0]
                if at > size:
                    self.cut()
                items.append(data[start:at])
            else:
                self.at = at
                items.append(_READERS[tag](self, room))
                at = self.at
        self.at = at
        return items

    # What is wrong

    def refusal(self, what: str, at: int | None = None) -> BodyUndecodable:
        """The error to raise, for the byte `at` or the present one."""
        return BodyUndecodable(f"the body is not an Erlang term: {what}, at byte {self.at if at is None else at}")

    def cut(self) -> NoReturn:
        raise BodyUndecodable(f"the body is not an Erlang term: it ends too early, at byte {self.size}")

    def _count_part(self) -> None:
        self._parts -= 1
        if self._parts < 0:
            raise self.refusal(f"it has more than {MAX_PARTS} lists, tuples, maps, funs and atoms")

    def _enter(self, room: int) -> None:
        if room <= 0:
            raise NestedTooDeep(f"the body is nested deeper than {MAX_DEPTH} levels")
        self._count_part()

    def _take(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on."""
        self.at = start + count
        if self.at > self.size:
            self.cut()
        return self.data[start : self.at]

    # Numbers and bits

    def read_integer(self, room: int) -> int:
        value: int = _I32(self.data, self.at + 1)[0]
        self.at += 5
        return value

    def read_big(self, room: int) -> int:
        data, at = self.data, self.at
        start, count = (at + 2, data[at + 1]) if data[at] == tags.SMALL_BIG else (at + 5, _U32(data, at + 1)[0])
        value = int.from_bytes(self._take(start + 1, count), "little")
        return -value if data[start] else value

    def read_float(self, room: int) -> float:
        value: float = _F64(self.data, self.at + 1)[0]
        if not math.isfinite(value):
            raise self.refusal("a float that is not finite")
        self.at += 9
        return value

    def read_old_float(self, room: int) -> float:
        at = self.at
        found = _OLD_FLOAT.fullmatch(self._take(at + 1, 31))
        value = float(found[1]) if found else math.inf
        if not math.isfinite(value):
            raise self.refusal("a text that is no float", at)
        return value

    def read_bits(self, room: int) -> bytes | BitString:
        at = self.at
        bits = self.data[at + 5]
        data = self._take(at + 6, _U32(self.data, at + 1)[0])
        if bits > 8 or (bits > 0) != (len(data) > 0):
            raise self.refusal(f"a bit string of {len(data)} bytes with {bits} bits in the last", at)
        return data if bits in (0, 8) else BitString(data, bits)

    # Atoms

    def read_atom(self, room: int) -> Any:
        data, at = self.data, self.at
        end = at + 2 + data[at + 1] if data[at] in _SHORT_ATOMS else at + 3 + _U16(data, at + 1)[0]
        try:
            value = self._atoms[data[at:end]]
        except KeyError:
            value = self._atoms[data[at:end]] = self._make_atom()
        self.at = end
        return value

    def _make_atom(self) -> Any:
        text = self._read_known_name()
        if text in ("true", "false"):
            return text == "true"
        self._count_part()
        return None if text == self._none else Atom(text)

    def _read_known_name(self) -> str:
        at = self.at
        text = self._read_name()
        if self._known is not None and text not in _ALWAYS_KNOWN and text not in self._known:
            raise self.refusal(f"the atom {quote_atom(text)} is not known here", at)
        return text

    def _read_name(self) -> str:
        """The text of the atom that has to be here."""
        data, at = self.data, self.at
        tag = data[at]
        if tag in _SHORT_ATOMS:
            raw = self._take(at + 2, data[at + 1])
        elif tag in _LONG_ATOMS:
            raw = self._take(at + 3, _U16(data, at + 1)[0])
        else:
            raise self.refusal("no atom where there has to be one")
        try:
            text = raw.decode("latin-1" if tag in _LATIN1_ATOMS else "utf-8")
        except UnicodeDecodeError as exc:
            raise self.refusal("an atom that is not UTF-8", at) from exc
        if len(text) > MAX_ATOM:
            raise self.refusal(f"an atom of {len(text)} characters", at)
        return text

    # Lists, tuples, maps

    def read_nil(self, room: int) -> list[Any]:
        self._enter(room)
        self.at += 1
        return []

    def read_string(self, room: int) -> list[int]:
        self._enter(room)
        return list(self._take(self.at + 3, _U16(self.data, self.at + 1)[0]))

    def read_list(self, room: int) -> Any:
        self._enter(room)
        items = self._read_counted(room)
        while self.data[self.at] == tags.LIST:  # as the tail of a list it goes on with it, and is no level deeper
            items += self._read_counted(room)
        tag = self.data[self.at]
        if tag == tags.NIL:
            self.at += 1
            return items
        if tag == tags.STRING:
            return items + self.read_string(room)
        (tail,) = self.read_items(1, room - 1)
        return ImproperList(tuple(items), tail) if items else tail

    def _read_counted(self, room: int) -> list[Any]:
        count = _U32(self.data, self.at + 1)[0]
        self.at += 5
        return self.read_items(count, room - 1)

    def read_tuple(self, room: int) -> tuple[Any, ...]:
        self._enter(room)
        data, at = self.data, self.at
        if data[at] == tags.SMALL_TUPLE:
            count = data[at + 1]
            self.at = at + 2
        else:
            count = _U32(data, at + 1)[0]
            self.at = at + 5
        return tuple(self.read_items(count, room - 1))

    def read_map(self, room: int) -> Any:
        self._enter(room)
        at = self.at
        self.at = at + 5
        items = self.read_items(2 * _U32(self.data, at + 1)[0], room - 1)
        try:
            return map_of(items[::2], items[1::2])
        except ValueError as exc:
            raise self.refusal(str(exc), at) from exc

    # Opaque values

    def read_opaque(self, room: int) -> Any:
        at = self.at
        made, count = _OPAQUE[self.data[at]]
        self.at = at + 1
        self._read_name()
        self._take(self.at, count)
        return made(self.data[at : self.at])

    def read_reference(self, room: int) -> Reference:
        at = self.at
        words = _U16(self.data, at + 1)[0]
        if not 1 <= words <= _MAX_WORDS:
            raise self.refusal(f"a reference of {words} words")
        self.at = at + 3
        self._read_name()
        self._take(self.at, 4 * words + (4 if self.data[at] == tags.REFERENCE else 1))
        return Reference(self.data[at : self.at])

    def read_export(self, room: int) -> Fun:
        at = self.at
        self.at = at + 1
        module, function = self._read_known_name(), self._read_known_name()
        arity = self._read_number()
        return Fun(self.data[at : self.at], f"fun {quote_atom(module)}:{quote_atom(function)}/{arity}")

    def read_fun(self, room: int) -> Fun:
        self._enter(room)
        at = self.at
        size, free = _U32(self.data, at + 1)[0], _U32(self.data, at + 26)[0]
        self.at = at + 30  # arity, 16 bytes of the code's checksum, index: nothing that could be wrong
        module, index, unique = self._read_known_name(), self._read_number(), self._read_number()
        self._read_creator()
        self.read_items(free, room - 1)
        if self.at != at + 1 + size:
            raise self.refusal(f"a fun of {self.at - at - 1} bytes that claims to have {size}", at)
        return Fun(self.data[at : self.at], f"#Fun<{quote_atom(module)}.{index}.{unique}>")

    def read_old_fun(self, room: int) -> Fun:
        self._enter(room)
        at = self.at
        self.at = at + 5
        self._read_creator()
        module, index, unique = self._read_known_name(), self._read_number(), self._read_number()
        self.read_items(_U32(self.data, at + 1)[0], room - 1)
        return Fun(self.data[at : self.at], f"#Fun<{quote_atom(module)}.{index}.{unique}>")

    def _read_creator(self) -> None:
        if self.data[self.at] not in _PIDS:
            raise self.refusal("no pid where there has to be one")
        self.read_opaque(0)

    def _read_number(self) -> int:
        if self.data[self.at] not in (tags.SMALL_INTEGER, tags.INTEGER, tags.SMALL_BIG):
            raise self.refusal("no number where there has to be one")
        value: int = self.read_items(1, 0)[0]
        return value

    def read_unknown(self, room: int) -> NoReturn:
        tag = self.data[self.at]
        raise self.refusal(tags.REFUSED.get(tag, f"the unknown tag {tag}"))


# Named once more: an attribute of a module is looked up twice as slowly, and these stand in the innermost loop.
_SMALL_INTEGER, _BINARY = tags.SMALL_INTEGER, tags.BINARY

_BY_TAG: dict[int, Callable[[_Reader, int], Any]] = {
    tags.INTEGER: _Reader.read_integer,
    tags.SMALL_BIG: _Reader.read_big,
    tags.LARGE_BIG: _Reader.read_big,
    tags.FLOAT: _Reader.read_float,
    tags.OLD_FLOAT: _Reader.read_old_float,
    tags.BITS: _Reader.read_bits,
    **dict.fromkeys((*_SHORT_ATOMS, *_LONG_ATOMS), _Reader.read_atom),
    tags.NIL: _Reader.read_nil,
    tags.STRING: _Reader.read_string,
    tags.LIST: _Reader.read_list,
    tags.SMALL_TUPLE: _Reader.read_tuple,
    tags.LARGE_TUPLE: _Reader.read_tuple,
    tags.MAP: _Reader.read_map,
    **dict.fromkeys(_OPAQUE, _Reader.read_opaque),
    tags.OLD_REFERENCE: _Reader.read_reference,
    tags.REFERENCE: _Reader.read_reference,
    tags.EXPORT: _Reader.read_export,
    tags.FUN: _Reader.read_fun,
    tags.OLD_FUN: _Reader.read_old_fun,
}
_READERS = [_BY_TAG.get(tag, _Reader.read_unknown) for tag in range(256)]
