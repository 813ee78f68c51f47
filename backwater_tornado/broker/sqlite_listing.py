"""What is only looked at: the dead, and the counts of queues."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from .sqlite_columns import chosen, unpack
from .sqlite_rows import CONTENT
from .values import DeadLetter, Queue, QueueStats

_QUEUE: Final = msgspec.msgpack.Decoder(Queue)

_DEAD: Final = f"""
SELECT d.number, d.queue, m.id, {CONTENT}, d.reason, d.detail, d.at, c.count
FROM dead d CROSS JOIN copies c USING (seq) CROSS JOIN messages m ON m.number = c.message
"""

_COUNTS: Final = """
SELECT value, ready, delayed, leased, dead, published, delivered, acked,
    (SELECT count(*) FROM receivers WHERE queue = name)
FROM queues WHERE NOT deleted
"""

#: The first of each priority; there may be any number of messages, and there are few priorities.
_OLDEST: Final = """
WITH RECURSIVE ranks (rank) AS (
    SELECT min(rank) FROM copies WHERE queue = :queue AND state = 0
    UNION ALL
    SELECT (SELECT min(c.rank) FROM copies c WHERE c.queue = :queue AND c.state = 0 AND c.rank > ranks.rank)
    FROM ranks WHERE ranks.rank IS NOT NULL
)
SELECT min((
    SELECT published FROM copies c WHERE c.queue = :queue AND c.state = 0 AND c.rank = ranks.rank ORDER BY c.seq LIMIT 1
)) FROM ranks WHERE rank IS NOT NULL
"""


def list_dead(db: sqlite3.Connection, queue: str | None, after: int, limit: int) -> list[DeadLetter]:
    """See `Store.dead_letters`."""
    of = "" if queue is None else "AND d.queue = :queue"
    select = f"{_DEAD} WHERE d.number > :after {of} ORDER BY d.number LIMIT :limit"
    found = []
    for row in db.execute(select, {"after": after, "queue": queue, "limit": max(limit, 0)}):
        number, name, message, envelope, body, *rest = row
        publication = unpack(message, envelope, body)
        found.append(
            DeadLetter(number, name, publication.message, publication.exchange, publication.routing_key, *rest)
        )
    return found


def count_queues(db: sqlite3.Connection, names: Sequence[str] | None) -> list[QueueStats]:
    """See `Store.stats`."""
    rows = db.execute(_COUNTS) if names is None else chosen(db, f"{_COUNTS} AND name IN", (), names)
    found = []
    for value, ready, delayed, leased, dead, published, delivered, acked, sessions in rows:
        spec = _QUEUE.decode(value)
        (oldest,) = db.execute(_OLDEST, {"queue": spec.name}).fetchone() if ready else (None,)
        found.append(QueueStats(spec, ready, delayed, leased, dead, oldest, sessions, published, delivered, acked))
    return sorted(found, key=lambda stats: stats.queue.name)
