"""The tables of an outbox in PostgreSQL, and what is done with them within somebody else's transaction.

Numbers are those of a sequence, which transactions do not wait for each other to get: one that is committed late may
have a lower number than another that is there already. What was committed before something else was sent has the lower
one, and that is the order which is kept.

No row is shared by those who send, so none waits for another. Therefore how much there is, is counted by looking; what
is bounded by it is bounded more or less (`Gauge`).

Rule: no transaction begins or ends here, and nothing is decided.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import psycopg

from .amounts import Bounds, Status
from .parcels import Kept, Parcel, Place, Taken
from .postgres_schema import insertion, join, split, values

#: A connection that gives rows as tuples.
Connection = psycopg.Connection[tuple[Any, ...]]
_INSERT: Final = insertion("%({})s")
_PARCEL: Final = "number, id, queues, messages, body, at, tried"
#: A count holds so many times as long as it took, and so many seconds while it leaves room.
_WORTH: Final = 20.0
_HOLDS: Final = 1.0


class Gauge:
    """About how much an outbox holds: counted now and then, and added up by what this process puts in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.messages = self.size = 0
        self._until = self._fresh_until = 0.0

    def has_room(self, db: Connection, parcels: Sequence[Parcel], bounds: Bounds) -> bool:
        """Whether these fit; if they do, they are added."""
        messages, size = sum(each.messages for each in parcels), sum(len(each.body) for each in parcels)
        now = self._clock()
        is_full = not bounds.fits(self.messages + messages, self.size + size)
        if now >= (self._fresh_until if is_full else self._until):
            self.messages, self.size = amounts(db)
            ended = self._clock()
            self._fresh_until = ended + _WORTH * (ended - now)
            self._until = max(self._fresh_until, ended + _HOLDS)
        if not bounds.fits(self.messages + messages, self.size + size):
            return False
        self.messages, self.size = self.messages + messages, self.size + size
        return True

    def forget(self) -> None:
        """Count again."""
        self._until = self._fresh_until = 0.0


# Sending -------------------------------------------------------------------------------------------------------------


def insert(db: Connection, parcels: Iterable[Parcel]) -> None:
    """Put parcels at the end."""
    with db.cursor() as cursor:
        cursor.executemany(_INSERT, values(parcels))


def make_room(db: Connection, parcels: Sequence[Parcel], bounds: Bounds) -> int:
    """Drop the oldest that were never tried until these fit; gives how many messages, 0 if that would not be enough."""
    messages, size = amounts(db)
    messages += sum(each.messages for each in parcels)
    size += sum(len(each.body) for each in parcels)
    dropped: list[int] = []
    before = messages
    with db.cursor("backwater_oldest") as oldest:
        oldest.execute("SELECT number, messages, size FROM backwater_outbox WHERE tried IS NULL ORDER BY number")
        for row in oldest:
            if bounds.fits(messages, size):
                break
            dropped.append(row[0])
            messages, size = messages - row[1], size - row[2]
    if not bounds.fits(messages, size):
        return 0
    remove(db, dropped)
    db.execute("UPDATE backwater_outbox_tally SET dropped = dropped + %s", (before - messages,))
    return before - messages


# Forwarding ----------------------------------------------------------------------------------------------------------


def places(db: Connection, known: set[int], limit: int) -> list[Place]:
    """What waits and is not known, in order; it is known then, and what has gone is not."""
    found = db.execute(
        "SELECT number, queues, messages, size FROM backwater_outbox ORDER BY number LIMIT %s", (limit + len(known),)
    ).fetchall()
    there = {row[0] for row in found}
    seen_up_to = found[-1][0] if len(found) == limit + len(known) else math.inf
    known.difference_update([number for number in known if number <= seen_up_to and number not in there])
    new = [Place(row[0], split(row[1]), row[2], row[3]) for row in found if row[0] not in known][:limit]
    known.update(each.number for each in new)
    return new


def take(db: Connection, numbers: Iterable[int], now: float) -> list[Taken]:
    """See `store.Rows`."""
    chosen = list(numbers)
    found = db.execute(
        f"SELECT {_PARCEL} FROM backwater_outbox WHERE number = ANY(%s) ORDER BY number", (chosen,)
    ).fetchall()
    if any(row[-1] is None for row in found):
        db.execute("UPDATE backwater_outbox SET tried = %s WHERE tried IS NULL AND number = ANY(%s)", (now, chosen))
    return [_taken(row) for row in found]


def keep(db: Connection, refused: Iterable[Kept]) -> None:
    """See `store.Rows`."""
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO backwater_outbox_refused VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (parcel.id, parcel.at, join(parcel.queues), parcel.messages, len(parcel.body), reason, parcel.body)
                for parcel, reason in ((each.parcel, each.reason) for each in refused)
            ],
        )


def remove(db: Connection, numbers: Iterable[int]) -> int:
    """See `store.Rows`."""
    return db.execute("DELETE FROM backwater_outbox WHERE number = ANY(%s)", (list(numbers),)).rowcount


def drop(db: Connection, ids: Sequence[str]) -> int:
    """See `store.Rows`."""
    chosen = (list(ids),)
    waiting = db.execute("DELETE FROM backwater_outbox WHERE id = ANY(%s)", chosen).rowcount
    return waiting + db.execute("DELETE FROM backwater_outbox_refused WHERE id = ANY(%s)", chosen).rowcount


def drop_refused(db: Connection) -> int:
    """See `store.Rows`."""
    return db.execute("DELETE FROM backwater_outbox_refused").rowcount


# Looking -------------------------------------------------------------------------------------------------------------


def amounts(db: Connection) -> tuple[int, int]:
    """Messages and bytes of all that is there."""
    ((messages, size),) = db.execute(
        "SELECT coalesce(sum(messages), 0)::bigint, coalesce(sum(size), 0)::bigint FROM"
        " (SELECT messages, size FROM backwater_outbox UNION ALL"
        " SELECT messages, size FROM backwater_outbox_refused) AS both_tables"
    ).fetchall()
    return messages, size


def last_number(db: Connection) -> int:
    """See `store.Rows`."""
    ((last,),) = db.execute("SELECT coalesce(max(number), 0) FROM backwater_outbox").fetchall()
    return int(last)


def is_waiting(db: Connection, until: int) -> bool:
    """See `store.Rows`."""
    return bool(db.execute("SELECT 1 FROM backwater_outbox WHERE number <= %s LIMIT 1", (until,)).fetchall())


def status(db: Connection) -> Status:
    """See `store.Rows`."""
    waiting = db.execute(
        "SELECT queues, sum(messages) FROM backwater_outbox GROUP BY queues ORDER BY queues"
    ).fetchall()
    ((oldest,),) = db.execute("SELECT min(at) FROM backwater_outbox").fetchall()
    ((refused,),) = db.execute("SELECT coalesce(sum(messages), 0) FROM backwater_outbox_refused").fetchall()
    ((dropped,),) = db.execute("SELECT dropped FROM backwater_outbox_tally").fetchall()
    by_queues = {", ".join(split(queues)): int(count) for queues, count in waiting}
    return Status(by_queues, oldest, int(refused), amounts(db)[1], dropped)


def waiting(db: Connection, after: int, limit: int) -> list[Taken]:
    """See `store.Rows`."""
    found = db.execute(
        f"SELECT {_PARCEL} FROM backwater_outbox WHERE number > %s ORDER BY number LIMIT %s", (after, limit)
    )
    return [_taken(row) for row in found]


def refused(db: Connection, limit: int) -> list[Kept]:
    """See `store.Rows`."""
    found = db.execute(
        "SELECT id, queues, messages, body, at, reason FROM backwater_outbox_refused ORDER BY at, id LIMIT %s", (limit,)
    )
    return [
        Kept(Parcel(own, split(queues), messages, body, at), reason)
        for own, queues, messages, body, at, reason in found
    ]


def version(db: Connection) -> int:
    """The version of the tables; 0: there are none."""
    ((there,),) = db.execute("SELECT to_regclass('backwater_outbox_tally')").fetchall()
    if there is None:
        return 0
    ((found,),) = db.execute("SELECT max(version) FROM backwater_outbox_tally").fetchall()
    return int(found)


def _taken(row: tuple[Any, ...]) -> Taken:
    number, own, queues, messages, body, at, tried = row
    return Taken(number, Parcel(own, split(queues), messages, body, at), tried)
