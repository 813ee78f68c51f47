"""The tables of an outbox, within a transaction of somebody else's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from backwater_tornado.errors import OutboxFull
from backwater_tornado.outbox import sqlite_rows as rows
from backwater_tornado.outbox.amounts import Bounds, Status
from backwater_tornado.outbox.parcels import Kept, Parcel, Place, Taken


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    made.executescript(rows.SCHEMA)
    made.row_factory = sqlite3.Row
    yield made
    made.close()


def parcel(id: str, *queues: str, messages: int = 1, body: bytes = b"body", at: float = 5.0) -> Parcel:
    return Parcel(id, queues or ("a",), messages, body, at)


def put(db: sqlite3.Connection, *parcels: Parcel, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - it is frozen
    rows.insert(db, parcels, bounds)


def tally(db: sqlite3.Connection) -> tuple[int, int]:
    return tuple(db.execute("SELECT messages, bytes FROM backwater_outbox_tally").fetchone())


def test_parcels_lie_in_the_order_in_which_they_were_put_in(db: sqlite3.Connection) -> None:
    put(db, parcel("1", "a", "b", messages=2), parcel("2", "ä, b"))
    put(db, parcel("3"))
    assert rows.places(db, 0, 2) == [Place(1, ("a", "b"), 2, 4), Place(2, ("ä, b",), 1, 4)]
    assert [each.number for each in rows.places(db, 2, 9)] == [3]
    assert rows.last_number(db) == 3
    assert [each.number for each in rows.waiting(db, 1, 1)] == [2]


def test_numbers_are_never_given_twice(db: sqlite3.Connection) -> None:
    put(db, parcel("1"), parcel("2"))
    rows.remove(db, [1, 2])
    put(db, parcel("3"))
    assert [each.number for each in rows.places(db, 0, 9)] == [3]


def test_taking_marks_the_first_time(db: sqlite3.Connection) -> None:
    put(db, parcel("1"), parcel("2"), parcel("3"))
    assert rows.take(db, [1, 3, 7], 10.0) == [Taken(1, parcel("1")), Taken(3, parcel("3"))]
    assert [each.tried for each in rows.take(db, [3, 1, 2], 20.0)] == [10.0, None, 10.0]
    assert [each.tried for each in rows.take(db, [1, 2, 3], 30.0)] == [10.0, 20.0, 10.0]
    assert [each.tried for each in rows.waiting(db, 0, 9)] == [10.0, 20.0, 10.0]


def test_what_has_gone_is_counted_no_more(db: sqlite3.Connection) -> None:
    put(db, parcel("1", messages=3), parcel("2"))
    assert rows.is_waiting(db, 1)
    assert rows.remove(db, [1, 9]) == 1
    assert rows.remove(db, [1]) == 0
    assert not rows.is_waiting(db, 1)
    assert rows.is_waiting(db, 2)
    assert tally(db) == (1, 4)


def test_what_was_refused_is_kept_once_until_it_is_dropped(db: sqlite3.Connection) -> None:
    put(db, parcel("1", "a", "b", messages=2), parcel("2"))
    refused = [Kept(parcel("x", "b", messages=2, at=6.0), "queue_full"), Kept(parcel("y", body=b"1"), "unrouted")]
    rows.keep(db, refused)
    rows.keep(db, refused[:1])
    assert rows.refused(db, 9) == refused[::-1]
    assert rows.refused(db, 1) == refused[1:]
    assert tally(db) == (6, 13)
    assert rows.drop(db, ["x", "1", "z"]) == 2
    assert rows.drop(db, ["x"]) == 0
    assert rows.refused(db, 9) == refused[1:]
    assert [each.number for each in rows.places(db, 0, 9)] == [2]
    assert tally(db) == (2, 5)
    assert rows.drop_refused(db) == 1
    assert rows.drop_refused(db) == 0
    assert tally(db) == (1, 4)


def test_status_tells_what_waits_by_queue(db: sqlite3.Connection) -> None:
    assert rows.status(db) == Status({}, None, 0, 0, 0)
    put(db, parcel("1", "a", "b", messages=2, at=7.0), parcel("2"), parcel("3"))
    rows.keep(db, [Kept(parcel("x", messages=2), "unrouted")])
    assert rows.status(db) == Status({"a": 2, "a, b": 2}, 5.0, 2, 16, 0)


@pytest.mark.parametrize("bounds", [Bounds(messages=3), Bounds(size=12)], ids=["messages", "bytes"])
def test_a_full_outbox_takes_no_more_until_there_is_room(db: sqlite3.Connection, bounds: Bounds) -> None:
    put(db, parcel("1"), parcel("2"), bounds=bounds)
    with pytest.raises(OutboxFull, match=f"holds {bounds.messages} messages, or {bounds.size} bytes, at most"):
        put(db, parcel("3"), parcel("4"), bounds=bounds)
    put(db, parcel("3"), bounds=bounds)
    with pytest.raises(OutboxFull):
        put(db, parcel("4"), bounds=bounds)
    assert [each.number for each in rows.places(db, 0, 9)] == [1, 2, 3]
    rows.remove(db, [2])
    put(db, parcel("4"), bounds=bounds)
    assert rows.last_number(db) == 4


@pytest.mark.parametrize("bounds", [Bounds(messages=3), Bounds(size=12)], ids=["messages", "bytes"])
def test_room_is_made_by_the_oldest_that_were_never_tried_if_that_is_enough(
    db: sqlite3.Connection, bounds: Bounds
) -> None:
    put(db, parcel("1"), parcel("2"), parcel("3"), bounds=bounds)
    rows.take(db, [1], 10.0)
    assert rows.make_room(db, [parcel("4")], bounds) == 1
    assert [each.number for each in rows.places(db, 0, 9)] == [1, 3]
    assert rows.make_room(db, [parcel("4")], bounds) == 0
    assert rows.make_room(db, [parcel("4"), parcel("5"), parcel("6")], bounds) == 0
    assert [each.number for each in rows.places(db, 0, 9)] == [1, 3]
    assert rows.status(db).dropped == 1
    assert tally(db) == (2, 8)


def test_a_database_tells_whether_it_has_the_tables() -> None:
    made = sqlite3.connect(":memory:")
    assert rows.version(made) == 0
    made.executescript(rows.SCHEMA)
    made.executescript(rows.SCHEMA)
    assert rows.version(made) == rows.VERSION
    made.close()
