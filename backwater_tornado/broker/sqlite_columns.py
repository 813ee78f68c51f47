"""Values as columns of a database, and columns as values again.

Rule: it knows no table.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

import msgspec

from .values import Message, Outcome, Publication

#: Values in one list of a statement.
_CHUNK: Final = 64
#: Rows inserted by one statement.
_ROWS: Final = 50


class _Envelope(msgspec.Struct, array_like=True):
    """A publication without the message's id and body."""

    exchange: str
    routing_key: str
    headers: bytes
    content_type: str
    content_encoding: str
    priority: int
    not_before: float | None
    expires: float | None
    unique: str | None
    unique_until: float | None
    joins: tuple[str, ...]
    keep_result: float | None


_encode: Final = msgspec.msgpack.Encoder().encode
_ENVELOPE: Final = msgspec.msgpack.Decoder(_Envelope)
_NAMES: Final = msgspec.msgpack.Decoder(tuple[str, ...])
_OUTCOME: Final = msgspec.msgpack.Decoder(Outcome)


def pack(publication: Publication) -> bytes:
    """All of a publication but its message's id and body."""
    message = publication.message
    return _encode(
        (
            publication.exchange,
            publication.routing_key,
            message.headers,
            message.content_type,
            message.content_encoding,
            message.priority,
            message.not_before,
            message.expires,
            message.unique,
            message.unique_until,
            message.joins,
            message.keep_result,
        )
    )


def unpack(id: str, envelope: bytes, body: bytes) -> Publication:
    """The publication again."""
    found = _ENVELOPE.decode(envelope)
    message = Message(
        id,
        body,
        found.headers,
        found.content_type,
        found.content_encoding,
        found.priority,
        found.not_before,
        found.expires,
        found.unique,
        found.unique_until,
        found.joins,
        found.keep_result,
    )
    return Publication(message, found.routing_key, found.exchange)


def pack_names(names: tuple[str, ...]) -> bytes | None:
    """Names for a column; None for none."""
    return _encode(names) if names else None


def unpack_names(packed: bytes | None) -> tuple[str, ...]:
    """The names again."""
    return _NAMES.decode(packed) if packed is not None else ()


def pack_outcome(outcome: Outcome) -> bytes:
    """An outcome for a column."""
    return _encode(outcome)


def unpack_outcome(packed: bytes) -> Outcome:
    """The outcome again."""
    return _OUTCOME.decode(packed)


def shorten(id: str) -> int:
    """The number by which an id is looked for; several may have the same.

    The ids of tasks are 32 digits that begin with their time, in milliseconds. That stays in front, so that what comes
    at one time is at one place of the index, on few pages.
    """
    try:
        return _scatter(id) if len(id) != 32 else int(id[:12], 16) << 15 | zlib.crc32(id.encode()) & 0x7FFF
    except ValueError:
        return _scatter(id)


def _scatter(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=6).digest(), "big", signed=True)


def chosen(db: sqlite3.Connection, select: str, first: Sequence[Any], values: Iterable[Any]) -> Iterator[Any]:
    """The rows of a SELECT that ends in `IN`, for any number of values, by statements that are prepared once."""
    left = iter(values)
    while chunk := list(islice(left, _CHUNK)):
        size = 1 if len(chunk) == 1 else _CHUNK
        marks = ",".join("?" * size)
        yield from db.execute(f"{select} ({marks})", (*first, *chunk, *([None] * (size - len(chunk)))))


class Insertion:
    """Rows for a table; many go in by one statement, which costs less than a statement for each.

    Args:
        head: the statement, up to VALUES.
        columns: in a row.
    """

    def __init__(self, head: str, columns: int) -> None:
        row = f"({', '.join('?' * columns)})"
        self._one: Final = f"{head} VALUES {row}"
        self._many: Final = f"{head} VALUES {', '.join([row] * _ROWS)}"

    def insert(self, db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert them, in their order."""
        left = len(rows) % _ROWS
        for start in range(0, len(rows) - left, _ROWS):
            db.execute(self._many, tuple(chain.from_iterable(rows[start : start + _ROWS])))
        if left:
            db.executemany(self._one, rows[-left:])
