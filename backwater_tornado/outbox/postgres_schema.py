"""The tables of an outbox in PostgreSQL, and how a parcel is written into them by any driver.

Rule: no driver is known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from .parcels import Parcel

#: What `SCHEMA` makes.
VERSION: Final = 1
SCHEMA: Final = """\
CREATE TABLE IF NOT EXISTS backwater_outbox (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    id TEXT NOT NULL,
    queues TEXT NOT NULL,
    messages INTEGER NOT NULL,
    size INTEGER NOT NULL,
    tried DOUBLE PRECISION,
    body BYTEA NOT NULL
);
CREATE TABLE IF NOT EXISTS backwater_outbox_refused (
    id TEXT PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    queues TEXT NOT NULL,
    messages INTEGER NOT NULL,
    size INTEGER NOT NULL,
    reason TEXT NOT NULL,
    body BYTEA NOT NULL
);
CREATE TABLE IF NOT EXISTS backwater_outbox_tally (
    version INTEGER PRIMARY KEY,
    dropped BIGINT NOT NULL
);
INSERT INTO backwater_outbox_tally VALUES (1, 0) ON CONFLICT DO NOTHING;
"""
COLUMNS: Final = ("at", "id", "queues", "messages", "size", "body")


def values(parcels: Iterable[Parcel]) -> list[dict[str, Any]]:
    """Parcels by `COLUMNS`."""
    return [
        {
            "at": each.at,
            "id": each.id,
            "queues": join(each.queues),
            "messages": each.messages,
            "size": len(each.body),
            "body": each.body,
        }
        for each in parcels
    ]


def insertion(placeholder: str) -> str:
    """The statement for one parcel; a placeholder is `:{}` or `%({})s`, as the driver has it."""
    given = ", ".join(placeholder.format(name) for name in COLUMNS)
    return f"INSERT INTO backwater_outbox ({', '.join(COLUMNS)}) VALUES ({given})"


def join(queues: Iterable[str]) -> str:
    """Names as one text."""
    return json.dumps(list(queues), ensure_ascii=False)


def split(queues: str) -> tuple[str, ...]:
    """The names of `join`."""
    return tuple(json.loads(queues))
