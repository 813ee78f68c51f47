"""Sending within a transaction of the sender's own: the task is there if the transaction is committed, and only then.

The tables of the outbox are in that database (`sqlite_rows.SCHEMA`, `postgres_schema.SCHEMA`); a forwarder that is
pointed at it drains them.

Rule: the transaction is the sender's: it is not ended here, and what the database raises is raised. Nothing is dropped
or waited for in it either. In PostgreSQL no bound holds: it would have to be counted in the sender's transaction.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from backwater_tornado.errors import ConfigurationError, InvalidOption
from backwater_tornado.tasks.current import enter_block, leave_block
from backwater_tornado.tasks.signatures import Canvas
from backwater_tornado.tasks.workflow import Order

from .amounts import Bounds
from .parcels import Parcel
from .postgres_schema import insertion, values
from .sqlite_rows import insert, version

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy

#: Puts parcels in.
Put: TypeAlias = Callable[[Sequence[Parcel]], None]


class Within:
    """What sends into a transaction, as `App.outbox_in` gives it; in a with-block `delay` does, too.

    Args:
        connection: see `App.outbox_in`.
        pack: plans canvases, and gives them as orders with their parcels.
        handle: the handle of what was sent.
        bounds: how much the outbox holds.
    """

    def __init__(
        self,
        connection: object,
        pack: Callable[[Iterable[Canvas]], tuple[list[Order], list[Parcel]]],
        handle: Callable[[Order], Any],
        bounds: Bounds,
    ) -> None:
        self._put = _putting(connection, bounds)
        self._pack, self._handle = pack, handle

    def send(self, canvas: Canvas) -> Any:
        """As `App.send`."""
        return self.send_many([canvas])[0]

    def send_many(self, canvases: Iterable[Canvas]) -> list[Any]:
        """As `App.send_many`.

        Raises:
            InvalidOption: the connection commits each statement by itself, and no transaction was begun.
            OutboxFull: there is no room (SQLite).
        """
        orders, parcels = self._pack(canvases)
        if parcels:
            self._put(parcels)
        return [self._handle(order) for order in orders]

    def __enter__(self) -> Self:
        enter_block(self)
        return self

    def __exit__(self, *error: object) -> None:
        leave_block()


def _putting(connection: object, bounds: Bounds) -> Put:
    """How parcels are put in over this connection; a library that is not loaded has none."""
    if isinstance(connection, sqlite3.Connection):
        return _by_sqlite(connection, bounds)
    if _is_of(connection, "psycopg", "Connection"):
        return _by_psycopg(connection)  # type: ignore[arg-type]
    if _is_of(connection, "sqlalchemy.orm", "Session", "scoped_session"):
        connection = connection.connection()  # type: ignore[attr-defined]
    if _is_of(connection, "sqlalchemy", "Connection"):
        return _by_sqlalchemy(connection, bounds)  # type: ignore[arg-type]
    raise InvalidOption(
        "the connection is one of sqlite3 or psycopg, or a Connection or Session of SQLAlchemy (of an AsyncSession, the"
        f" one that run_sync gives), not {connection!r}"
    )


def _is_of(connection: object, module: str, *names: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(connection, tuple(getattr(loaded, name) for name in names))


def _by_sqlite(connection: sqlite3.Connection, bounds: Bounds) -> Put:
    if not version(connection):
        raise ConfigurationError("the database has no outbox; `backwater outbox schema` prints its tables")

    def put(parcels: Sequence[Parcel]) -> None:
        if connection.isolation_level is None and not connection.in_transaction:
            raise _no_transaction()
        insert(connection, parcels, bounds)

    return put


def _by_psycopg(connection: psycopg.Connection[Any]) -> Put:
    statement = insertion("%({})s")

    def put(parcels: Sequence[Parcel]) -> None:
        if connection.autocommit and connection.info.transaction_status.name == "IDLE":
            raise _no_transaction()
        with connection.cursor() as cursor:
            cursor.executemany(statement, values(parcels))

    return put


def _by_sqlalchemy(connection: sqlalchemy.Connection, bounds: Bounds) -> Put:
    if connection.dialect.name == "postgresql":
        statement = import_module("sqlalchemy").text(insertion(":{}"))
        return lambda parcels: connection.execute(statement, values(parcels)).close()
    driver: object = connection.connection.driver_connection
    if connection.dialect.name != "sqlite" or not isinstance(driver, sqlite3.Connection):
        raise InvalidOption(f"an outbox is in PostgreSQL, or in SQLite by sqlite3, not {connection.engine.name}")
    put = _by_sqlite(driver, bounds)

    def begin_and_put(parcels: Sequence[Parcel]) -> None:
        if not connection.in_transaction():
            connection.begin()  # as its own execute does: what goes by it would not be committed
        put(parcels)

    return begin_and_put


def _no_transaction() -> InvalidOption:
    return InvalidOption("there is no transaction to send in: execute BEGIN first")
