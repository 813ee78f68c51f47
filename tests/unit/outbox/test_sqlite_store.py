"""The file of an outbox: what is put in is there afterwards, for every process."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backwater_tornado.errors import ConfigurationError, InvalidOption, OutboxFull, StorageFailed
from backwater_tornado.outbox import sqlite_rows as rows
from backwater_tornado.outbox import sqlite_store as store
from backwater_tornado.outbox.amounts import Bounds
from backwater_tornado.outbox.parcels import Kept, Parcel
from backwater_tornado.outbox.seat import Seat
from backwater_tornado.outbox.sqlite_store import SqliteOutbox, path_of
from backwater_tornado.outbox.store import _Waiting


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "o.db"


@pytest.fixture
def box(path: Path) -> Iterator[SqliteOutbox]:
    made = SqliteOutbox(path)
    yield made
    made.close()


def parcel(id: str) -> Parcel:
    return Parcel(id, ("a",), 1, b"body", 5.0)


def ids(box: SqliteOutbox) -> list[str]:
    return [each.parcel.id for each in box.waiting(0, 10_000)]


# What it is named by -------------------------------------------------------------------------------------------------


def test_a_url_names_a_file() -> None:
    assert path_of("sqlite:///var/lib/my%3Fapp/outbox.db") == "/var/lib/my?app/outbox.db"
    assert path_of("sqlite:outbox.db") == "outbox.db"


@pytest.mark.parametrize(
    "url", ["outbox.db", "sqlite://host/o.db", "sqlite:", "sqlite:///", "sqlite:o.db?x", "sqlite:%00", "http://[", 5]
)
def test_what_names_none_is_told(url: Any) -> None:
    with pytest.raises(InvalidOption, match="an outbox is named"):
        path_of(url)


# Putting in ----------------------------------------------------------------------------------------------------------


def test_what_is_put_in_is_there_when_it_is_opened_again(path: Path, box: SqliteOutbox) -> None:
    def ids_in_file() -> list[str]:
        with closing(SqliteOutbox(path)) as other:
            return ids(other)

    box.put([parcel("1"), parcel("2")])
    assert ids_in_file() == ["1", "2"]
    box.close()
    assert ids_in_file() == ["1", "2"]
    box.put([parcel("3")])  # it opens again by itself
    assert ids(box) == ["1", "2", "3"]


def test_it_is_closed_to_others(path: Path, box: SqliteOutbox) -> None:
    box.put([parcel("1")])
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


def test_putting_in_rings_the_bell(path: Path, box: SqliteOutbox) -> None:
    seat = Seat(path)
    assert seat.take()
    box.put([parcel("1")])
    assert os.read(seat.fd, 10) == b"\0"
    seat.leave()


def test_threads_share_a_commit(box: SqliteOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        syncs.append(fd)
        begun.set()
        assert go.wait(10)

    monkeypatch.setattr(store, "_sync", slow)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(box.put, [parcel("first")])
        assert begun.wait(10)
        others = [pool.submit(box.put, [parcel(str(number))]) for number in range(8)]
        while len(box._line) < 8:  # they all wait for the first one's commit
            os.sched_yield()
        go.set()
        for each in (first, *others):
            each.result(10)
    assert len(syncs) == 2
    assert len(ids(box)) == 9


def test_nobody_returns_before_it_is_synced(box: SqliteOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(store, "_sync", lambda fd: synced.append(os.fstat(fd).st_size))
    box.put([parcel("1")])
    assert len(synced) == 1
    assert synced[0] == (Path(f"{box.path}-wal")).stat().st_size


def test_who_does_not_fit_disturbs_no_other(path: Path) -> None:
    box = SqliteOutbox(path, Bounds(messages=2))
    box._line.append(_Waiting([parcel("waits")]))  # another thread, which comes to the lock later
    with pytest.raises(OutboxFull):
        box.put([parcel("1"), parcel("2")])
    assert ids(box) == ["waits"]
    box.close()


def test_a_disk_that_fails_is_told_once_and_for_all(box: SqliteOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_sync", fail)
        with pytest.raises(StorageFailed, match="Input/output error"):
            box.put([parcel("1")])
    with pytest.raises(StorageFailed, match="the disk of the outbox .* has failed to keep what was written"):
        box.put([parcel("2")])


def test_another_process_that_writes_for_too_long_is_told(path: Path) -> None:
    box = SqliteOutbox(path, patience=0.0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFailed, match="locked"):
        box.put([parcel("1")])
    with pytest.raises(StorageFailed, match="o.db' cannot do it now: database is locked"):
        box.remove([1])
    other.execute("ROLLBACK")
    box.put([parcel("2")])
    assert ids(box) == ["2"]
    other.close()
    box.close()


def test_an_operation_that_fails_has_done_nothing(box: SqliteOutbox) -> None:
    def fail(db: sqlite3.Connection) -> None:
        rows.insert(db, [parcel("1")], Bounds())
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        box._write(fail)
    assert box.status().size == 0
    box.put([parcel("2")])
    assert ids(box) == ["2"]


# Forwarding ----------------------------------------------------------------------------------------------------------


def test_what_a_forwarder_does_is_not_synced(box: SqliteOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    box.put([parcel("1"), parcel("2")])
    monkeypatch.setattr(store, "_sync", lambda fd: pytest.fail("synced"))
    assert [each.number for each in box.reader()(9)] == [1, 2]
    assert [each.parcel.id for each in box.take([1], 10.0)] == ["1"]
    box.keep([Kept(parcel("x"), "unrouted")])
    assert box.remove([1]) == 1
    assert (box.last_number(), box.is_waiting(1), box.is_waiting(2)) == (2, False, True)
    assert [each.reason for each in box.refused(9)] == ["unrouted"]
    assert box.drop(["2"]) == 1
    assert box.drop_refused() == 1
    assert box.status().size == 0


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_database_of_the_applications_own_keeps_its_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = sqlite3.connect(path)
    own.execute("CREATE TABLE mine (x)")
    own.commit()
    monkeypatch.setattr(store, "_sync", lambda fd: pytest.fail("it is SQLite's to sync"))
    box = SqliteOutbox(path)
    box.put([parcel("1")])
    assert own.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert box._writer is not None
    assert box._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ids(box) == ["1"]
    box.close()
    own.close()


def test_a_file_of_a_newer_version_is_left_as_it_is(path: Path, box: SqliteOutbox) -> None:
    db = sqlite3.connect(path)
    db.execute("INSERT INTO backwater_outbox_tally VALUES (2, 0, 0, 0, 0)")
    db.commit()
    db.close()
    with pytest.raises(ConfigurationError, match="made by a newer version"):
        SqliteOutbox(path)


@pytest.mark.parametrize("spoil", [lambda path: path.mkdir(), lambda path: path.write_text("no database" * 100)])
def test_what_cannot_be_opened_is_named(path: Path, spoil: Callable[[Path], Any]) -> None:
    spoil(path)
    with pytest.raises(ConfigurationError, match="o.db' cannot be opened"):
        SqliteOutbox(path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be opened: .*No such file"):
        SqliteOutbox(tmp_path / "none" / "o.db")


def test_a_reader_that_fails_is_told(box: SqliteOutbox, path: Path) -> None:
    box.close()
    for each in path.parent.iterdir():
        each.unlink()
    path.mkdir()
    with pytest.raises(StorageFailed, match="cannot do it now"):
        box.status()


def test_a_file_that_another_process_is_just_making_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(store.time, "sleep", lambda seconds: other.execute("ROLLBACK"))
    box = SqliteOutbox(path, patience=0.0)
    box.put([parcel("1")])
    assert ids(box) == ["1"]
    box.close()
    other.close()


def test_one_that_another_process_never_ends_to_make_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(store, "_LOOKS", 3)
    monkeypatch.setattr(store, "_WHILE_MADE", 0.0)
    with pytest.raises(ConfigurationError, match="locked"):
        SqliteOutbox(path, patience=0.0)
    other.close()


MANY = """
import sys
from backwater_tornado.outbox.parcels import Parcel
from backwater_tornado.outbox.sqlite_store import SqliteOutbox
sys.stdin.readline()
box = SqliteOutbox(sys.argv[1])
for number in range(20):
    box.put([Parcel(f"{sys.argv[2]}-{number}", ("a",), 1, b"body", 5.0)])
"""


@pytest.mark.slow
def test_several_processes_make_it_and_put_in_at_once(path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", MANY, str(path), name], stdin=subprocess.PIPE) for name in "abc"
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    assert [child.wait(40) for child in children] == [0, 0, 0]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    box = SqliteOutbox(path)
    found = ids(box)
    assert len(found) == 60
    for name in "abc":
        assert [each for each in found if each.startswith(name)] == [f"{name}-{number}" for number in range(20)]
    assert box.status().size == 240
    box.close()


# Forks ---------------------------------------------------------------------------------------------------------------


def test_a_child_and_its_parent_go_on_with_connections_of_their_own(box: SqliteOutbox) -> None:
    box.put([parcel("before")])
    assert ids(box) == ["before"]
    box._line.append(_Waiting([parcel("of another thread of the parent")]))
    child = os.fork()
    if not child:
        code = 1
        try:
            box.put([parcel("child")])
            code = 0 if "before" in ids(box) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    box.put([parcel("parent")])
    assert sorted(ids(box)) == ["before", "child", "of another thread of the parent", "parent"]


def test_an_idle_file_crosses_no_fork(box: SqliteOutbox, path: Path) -> None:
    box.put([parcel("1")])
    child = os.fork()
    if not child:
        held = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()]
        os._exit(any(each.startswith(str(path)) for each in held))
    assert os.waitpid(child, 0)[1] == 0
