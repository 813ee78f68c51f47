from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backwater_tornado.broker import sqlite_file
from backwater_tornado.broker.sqlite_file import STORE, SqliteFile
from backwater_tornado.errors import ConfigurationError, StorageFailed, UnknownQueue

FIRST = "CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER)"
SECOND = "ALTER TABLE things ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'; CREATE INDEX colours ON things (colour)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def file(path: Path) -> Iterator[SqliteFile]:
    with closing(SqliteFile(path, [FIRST], patience=0.1)) as file:
        yield file


def add(file: SqliteFile, name: str, size: int = 0, *, durable: bool = True) -> None:
    with file.writing(durable=durable) as db:
        db.execute("INSERT INTO things (name, size) VALUES (?, ?)", (name, size))


def names(file: SqliteFile) -> list[str]:
    with file.reading() as db:
        return [name for (name,) in db.execute("SELECT name FROM things ORDER BY name")]


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"PRAGMA {name}").fetchone()[0]


# Opening


def test_a_new_file_is_its_owners_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        with closing(SqliteFile(path, [FIRST])) as file:
            add(file, "a")
            modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(["broker.db", "broker.db-wal", "broker.db-shm", "broker.db-lock"], 0o600)


def test_what_was_written_is_there_when_it_is_opened_again(path: Path) -> None:
    for name in "ab":
        with closing(SqliteFile(path, [FIRST])) as file:
            add(file, name)
    with closing(SqliteFile(path, [FIRST])) as file:
        assert names(file) == ["a", "b"]


def test_an_old_file_is_brought_up_to_date_with_what_is_in_it(path: Path) -> None:
    with closing(SqliteFile(path, [FIRST])) as file:
        add(file, "a")
    assert pragma(path, "user_version") == 1
    with closing(SqliteFile(path, [FIRST, SECOND])) as file, file.reading() as db:
        assert db.execute("SELECT name, colour FROM things").fetchall() == [("a", "red")]
    assert pragma(path, "user_version") == 2
    assert pragma(path, "application_id") == STORE.application


def test_a_migration_that_fails_leaves_the_file_at_the_version_before(path: Path) -> None:
    with closing(SqliteFile(path, [FIRST])) as file:
        add(file, "a")
    with pytest.raises(ConfigurationError, match="nowhere"):
        SqliteFile(path, [FIRST, f"{SECOND}; DROP TABLE nowhere"])
    with closing(SqliteFile(path, [FIRST, SECOND])) as file:
        assert names(file) == ["a"]


def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    SqliteFile(path, [FIRST, SECOND]).close()
    with pytest.raises(ConfigurationError, match=r"newer version.*schema is 2, known here is 1"):
        SqliteFile(path, [FIRST])
    assert pragma(path, "user_version") == 2


@pytest.mark.parametrize("content", [b"not a database, and longer than its header would be" * 10, b"short"])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not a database") as raised:
        SqliteFile(path, [FIRST])
    assert path.read_bytes() == content
    # Not even while somebody has the error, and with it the frames that were left.
    assert raised.tb is not None
    assert path not in [each.resolve() for each in Path("/proc/self/fd").iterdir()]


def test_anothers_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="not a store of a broker"):
        SqliteFile(path, [FIRST])
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused(path: Path) -> None:
    with closing(SqliteFile(path, [FIRST])) as file, file.writing() as db:
        db.executemany("INSERT INTO things VALUES (?, 0)", [(f"{number:0100}",) for number in range(1000)])
    damaged = bytearray(path.read_bytes())
    damaged[5 * 4096 : 6 * 4096] = b"\xff" * 4096
    path.write_bytes(damaged)
    with pytest.raises(ConfigurationError, match="damaged|malformed"):
        SqliteFile(path, [FIRST])


def test_a_truncated_file_is_refused(path: Path) -> None:
    with closing(SqliteFile(path, [FIRST])) as file, file.writing() as db:
        db.executemany("INSERT INTO things VALUES (?, 0)", [(f"{number:0100}",) for number in range(1000)])
    os.truncate(path, 8 * 4096)
    with pytest.raises(ConfigurationError, match="damaged|malformed"):
        SqliteFile(path, [FIRST])


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        SqliteFile(tmp_path / "nowhere" / "broker.db", [FIRST])


def test_a_directory_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqliteFile(path, [FIRST])


def test_a_refused_file_is_not_kept_locked(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigurationError):
        SqliteFile(path, [FIRST])
    path.unlink()
    SqliteFile(path, [FIRST]).close()


# The lock


def test_a_second_broker_on_the_file_is_refused(file: SqliteFile, path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in use by another broker"):
        SqliteFile(path, [FIRST])
    add(file, "a")


def test_a_second_broker_by_another_way_to_the_file_is_refused(file: SqliteFile, path: Path) -> None:
    (path.parent / "link.db").symlink_to(path)
    with pytest.raises(ConfigurationError, match="in use by another broker"):
        SqliteFile(path.parent / "link.db", [FIRST])


HOLDS = """
import os, sys
from backwater_tornado.broker.sqlite_file import SqliteFile
file = SqliteFile(sys.argv[1], [sys.argv[2]])
if sys.argv[3:] and os.fork() == 0:
    pass
os.write(1, b"%d\\n" % os.getpid())
sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, path, FIRST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ConfigurationError, match="in use by another broker"):
            SqliteFile(path, [FIRST])
        process.kill()
        process.wait()
        SqliteFile(path, [FIRST]).close()


def test_the_lock_of_a_killed_process_is_free_though_a_child_of_it_lives(path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, path, FIRST, "fork"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(2)}
        process.kill()
        process.wait()
        SqliteFile(path, [FIRST]).close()
        assert all(Path(f"/proc/{pid}").exists() for pid in pids - {process.pid})


def in_a_child(action: object) -> str:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()  # type: ignore[operator]
            os.write(write, b"fine")
        except BaseException as exc:
            os.write(write, f"{type(exc).__name__}: {exc}".encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as pipe:
        return pipe.read().decode()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_has_the_file_closed_and_its_parent_goes_on(file: SqliteFile, path: Path) -> None:
    add(file, "a")
    assert names(file) == ["a"]
    assert in_a_child(lambda: add(file, "b")) == ("StorageFailed: the store was opened before the fork, by the parent")
    assert in_a_child(lambda: names(file)).startswith("StorageFailed: the store was opened before")
    assert in_a_child(file.close) == "fine"
    add(file, "c")
    assert names(file) == ["a", "c"]
    with pytest.raises(ConfigurationError, match="in use by another broker"):
        SqliteFile(path, [FIRST])


# Transactions


def test_an_operation_that_raises_has_done_nothing(file: SqliteFile) -> None:
    undone = file.undone
    with pytest.raises(UnknownQueue), file.writing() as db:
        db.execute("INSERT INTO things (name) VALUES ('a')")
        raise UnknownQueue("q")
    assert names(file) == []
    assert file.undone > undone
    add(file, "b")
    assert names(file) == ["b"]


def test_operations_of_a_transaction_are_committed_together(file: SqliteFile) -> None:
    with file.transaction():
        add(file, "a")
        add(file, "b")
        assert names(file) == ["a", "b"]
        seen: list[list[str]] = []
        thread = threading.Thread(target=lambda: seen.append(names(file)))
        thread.start()
        thread.join()
        assert seen == [[]]
    assert names(file) == ["a", "b"]


def test_one_that_raises_disturbs_no_other_of_its_transaction(file: SqliteFile) -> None:
    undone = file.undone
    with file.transaction():
        add(file, "a")
        with pytest.raises(StorageFailed, match="UNIQUE"):
            add(file, "a")
        with pytest.raises(UnknownQueue), file.writing() as db:
            db.execute("INSERT INTO things (name) VALUES ('b')")
            raise UnknownQueue("q")
        add(file, "c")
    assert names(file) == ["a", "c"]
    assert file.undone > undone


def test_a_transaction_that_raises_has_done_nothing(file: SqliteFile) -> None:
    undone = file.undone
    with pytest.raises(ZeroDivisionError), file.transaction():
        add(file, "a")
        raise ZeroDivisionError
    assert names(file) == []
    assert file.undone > undone
    add(file, "b")
    assert names(file) == ["b"]


def test_transactions_do_not_nest(file: SqliteFile) -> None:
    with pytest.raises(RuntimeError, match="nest"), file.transaction(), file.transaction():
        pass
    add(file, "a")


def test_when_sqlite_gives_up_a_transaction_none_of_it_has_happened(file: SqliteFile) -> None:
    with pytest.raises(StorageFailed), file.transaction():
        add(file, "a")
        with pytest.raises(StorageFailed), file.writing() as db:
            db.execute("INSERT OR ROLLBACK INTO things (name) VALUES ('a')")
        with pytest.raises(StorageFailed, match="same transaction has failed"):
            add(file, "b")
    assert names(file) == []
    add(file, "c")
    assert names(file) == ["c"]


def test_readers_do_not_write(file: SqliteFile) -> None:
    with pytest.raises(StorageFailed, match="readonly"), file.reading() as db:
        db.execute("INSERT INTO things (name) VALUES ('a')")


def test_readers_wait_for_no_writer(file: SqliteFile) -> None:
    add(file, "a")
    seen: list[list[str]] = []
    with file.writing() as db:
        db.execute("INSERT INTO things (name) VALUES ('b')")
        thread = threading.Thread(target=lambda: seen.append(names(file)))
        thread.start()
        thread.join(10)
        assert seen == [["a"]]


def test_one_reader_sees_one_moment(file: SqliteFile) -> None:
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM things").fetchone() == (0,)
        add(file, "a")
        assert db.execute("SELECT count(*) FROM things").fetchone() == (0,)
    assert names(file) == ["a"]


def test_a_closed_file_does_nothing(file: SqliteFile) -> None:
    file.close()
    for use in (lambda: add(file, "a"), lambda: names(file)):
        with pytest.raises(StorageFailed, match="closed"):
            use()
    with pytest.raises(StorageFailed, match="closed"), file.transaction():
        pass
    file.close()


# The medium


@pytest.fixture
def synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was committed, at each moment at which the log was synced."""
    moments = []
    sync = sqlite_file._sync

    def note(fd: int) -> None:
        assert os.path.samestat(os.fstat(fd), path.with_name("broker.db-wal").stat())
        with closing(sqlite3.connect(path)) as db:
            moments.append([name for (name,) in db.execute("SELECT name FROM things ORDER BY name")])
        sync(fd)

    monkeypatch.setattr(sqlite_file, "_sync", note)
    return moments


def test_what_has_to_be_durable_is_synced_after_its_commit(file: SqliteFile, synced: list[list[str]]) -> None:
    add(file, "a")
    assert synced == [["a"]]
    with file.transaction():
        add(file, "b")
        add(file, "c", durable=False)
    assert synced == [["a"], ["a", "b", "c"]]
    with file.writing(durable=False) as db:
        db.execute("INSERT INTO things (name) VALUES ('d')")
        file.make_durable()
    assert synced[2:] == [["a", "b", "c", "d"]]


def test_what_need_not_be_durable_waits_for_no_disk(file: SqliteFile, synced: list[list[str]]) -> None:
    add(file, "a", durable=False)
    with file.transaction():
        add(file, "b", durable=False)
        assert names(file) == ["a", "b"]
    assert names(file) == ["a", "b"]
    assert synced == []


def test_the_log_is_synced_that_is_written_after_a_fork(file: SqliteFile, synced: list[list[str]]) -> None:
    add(file, "a")
    in_a_child_free(file)
    add(file, "b")
    assert synced == [["a"], ["a", "b"]]


def test_the_folder_of_a_new_log_is_synced_once(file: SqliteFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(sqlite_file, "_sync_folder", synced.append)
    add(file, "a", durable=False)
    assert synced == []
    add(file, "b")
    add(file, "c")
    assert synced == [path.resolve()]


def test_a_disk_that_fails_to_sync_is_not_written_to_again(
    file: SqliteFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    assert names(file) == []
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_file, "_sync", fail)
        with pytest.raises(StorageFailed, match="Input/output error"):
            add(file, "a")
    for use in (lambda: add(file, "b"), lambda: names(file)):
        with pytest.raises(StorageFailed, match="start the broker again"):
            use()
    file.close()
    with closing(SqliteFile(path, [FIRST])) as again:
        add(again, "c")


def test_a_transaction_of_readers_takes_no_lock(file: SqliteFile, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with file.transaction():
            assert names(file) == []


def test_somebody_who_writes_meanwhile_makes_it_fail_for_now(file: SqliteFile, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed, match="locked"):
            add(file, "a")
        with pytest.raises(StorageFailed, match="no transaction is active"), file.transaction():
            with pytest.raises(StorageFailed, match="locked"):
                add(file, "a")
            with pytest.raises(StorageFailed, match="the same transaction has failed"):
                add(file, "b")
        shell.execute("ROLLBACK")
    add(file, "b")
    assert names(file) == ["b"]


def test_a_full_store_refuses_and_works_again_when_there_is_room(file: SqliteFile) -> None:
    with file.writing() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 2}")
    add(file, "a")
    with pytest.raises(StorageFailed, match="full"):
        add(file, "b" * 100_000)
    with pytest.raises(StorageFailed), file.transaction():
        add(file, "c")
        with pytest.raises(StorageFailed, match="full"):
            add(file, "d" * 100_000)
    add(file, "e")
    assert names(file) == ["a", "e"]
    with file.writing() as db:
        db.execute("PRAGMA max_page_count = 1000000")
    add(file, "f" * 100_000)


def test_a_deleted_file_does_not_come_back_empty(file: SqliteFile, path: Path) -> None:
    add(file, "a")
    for found in list(path.parent.iterdir()):
        found.unlink()
    assert in_a_child_free(file) == "closed connections"
    with pytest.raises(StorageFailed, match="unable to open"):
        add(file, "b")
    assert not path.exists()


def in_a_child_free(file: SqliteFile) -> str:
    file.before_fork()  # a fork is what closes the connections
    file.after_fork(child=False)
    return "closed connections"
