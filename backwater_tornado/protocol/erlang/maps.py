"""Maps that a dict cannot hold, and what makes two terms the same.

Erlang has any term as a key, and 1, 1.0 and true are three of them. Rule: nothing here takes time by the square of what
a peer sends, nor memory for every level of it: terms are compared by digests. This module knows nothing of bytes on the
wire.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from backwater_tornado.errors import Unserializable
from backwater_tornado.protocol.extensions import check_hashes, type_name
from backwater_tornado.protocol.nesting import MAX_DEPTH

from .terms import Atom, BitString, Charlist, Fun, ImproperList, Pid, Port, Reference

__all__ = ["ErlangMap", "map_of"]


class ErlangMap:
    """A map that no dict can hold: with lists or maps as keys, or with keys such as 1, 1.0 and true together.

    Equal to another with the same pairs in whatever order, where 1 and 1.0 are two.

    Attributes:
        pairs: each key with its value, in the order in which they came.

    Raises:
        ValueError: a key is there twice.
        Unserializable: a key is no term.
    """

    __slots__ = ("_identity", "pairs")

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self.pairs: tuple[tuple[Any, Any], ...] = tuple((key, value) for key, value in pairs)
        self._identity: bytes | None = None
        if len({_identify(key, MAX_DEPTH) for key, _ in self.pairs}) < len(self.pairs):
            raise ValueError("a map has the same key twice")

    def __len__(self) -> int:
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ErlangMap) and self.identify(MAX_DEPTH) == other.identify(MAX_DEPTH)

    def __hash__(self) -> int:
        return hash(self.identify(MAX_DEPTH))

    def __repr__(self) -> str:
        return f"ErlangMap({list(self.pairs)!r})"

    def identify(self, room: int) -> bytes:
        """32 bytes that only a map with the same pairs has."""
        if self._identity is None:  # kept: maps may be keys in keys of maps, and each is looked at just once
            self._identity = _identify_pairs(self.pairs, room)
        return self._identity


def map_of(keys: list[Any], values: list[Any]) -> dict[Any, Any] | ErlangMap:
    """The pairs as a dict if that holds the keys apart, else as an `ErlangMap`.

    Raises:
        BodyUndecodable: too many keys have the same hash.
        ValueError: a key is there twice.
    """
    try:
        check_hashes(keys)
        made = dict(zip(keys, values, strict=True))
    except TypeError:  # a key is a list or a dict
        return ErlangMap(zip(keys, values, strict=True))
    return made if len(made) == len(keys) else ErlangMap(zip(keys, values, strict=True))


# A digest, not the parts themselves: bytes have hashes that nobody can foretell, and 32 of them are cheap to keep.
def _digest(kind: bytes, content: bytes) -> bytes:
    return blake2b(kind + content, digest_size=32).digest()


def _identify(value: Any, room: int) -> bytes:
    """32 bytes that only the same term has, however Python holds it."""
    if room < 0:
        raise Unserializable("a key is nested too deep, or holds itself")
    if isinstance(value, ErlangMap):
        return value.identify(room)
    if isinstance(value, dict):
        return _identify_pairs(value.items(), room)
    if isinstance(value, Charlist):
        value = list(map(ord, value))
    if isinstance(value, list):
        if set(map(type, value)) == {int}:
            with suppress(OverflowError):  # all at once, as a text is: one by one takes forty times as long
                return _digest(b"words", array("q", value).tobytes())
        return _digest(b"list", _identify_each(value, room))
    if isinstance(value, tuple):
        return _digest(b"tuple", _identify_each(value, room))
    if isinstance(value, ImproperList):
        return _digest(b"improper", _identify_each((*value.items, value.tail), room))
    return _digest(*_leaf(value))


def _identify_each(values: Iterable[Any], room: int) -> bytes:
    parts = []
    for value in values:
        parts.append(_identify(value, room - 1))
    return b"".join(parts)


def _identify_pairs(pairs: Iterable[tuple[Any, Any]], room: int) -> bytes:
    parts = []
    for key, value in pairs:
        parts.append(_identify(key, room - 1) + _identify(value, room - 1))
    return _digest(b"map", b"".join(sorted(parts)))


def _leaf(value: Any) -> tuple[bytes, bytes]:
    match value:
        case None:
            return b"none", b""
        case bool():
            return b"atom", b"true" if value else b"false"
        case Atom():
            return b"atom", value.encode("utf-8", "surrogatepass")
        case str():
            return b"binary", value.encode("utf-8", "surrogatepass")
        case bytes() | bytearray() | memoryview():
            return b"binary", bytes(value)
        case int():
            return b"int", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
        case float():
            return b"float", struct.pack(">d", value)
        case BitString(data=data, bits=bits):
            # with all bits of the last byte it is the binary
            return (b"binary", data) if bits == 8 else (b"bits", bytes([bits]) + data)
        case Pid() | Port() | Reference() | Fun():
            return b"opaque", value.data
    raise Unserializable(f"{type_name(type(value))} has no form as an Erlang term")
