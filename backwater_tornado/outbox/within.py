"""Sending within a transaction of the sender's own: the task is there if the transaction is committed, and only then.

The tables of the outbox are in that database (`rows.SCHEMA`); a forwarder that is pointed at it drains them.

Rule: the transaction is the sender's: it is neither begun nor ended here, and what the database raises is raised.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Self

from backwater_tornado.errors import ConfigurationError, InvalidOption
from backwater_tornado.tasks.current import enter_block, leave_block
from backwater_tornado.tasks.signatures import Canvas
from backwater_tornado.tasks.workflow import Order

from .parcels import Parcel
from .rows import Bounds, insert, version


class Within:
    """What sends into a transaction, as `App.outbox_in` gives it; in a with-block `delay` does, too.

    Args:
        connection: a `sqlite3.Connection`.
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
        if not isinstance(connection, sqlite3.Connection):
            raise InvalidOption(f"the connection is one of sqlite3, not {connection!r}")
        if not version(connection):
            raise ConfigurationError("the database has no outbox; `backwater outbox schema` prints its tables")
        self._connection = connection
        self._pack, self._handle, self._bounds = pack, handle, bounds

    def send(self, canvas: Canvas) -> Any:
        """As `App.send`."""
        return self.send_many([canvas])[0]

    def send_many(self, canvases: Iterable[Canvas]) -> list[Any]:
        """As `App.send_many`.

        Raises:
            InvalidOption: the connection commits each statement by itself, and no transaction was begun.
            OutboxFull: there is no room.
        """
        if self._connection.isolation_level is None and not self._connection.in_transaction:
            raise InvalidOption("there is no transaction to send in: execute BEGIN first")
        orders, parcels = self._pack(canvases)
        if parcels:
            insert(self._connection, parcels, self._bounds)
        return [self._handle(order) for order in orders]

    def __enter__(self) -> Self:
        enter_block(self)
        return self

    def __exit__(self, *error: object) -> None:
        leave_block()
