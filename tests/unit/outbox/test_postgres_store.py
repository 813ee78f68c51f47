"""What an outbox in PostgreSQL has to do beyond the contract."""

from __future__ import annotations

import itertools
import select
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from backwater_tornado.errors import ConfigurationError, OutboxFull, StorageFailed
from backwater_tornado.outbox.amounts import Bounds
from backwater_tornado.outbox.parcels import Parcel
from backwater_tornado.outbox.postgres_rows import Gauge, insert
from backwater_tornado.outbox.postgres_schema import SCHEMA
from backwater_tornado.outbox.postgres_store import PostgresOutbox, PostgresSeat
from tests.postgres import schema

KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'backwater outbox' AND pid <> pg_backend_pid()"
)


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with schema(postgres, SCHEMA) as made:
        yield made


@pytest.fixture
def box(url: str) -> Iterator[PostgresOutbox]:
    made = PostgresOutbox(url)
    yield made
    made.close()


@pytest.fixture
def db(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url) as made:
        yield made


def parcel(id: str) -> Parcel:
    return Parcel(id, ("a",), 1, b"body", 5.0)


def ids(box: PostgresOutbox) -> list[str]:
    return [each.parcel.id for each in box.waiting(0, 99)]


def test_what_is_committed_late_is_read_although_its_number_is_lower(
    box: PostgresOutbox, db: psycopg.Connection[Any]
) -> None:
    read = box.reader()
    insert(db, [parcel("late")])
    box.put([parcel("early"), parcel("next")])
    (early,) = read(1)
    db.commit()
    late, following = read(9)
    assert late.number < early.number < following.number
    assert read(9) == []
    box.remove([early.number])
    assert read(9) == []


def test_a_reader_knows_what_lies_behind_what_came_late(box: PostgresOutbox, db: psycopg.Connection[Any]) -> None:
    insert(db, [parcel(str(number)) for number in range(5)])
    read = box.reader()
    box.put([parcel("x"), parcel("y")])
    known = {each.number for each in read(9)}
    db.commit()
    found = read(1) + read(1) + read(9)
    assert len(found) == 5
    assert known.isdisjoint(each.number for each in found)


def test_connections_that_were_lost_are_replaced(box: PostgresOutbox, db: psycopg.Connection[Any]) -> None:
    box.put([parcel("1")])
    assert ids(box) == ["1"]
    db.execute(KILL)
    db.commit()
    box.put([parcel("2")])
    with pytest.raises(StorageFailed, match="cannot do it now"):  # who reads looks again soon
        ids(box)
    assert ids(box) == ["1", "2"]


def test_a_seat_ends_with_its_connection(box: PostgresOutbox, db: psycopg.Connection[Any]) -> None:
    seat = box.seat()
    assert seat.take()
    db.execute(KILL)
    db.commit()
    while seat.hush():  # the server says why before it ends the connection
        assert select.select([seat.fd], [], [], 10)[0]
    seat.leave()
    assert seat.take()
    seat.leave()


def test_a_transaction_that_fails_has_done_nothing(box: PostgresOutbox) -> None:
    with pytest.raises(StorageFailed, match="NUL"):
        box.put([parcel("1"), Parcel("2\0", ("a",), 1, b"", 5.0)])
    assert ids(box) == []
    box.put([parcel("3")])
    assert ids(box) == ["3"]


def test_what_others_put_in_is_counted_after_a_while(url: str, db: psycopg.Connection[Any]) -> None:
    ticks = itertools.count(0, 10)
    gauge, bounds = Gauge(lambda: next(ticks)), Bounds(messages=2)
    assert gauge.has_room(db, [parcel("1")], bounds)  # counted at 0, until 10 + 20 times 10
    insert(db, [parcel("1"), parcel("2")])
    assert gauge.has_room(db, [parcel("2")], bounds)
    assert not gauge.has_room(db, [parcel("3")], bounds)
    gauge.forget()
    assert not gauge.has_room(db, [parcel("3")], bounds)
    db.rollback()
    assert not gauge.has_room(db, [parcel("3")], bounds)
    for _ in range(30):
        next(ticks)
    assert gauge.has_room(db, [parcel("3")], bounds)


def test_transactions_of_the_applications_own_are_not_bounded(url: str, db: psycopg.Connection[Any]) -> None:
    insert(db, [parcel("1"), parcel("2")])
    db.commit()
    box = PostgresOutbox(url, Bounds(messages=2))
    with pytest.raises(OutboxFull):
        box.put([parcel("3")])
    box.close()


def test_what_cannot_be_opened_is_told(url: str, db: psycopg.Connection[Any]) -> None:
    with pytest.raises(ConfigurationError, match="URL cannot be read"):
        PostgresOutbox("postgresql://host/app?no_such_option=1")
    with pytest.raises(ConfigurationError, match="'postgresql://127.0.0.1/app' cannot be opened"):
        PostgresOutbox("postgresql://127.0.0.1:1/app?password=secret")
    db.execute("INSERT INTO backwater_outbox_tally VALUES (2, 0)")
    db.commit()
    with pytest.raises(ConfigurationError, match="made by a newer version"):
        PostgresOutbox(url)


def test_a_seat_that_cannot_be_taken_is_told() -> None:
    def fail() -> Any:
        raise psycopg.OperationalError("no route")

    seat = PostgresSeat(fail)
    with pytest.raises(StorageFailed, match="cannot be taken now: no route"):
        seat.take()
    assert seat.fd < 0
