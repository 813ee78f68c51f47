"""Sending within a transaction of the sender's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from backwater_tornado.errors import ConfigurationError, InvalidOption, OutboxFull
from backwater_tornado.outbox import rows
from backwater_tornado.outbox.parcels import make_parcels
from backwater_tornado.outbox.rows import Bounds
from backwater_tornado.outbox.within import Within
from backwater_tornado.tasks.current import current_sender
from backwater_tornado.tasks.signatures import group, signature
from backwater_tornado.tasks.workflow import Context, plan_canvas

A = signature("m.a")


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    made.executescript(rows.SCHEMA)
    yield made
    made.close()


def within(connection: object, bounds: Bounds = Bounds()) -> Within:  # noqa: B008 - it is frozen
    def pack(canvases: Any) -> Any:
        context = Context(now=5.0, new_id=iter("123456789").__next__)
        orders = [plan_canvas(each, context) for each in canvases]
        return orders, make_parcels(orders, 5.0)

    return Within(connection, pack, lambda order: order.result, bounds)


def ids(db: sqlite3.Connection) -> list[str]:
    return [each.parcel.id for each in rows.waiting(db, 0, 99)]


def test_what_is_sent_is_there_when_it_is_committed_and_only_then(db: sqlite3.Connection) -> None:
    assert within(db).send(A) == "1"
    assert db.in_transaction
    db.rollback()
    assert ids(db) == []
    assert within(db).send_many([A, group(), group(A, A)]) == ["1", [], ["2", "3"]]
    db.commit()
    db.rollback()
    assert ids(db) == ["1", "2"]
    assert within(db).send_many([]) == []


def test_in_a_block_it_is_what_delay_sends_with(db: sqlite3.Connection) -> None:
    with within(db) as entered:
        assert current_sender() is entered
        assert A.delay() == "1"
    assert ids(db) == ["1"]


def test_without_a_transaction_it_is_refused(db: sqlite3.Connection) -> None:
    db.commit()
    db.isolation_level = None
    with pytest.raises(InvalidOption, match="execute BEGIN first"):
        within(db).send(A)
    db.execute("BEGIN")
    within(db).send(A)
    assert ids(db) == ["1"]


def test_the_bounds_hold_here_too(db: sqlite3.Connection) -> None:
    with pytest.raises(OutboxFull):
        within(db, Bounds(messages=1)).send_many([A, A])
    assert ids(db) == []


def test_a_connection_that_cannot_be_used_is_told() -> None:
    with pytest.raises(InvalidOption, match="the connection is one of sqlite3, not 'x'"):
        within("x")
    bare = sqlite3.connect(":memory:")
    with pytest.raises(ConfigurationError, match="backwater outbox schema"):
        within(bare)
    bare.close()
