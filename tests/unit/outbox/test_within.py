"""Sending within a transaction of the sender's own."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from backwater_tornado.errors import ConfigurationError, InvalidOption, OutboxFull
from backwater_tornado.outbox import postgres_schema
from backwater_tornado.outbox import sqlite_rows as rows
from backwater_tornado.outbox.amounts import Bounds
from backwater_tornado.outbox.parcels import make_parcels
from backwater_tornado.outbox.within import Within
from backwater_tornado.tasks.current import current_sender
from backwater_tornado.tasks.signatures import group, signature
from backwater_tornado.tasks.workflow import Context, plan_canvas
from tests.postgres import schema

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


# PostgreSQL and SQLAlchemy -------------------------------------------------------------------------------------------


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with schema(postgres, postgres_schema.SCHEMA) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    if request.param == "sqlite":
        with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as db:
            db.executescript(rows.SCHEMA)
        made = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/app.db")
    else:
        url = request.getfixturevalue("url")
        made = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    yield made
    made.dispose()


def sent_to(engine: sqlalchemy.Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.scalars(sqlalchemy.text("SELECT id FROM backwater_outbox ORDER BY number")))


def test_a_connection_of_psycopg_commits_it_or_does_not(url: str) -> None:
    with psycopg.connect(url) as connection:
        within(connection).send(A)
        connection.rollback()
        assert within(connection).send_many([A, A]) == ["1", "2"]
        connection.commit()
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        with pytest.raises(InvalidOption, match="execute BEGIN first"):
            within(connection).send(A)
        with connection.transaction():
            within(connection).send(A)
        found = connection.execute("SELECT id FROM backwater_outbox ORDER BY number").fetchall()
    assert [each["id"] for each in found] == ["1", "2", "1"]


def test_a_session_commits_it_or_does_not(engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session:
        assert within(session).send(A) == "1"
        session.rollback()
        within(session).send_many([A, A])
        session.commit()
    scoped = scoped_session(sessionmaker(engine))
    within(scoped).send(A)
    scoped.commit()
    scoped.remove()
    assert sent_to(engine) == ["1", "2", "1"]


def test_a_connection_of_sqlalchemy_commits_it_or_does_not(engine: sqlalchemy.Engine) -> None:
    with engine.connect() as connection:
        within(connection).send(A)
        assert connection.in_transaction()
        connection.rollback()
        within(connection).send_many([A, A])
        connection.commit()
    with engine.begin() as connection:
        within(connection).send(A)
    assert sent_to(engine) == ["1", "2", "1"]


def test_a_library_that_is_not_loaded_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "sqlalchemy", "sqlalchemy.orm"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InvalidOption, match="not 'x'"):
        within("x")
    assert "psycopg" not in sys.modules


def test_another_database_of_sqlalchemy_is_told() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.dialect = mysql.dialect()
        with pytest.raises(InvalidOption, match="an outbox is in PostgreSQL, or in SQLite by sqlite3, not"):
            within(connection)
    engine.dispose()


# What cannot be used -------------------------------------------------------------------------------------------------


def test_a_connection_that_cannot_be_used_is_told() -> None:
    with pytest.raises(InvalidOption, match="the connection is one of sqlite3 .*, not 'x'"):
        within("x")
    bare = sqlite3.connect(":memory:")
    with pytest.raises(ConfigurationError, match="backwater outbox schema"):
        within(bare)
    bare.close()
