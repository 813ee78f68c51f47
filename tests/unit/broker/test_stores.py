"""The URLs of stores: which there are, and what is said of others."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.performers import Direct, Grouped
from backwater_tornado.broker.stores import open_store
from backwater_tornado.broker.values import Queue
from backwater_tornado.errors import ConfigurationError, InvalidOption


async def declare_in(url: str) -> list[str]:
    """Declare a queue in the store, and give the names of all that are in it after a look through another opening."""
    performer = open_store(url)
    broker = Broker(performer)
    await broker.declare([], [Queue("jobs")], [])
    names = [stats.queue.name for stats in await broker.stats()]
    await broker.close()
    return names


def test_a_store_in_memory_forgets() -> None:
    assert asyncio.run(declare_in("memory://")) == ["jobs"]
    assert isinstance(open_store("memory:"), Direct)


@pytest.mark.parametrize("form", ["sqlite://{path}", "sqlite:{path}", "sqlite:///{path}", "SQLite:{name}"])
def test_a_file_is_named_by_its_path(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = form.format(path=tmp_path / "of a broker.db", name="of%20a%20broker.db")
    assert asyncio.run(declare_in(url)) == ["jobs"]
    assert (tmp_path / "of a broker.db").stat().st_size > 0


def test_a_file_is_asked_in_groups(tmp_path: Path) -> None:
    performer = open_store(f"sqlite:{tmp_path}/broker.db")
    assert isinstance(performer, Grouped)
    asyncio.run(performer.close())


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "no store one without a scheme; there are: sqlite:///absolute/path.db"),
        ("broker.db", "no store one without a scheme"),
        ("/var/lib/broker.db", "no store one without a scheme"),
        ("redis://user:password@host/0", "no store redis:; there are"),
        ("http://[", "cannot be read"),
        ("sqlite:", "sqlite:broker.db, from the current directory"),
        ("sqlite://", "by its absolute path"),
        ("sqlite:///", "by its absolute path"),
        ("sqlite://host/broker.db", "by its absolute path"),
        ("sqlite://broker.db", "by its absolute path"),
        ("sqlite:a%00b", "by its absolute path"),
        ("sqlite:a.db?mode=ro", "write \\? as %3F"),
        ("sqlite:a.db#1", "# as %23"),
        ("memory://host", "neither a host nor a path"),
        ("memory:///path", "neither a host nor a path"),
    ],
)
def test_any_other_url_is_refused_and_never_quoted(url: str, complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint) as refused:
        open_store(url)
    assert "password" not in str(refused.value)


def test_a_second_broker_on_a_file_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        broker = Broker(open_store(f"sqlite:{tmp_path}/broker.db"))
        with pytest.raises(ConfigurationError, match="in use by another broker"):
            open_store(f"sqlite:{tmp_path}/broker.db")
        await broker.declare([], [Queue("jobs")], [])
        await broker.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"no database" * 100, "file is not a database"), (b"SQLite format 3\0" + bytes(4080), "cannot be opened")],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "broker.db").write_bytes(content)
    with pytest.raises(ConfigurationError, match=complaint):
        open_store(f"sqlite:{tmp_path}/broker.db")
    assert (tmp_path / "broker.db").read_bytes() == content


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/broker.db"
    asyncio.run(declare_in(url))
    with sqlite3.connect(tmp_path / "broker.db") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(ConfigurationError, match="made by a newer version of this package"):
        open_store(url)
    with sqlite3.connect(tmp_path / "broker.db") as db:
        assert db.execute("SELECT name FROM queues").fetchall() == [("jobs",)]
    db.close()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "folder")  # noqa: PTH102 - the name of an existing folder
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        open_store(f"sqlite:{tmp_path}/folder")
