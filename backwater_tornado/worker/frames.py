"""What a worker and its child processes say to each other: values with their length in front, over a pair of sockets.

The parent says `Plan` once, then one `Job` after the other. The child says `Ready` or `Unready`, and for each job any
number of `Told`, then `Ended`.

Rule: both ends are ours and of one version; what arrives is believed.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from backwater_tornado.broker.values import Outcome

from .jobs import Ending


class Plan(msgspec.Struct, frozen=True):
    """What a child is made of."""

    #: As a command line names them, see `loading`.
    modules: tuple[str, ...]
    #: Where modules are imported from.
    path: tuple[str, ...]
    #: It leaves after so many runs, or when it has so many bytes of memory after one; None: never.
    max_tasks: int | None = None
    max_memory: int | None = None
    #: The level of its log, such as INFO; None: whatever the modules set up.
    log_level: str | None = None
    #: Whom its tasks send others with, unless a module makes an App: broker and file of keys, and a client's options.
    broker: tuple[str, ...] = ()
    secret_file: str = ""
    options: dict[str, Any] = {}


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The modules are imported."""


class Unready(msgspec.Struct, frozen=True, tag=True):
    """They cannot be."""

    why: str


class Told(msgspec.Struct, frozen=True, tag=True):
    """How far a run is."""

    token: int
    outcome: Outcome


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A run has ended; with the `last` one the child leaves."""

    token: int
    ending: Ending
    last: bool


Said = Ready | Unready | Told | Ended

#: The length in front of a value.
HEAD: Final = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode


def frame(value: msgspec.Struct) -> bytes:
    """A value as it is sent."""
    body = _encode(value)
    return HEAD.pack(len(body)) + body


class Frames:
    """Takes bytes as they come, and gives whole values."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The values that are complete now."""
        self._data += data
        found, start = [], 0
        while len(self._data) - start >= HEAD.size:
            (size,) = HEAD.unpack_from(self._data, start)
            end = start + HEAD.size + size
            if len(self._data) < end:
                break
            found.append(self._decode(memoryview(self._data)[start + HEAD.size : end]))
            start = end
        del self._data[:start]
        return found
