"""The kinds of outbox, by their URLs. PostgreSQL's driver is imported when such an outbox is opened, not before."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from backwater_tornado.errors import ConfigurationError, InvalidOption

from . import sqlite_rows
from .amounts import Bounds
from .postgres_schema import SCHEMA
from .sqlite_store import SqliteOutbox, path_of
from .store import OutboxStore

#: The tables of an outbox, by what the database speaks.
SCHEMAS: Final = {"sqlite": sqlite_rows.SCHEMA, "postgresql": SCHEMA}
_POSTGRES: Final = ("postgresql://", "postgres://")


def is_url(named: str) -> bool:
    """Whether this names an outbox by a URL, and not a file by its path."""
    return named.startswith(("sqlite:", *_POSTGRES))


def open_outbox(url: str, bounds: Bounds = Bounds(), *, make: bool = True) -> OutboxStore[Any]:  # noqa: B008 - it is frozen
    """Open an outbox; a file that is missing is made, if that is wished, the tables of PostgreSQL are not.

    Raises:
        InvalidOption: the URL is none of an outbox, or there is none.
        ConfigurationError: it cannot be used.
    """
    if str(url).startswith(_POSTGRES):
        try:
            module = import_module("backwater_tornado.outbox.postgres_store")
        except ImportError as error:
            raise ConfigurationError(
                f"an outbox in PostgreSQL needs psycopg: pip install 'backwater-tornado[postgresql]' ({error})"
            ) from error
        opened: OutboxStore[Any] = module.PostgresOutbox(url, bounds)
        return opened
    path = path_of(url)
    if not make and not Path(path).is_file():
        raise InvalidOption(f"there is no outbox {path!r}")
    return SqliteOutbox(path, bounds)
