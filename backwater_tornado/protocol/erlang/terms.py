"""What an Erlang term is in Python where no type of Python's own will do.

======================  ==============================================================================
Erlang                  Python
======================  ==============================================================================
true, false             bool
undefined               None (or `nil`, if the codec is told so: Elixir)
any other atom          `Atom`, a str
integer, float          int, float
binary                  bytes; a str is written as the binary of its UTF-8
bit string              `BitString`, unless its bits fill whole bytes
list, string            list; `Charlist`, a str, is written as the list of its code points
improper list           `ImproperList`
tuple                   tuple
map                     dict, or `maps.ErlangMap` where a dict cannot hold the keys apart
pid, port, reference    `Pid`, `Port`, `Reference`: opaque, given back byte for byte
fun                     `Fun`: opaque too
======================  ==============================================================================

Rule: these are frozen values. This module knows nothing of bytes on the wire, but that opaque values keep theirs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Self

from backwater_tornado.protocol.extensions import type_name
from backwater_tornado.protocol.nesting import MAX_DEPTH

from . import tags

__all__ = [
    "Atom",
    "BitString",
    "Charlist",
    "Fun",
    "ImproperList",
    "Pid",
    "Port",
    "Reference",
    "text_of",
]

#: Characters of an atom.
MAX_ATOM = 255


# Texts ---------------------------------------------------------------------------------------------------------------


class Atom(str):
    """An atom of at most 255 characters; equal to the str of the same text.

    Raises:
        ValueError: it is longer.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if len(text) > MAX_ATOM:
            raise ValueError(f"an atom of {len(text)} characters, at most {MAX_ATOM}")
        return super().__new__(cls, text)

    def __repr__(self) -> str:
        return f"Atom({str.__repr__(self)})"


class Charlist(str):
    """A text that is written as the list of its code points, Erlang's "text"."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Charlist({str.__repr__(self)})"


def text_of(value: Any) -> str:
    """The text that a term stands for: an atom, a binary of UTF-8, or code points and binaries in nested lists.

    Raises:
        ValueError: it stands for none. None does not either: it may have been `undefined` or `nil`.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Atom):
        return str.__str__(value)
    if isinstance(value, int):
        raise ValueError("an integer is no text")
    pieces: list[str] = []
    _gather(value, pieces, MAX_DEPTH)
    return "".join(pieces)


def _gather(value: Any, pieces: list[str], room: int) -> None:
    """Adds the pieces of chardata, as `unicode:characters_to_list` takes it, from left to right."""
    if room < 0:
        raise ValueError("the text is nested too deep")
    if isinstance(value, bytes | bytearray | memoryview):
        pieces.append(str(value, "utf-8"))
    elif isinstance(value, list):
        for item in value:
            _gather(item, pieces, room - 1)
    elif isinstance(value, ImproperList):
        for item in (*value.items, value.tail):
            _gather(item, pieces, room - 1)
    elif isinstance(value, str) and not isinstance(value, Atom):
        pieces.append(value)
    elif type(value) is int and (0 <= value < 0xD800 or 0xE000 <= value < 0x110000):
        pieces.append(chr(value))
    else:
        shown = "an integer beyond all characters" if type(value) is int else type_name(type(value))
        raise ValueError(f"{shown} is no part of a text")


# Bits and lists ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BitString:
    """Bits that need not fill whole bytes: of the last byte just the upper `bits` count, 1 to 8; the others are 0.

    Raises:
        ValueError: there is no last byte, or `bits` is out of range.
    """

    data: bytes
    bits: int

    def __post_init__(self) -> None:
        if not self.data or not 1 <= self.bits <= 8:
            raise ValueError("a bit string has at least one byte, and 1 to 8 bits of the last one")
        last = self.data[-1] & 0xFF00 >> self.bits & 0xFF
        object.__setattr__(self, "data", bytes(self.data[:-1]) + bytes([last]))


@dataclass(frozen=True, slots=True)
class ImproperList:
    """A list whose tail is no list: `[1, 2 | tail]`.

    Raises:
        ValueError: there are no items, or the tail is a list and the whole therefore a proper one.
    """

    items: tuple[Any, ...]
    tail: Any

    def __post_init__(self) -> None:
        if not self.items or isinstance(self.tail, list | Charlist | ImproperList):
            raise ValueError("an improper list has items, and a tail that is no list")
        object.__setattr__(self, "items", tuple(self.items))


# Opaque values -------------------------------------------------------------------------------------------------------


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


@dataclass(frozen=True, slots=True)
class Pid:
    """A process. `data` is the term as it came, without the version byte; `decode_term` makes these."""

    data: bytes

    def __str__(self) -> str:
        """As Erlang prints a pid of its own node."""
        fields = self.data[-12:] if self.data[0] == tags.PID else self.data[-9:]
        return f"<0.{_number(fields[:4])}.{_number(fields[4:8])}>"

    def __repr__(self) -> str:
        return f"#Pid{self}"


@dataclass(frozen=True, slots=True)
class Port:
    """A port; `data` as for `Pid`."""

    data: bytes

    def __repr__(self) -> str:
        fields = {
            tags.OLD_PORT: self.data[-5:-1],
            tags.NEW_PORT: self.data[-8:-4],
            tags.PORT: self.data[-12:-4],
        }
        return f"#Port<0.{_number(fields[self.data[0]])}>"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference, an alias or a monitor; `data` as for `Pid`."""

    data: bytes

    def __repr__(self) -> str:
        if self.data[0] == tags.OLDEST_REFERENCE:
            return f"#Ref<0.{_number(self.data[-5:-1])}>"
        words = struct.unpack(f">{_number(self.data[1:3])}I", self.data[-4 * _number(self.data[1:3]) :])
        return f"#Ref<{'.'.join(map(str, (0, *reversed(words))))}>"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Fun:
    """A function; `data` as for `Pid`, `text` as Erlang prints it. What a closure has captured is not given out."""

    data: bytes
    text: str = field(compare=False)

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__
