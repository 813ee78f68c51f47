from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backwater_tornado import memory_sqlite, owners
from backwater_tornado.errors import AlreadySettled, InternalError, InvalidOption, MemoryFull, OutcomeUnknown, Replayed
from backwater_tornado.memory_sqlite import SqliteMemory
from backwater_tornado.protocol.memory import Begin, CallId, CallMemory, MemoryLimits, Recorded
from tests.contracts.test_memory import MemoryContract

NOW = 1_000_000.0
LATER = NOW + 300
STREAM = "s" * 11
CALL = CallId(STREAM, 1)
ANSWER = Recorded(True, 200, "x", b"3")


class TestTheContract(MemoryContract):
    def open(self, tmp_path: Path, started: float, limits: MemoryLimits) -> CallMemory:
        return SqliteMemory(tmp_path / "memory.db", started, limits)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def memory(path: Path) -> Iterator[SqliteMemory]:
    with closing(SqliteMemory(path, NOW)) as memory:
        yield memory


def begin(memory: SqliteMemory, call: CallId = CALL) -> Begin | Recorded:
    return memory.begin("k", call, b"digest", LATER, NOW + 1)


def gate(path: Path) -> Path:
    return path.with_name("memory.db-owners") / "gate"


# Sharing


def test_two_processes_share_what_they_know(path: Path, memory: SqliteMemory) -> None:
    with closing(SqliteMemory(path, NOW + 50)) as other:
        memory.admit("k", f"{STREAM}.1", LATER, NOW)
        with pytest.raises(Replayed):
            other.admit("k", f"{STREAM}.1", LATER, NOW)
        assert begin(other) is Begin.RUN
        assert begin(memory) is Begin.WAIT
        other.finish("k", CALL, ANSWER, NOW)
        assert begin(memory) == ANSWER


def test_a_restart_loses_nothing(path: Path) -> None:
    with closing(SqliteMemory(path, NOW)) as memory:
        memory.admit("k", f"{STREAM}.1", LATER, NOW)
        begin(memory)
        memory.finish("k", CALL, ANSWER, NOW)
    with closing(SqliteMemory(path, NOW + 100)) as memory:
        with pytest.raises(Replayed):
            memory.admit("k", f"{STREAM}.1", LATER, NOW)
        assert begin(memory) == ANSWER
        retried = CallId(STREAM, 2, age=50)
        assert memory.begin("k", retried, b"digest", LATER, NOW + 101) is Begin.RUN
        assert memory.begin("l", retried, b"digest", LATER, NOW + 101) is Begin.RUN


def test_limits_hold_for_all_processes_together(path: Path) -> None:
    limits = MemoryLimits(streams=2, records=2)
    with closing(SqliteMemory(path, NOW, limits)) as one, closing(SqliteMemory(path, NOW, limits)) as other:
        for memory, name in ((one, "a"), (other, "b")):
            memory.admit("k", name, LATER, NOW)
            assert begin(memory, CallId(name, 1)) is Begin.RUN
        for memory in (one, other):
            with pytest.raises(MemoryFull):
                memory.admit("k", "c", LATER, NOW)
            with pytest.raises(MemoryFull):
                begin(memory, CallId("a", 2))


def test_a_call_left_running_by_a_closed_memory_never_runs_again(path: Path, memory: SqliteMemory) -> None:
    with closing(SqliteMemory(path, NOW)) as other:
        assert begin(other) is Begin.RUN
        assert begin(memory) is Begin.WAIT
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="died"):
            begin(memory)
    memory.finish("k", CALL, ANSWER, NOW)  # too late: nobody knows what it did
    with pytest.raises(OutcomeUnknown):
        begin(memory)
    with pytest.raises(AlreadySettled):
        begin(memory, CallId(STREAM, 1, settled=2))


def test_a_lost_call_is_forgotten_like_a_finished_one(path: Path, memory: SqliteMemory) -> None:
    with closing(SqliteMemory(path, NOW, MemoryLimits(records=1))) as other:
        begin(other)
    memory.sweep(LATER + 1)
    with pytest.raises(OutcomeUnknown, match="before the server's memory"):
        memory.begin("k", CallId(STREAM, 1, age=LATER - NOW), b"digest", LATER + 300, LATER + 1)
    with closing(SqliteMemory(path, NOW, MemoryLimits(records=1))) as other:
        assert other.begin("k", CallId(STREAM, 2), b"digest", LATER + 300, LATER + 1) is Begin.RUN


def test_a_running_call_of_another_process_is_not_swept(path: Path, memory: SqliteMemory) -> None:
    with closing(SqliteMemory(path, NOW)) as other:
        begin(other)
        memory.sweep(LATER + 1)
        assert begin(memory) is Begin.WAIT


def test_any_thread_may_use_it(memory: SqliteMemory) -> None:
    seen: list[int] = []

    def admit_all() -> None:
        for number in range(100):
            try:
                memory.admit("k", f"{STREAM}.{number}", LATER, NOW)
                seen.append(number)
            except Replayed:
                pass

    threads = [threading.Thread(target=admit_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(100))


# The file


def test_nobody_else_can_read_the_file(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir() if file.is_file()}
    assert modes == {"memory.db": 0o600, "memory.db-wal": 0o600, "memory.db-shm": 0o600}
    assert gate(path).parent.stat().st_mode & 0o777 == 0o700


def test_nothing_is_synced(memory: SqliteMemory) -> None:
    begin(memory)
    assert memory._connect().execute("PRAGMA synchronous").fetchone() == (0,)
    assert memory._connect().execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("written", ["1 an earlier boot\n", "0 {boot}\n", "", "1 "])
def test_a_file_of_another_boot_or_version_is_started_afresh(path: Path, written: str) -> None:
    with closing(SqliteMemory(path, NOW)) as memory:
        begin(memory)
        memory.finish("k", CALL, ANSWER, NOW)
    gate(path).write_text(written.format(boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip()))
    with closing(SqliteMemory(path, NOW + 100)) as memory:
        with pytest.raises(OutcomeUnknown):
            memory.begin("k", CallId(STREAM, 1, age=2), b"digest", LATER, NOW + 102)
        assert memory.begin("k", CallId(STREAM, 2, age=1), b"digest", LATER, NOW + 102) is Begin.RUN
    with closing(SqliteMemory(path, NOW + 200)) as memory:  # and is kept from then on
        assert memory.begin("k", CallId(STREAM, 3, age=99), b"digest", LATER, NOW + 200) is Begin.RUN


def test_a_file_damaged_by_a_crash_of_the_machine_is_started_afresh(path: Path) -> None:
    with closing(SqliteMemory(path, NOW)) as memory:
        begin(memory)
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes(len(data) - 100))
    path.with_name("memory.db-wal").write_bytes(b"half a page")
    gate(path).write_text("1 an earlier boot\n")
    with closing(SqliteMemory(path, NOW + 100)) as memory:
        assert begin(memory) is Begin.RUN


def test_where_boots_have_no_name_the_file_lives_as_long_as_somebody_has_it_open(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "_BOOT_ID", tmp_path / "none")
    with closing(SqliteMemory(path, NOW)) as memory:
        begin(memory)
        with closing(SqliteMemory(path, NOW + 10)) as other:
            assert begin(other) is Begin.WAIT
    with closing(SqliteMemory(path, NOW + 20)) as memory:
        assert begin(memory) is Begin.RUN


def test_a_file_in_use_by_another_version_is_refused(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    gate(path).write_text("0 older\n")
    with pytest.raises(InvalidOption, match="in use by another version"):
        SqliteMemory(path, NOW)
    assert begin(memory) is Begin.WAIT


def test_a_file_deleted_under_a_running_process_is_not_made_anew_beside_it(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    path.unlink()
    with pytest.raises(InvalidOption, match="was deleted"):
        SqliteMemory(path, NOW)
    assert begin(memory) is Begin.WAIT  # which goes on with what it has open


def test_a_deleted_file_is_refused_when_it_has_to_be_opened_again(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    memory._disconnect()
    path.unlink()
    with pytest.raises(MemoryFull, match="cannot be used"):
        begin(memory)
    assert not path.exists()


def test_a_deleted_file_that_nobody_uses_is_made_anew(path: Path) -> None:
    SqliteMemory(path, NOW).close()
    path.unlink()
    with closing(SqliteMemory(path, NOW)) as memory:
        assert begin(memory) is Begin.RUN


@pytest.mark.parametrize("foreign", ["text", "database"])
def test_a_foreign_file_is_never_touched(path: Path, foreign: str) -> None:
    if foreign == "text":
        path.write_text("dear diary")
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE broker (message)")
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(InvalidOption, match="is not a memory of calls"):
            SqliteMemory(path, NOW)
    assert path.read_bytes() == before
    assert [file.name for file in gate(path).parent.iterdir()] == ["gate"]


def test_an_empty_file_is_taken(path: Path) -> None:
    path.touch()
    SqliteMemory(path, NOW).close()


@pytest.mark.parametrize("where", ["missing/memory.db", "folder", "file/memory.db"])
def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidOption, match=where):
        SqliteMemory(tmp_path / where, NOW)


def test_odd_characters_in_a_path_are_just_characters(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#é%20.db"
    SqliteMemory(str(path), NOW).close()
    assert path.exists()


# Failures


def test_a_closed_memory_refuses(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    memory.close()
    memory.close()
    with pytest.raises(MemoryFull, match="it is closed"):
        memory.admit("k", "n", LATER, NOW)
    with pytest.raises(MemoryFull):
        begin(memory)
    with pytest.raises(InternalError):
        memory.finish("k", CALL, ANSWER, NOW)
    with pytest.raises(InternalError):
        memory.abandon("k", CALL)
    with pytest.raises(InternalError):
        memory.sweep(NOW)


def test_what_cannot_be_remembered_is_refused_and_works_again_later(path: Path) -> None:
    with (
        closing(SqliteMemory(path, NOW, patience=0)) as memory,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MemoryFull, match="locked"):
            memory.admit("k", "n", LATER, NOW)
        with pytest.raises(MemoryFull, match="locked"):
            begin(memory)
        other.execute("ROLLBACK")
        memory.admit("k", "n", LATER, NOW)
        assert begin(memory) is Begin.RUN


def test_a_full_disk_is_a_refusal_and_leaves_nothing_half_done(memory: SqliteMemory) -> None:
    begin(memory)
    db = memory._connect()
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InternalError, match="full"):
        memory.finish("k", CALL, Recorded(True, 200, "x", bytes(1_000_000)), NOW)
    assert begin(memory) is Begin.WAIT
    memory.finish("k", CALL, ANSWER, NOW)
    assert begin(memory) == ANSWER
    assert memory._connect().execute("SELECT answer_bytes FROM keys").fetchone() == (1,)


def test_an_operation_that_cannot_be_committed_is_undone(memory: SqliteMemory) -> None:
    def deny(action: int, what: str | None, *_: object) -> int:
        denied = action == sqlite3.SQLITE_TRANSACTION and what == "COMMIT"
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    memory._connect().set_authorizer(deny)
    with pytest.raises(MemoryFull, match="not authorized"):
        begin(memory)
    assert begin(memory) is Begin.RUN


def test_an_interrupted_operation_is_undone(memory: SqliteMemory) -> None:
    class Interrupt(BaseException):
        pass

    with pytest.raises(Interrupt), memory._transaction(MemoryFull) as db:
        db.execute("INSERT INTO keys (key, reach) VALUES ('k', 1e9)")
        raise Interrupt
    assert begin(memory, CallId(STREAM, 1, age=0.5)) is Begin.RUN


# Forks


def in_a_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_is_an_owner_of_its_own(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    me = memory._owners.me

    def work() -> None:
        assert begin(memory) is Begin.WAIT
        assert begin(memory, CallId(STREAM, 2)) is Begin.RUN
        assert begin(memory, CallId(STREAM, 3)) is Begin.RUN
        memory.finish("k", CallId(STREAM, 3), ANSWER, NOW)
        assert memory._owners.me != me

    assert in_a_child(work) == 0
    assert memory._owners.me == me
    assert begin(memory) is Begin.WAIT
    with pytest.raises(OutcomeUnknown):
        begin(memory, CallId(STREAM, 2))
    assert begin(memory, CallId(STREAM, 3)) == ANSWER


def test_no_connection_crosses_a_fork(memory: SqliteMemory) -> None:
    begin(memory)

    def work() -> None:
        assert memory._db is None
        for descriptor in Path("/proc/self/fd").iterdir():
            if descriptor.exists():
                assert "memory.db" not in str(descriptor.readlink())

    assert in_a_child(work) == 0
    assert begin(memory) is Begin.WAIT


def test_a_child_that_closes_the_memory_takes_nothing_from_its_parent(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    assert in_a_child(memory.close) == 0
    with closing(SqliteMemory(path, NOW)) as other:
        assert begin(other) is Begin.WAIT


def test_what_a_child_does_after_the_fork_can_be_seen_here_too(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    me = memory._owners.me
    parents = os.dup(memory._owners._fd)
    memory_sqlite._before_fork()
    memory_sqlite._after_fork_in_child()
    assert begin(memory) is Begin.WAIT
    assert memory._owners.me not in {"", me}
    os.close(parents)  # the parent dies
    with pytest.raises(OutcomeUnknown):
        begin(memory)
    memory_sqlite._before_fork()
    memory_sqlite._after_fork_in_child()
    gate(path).write_text("1 another boot\n")
    with pytest.raises(MemoryFull, match="started afresh"):
        begin(memory)


def test_a_child_does_not_go_on_with_a_file_that_was_started_afresh(path: Path, memory: SqliteMemory) -> None:
    begin(memory)
    gate(path).write_text("1 another boot\n")

    def work() -> None:
        with pytest.raises(MemoryFull, match="started afresh"):
            begin(memory)

    assert in_a_child(work) == 0


def test_a_fork_waits_for_the_operation_of_another_thread(memory: SqliteMemory) -> None:
    entered, leave = threading.Event(), threading.Event()

    def operate() -> None:
        with memory._transaction(MemoryFull) as db:
            db.execute("INSERT INTO keys (key, reach) VALUES ('other', 5)")
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=operate)
    thread.start()
    assert entered.wait(20)
    timer = threading.Timer(0.05, leave.set)
    timer.start()

    def work() -> None:
        assert leave.is_set()
        assert memory._connect().execute("SELECT reach FROM keys").fetchall() == [(5.0,)]

    assert in_a_child(work) == 0
    thread.join()
    timer.join()


def test_a_fork_within_an_operation_undoes_it(memory: SqliteMemory) -> None:
    # As a signal handler that forks would.
    with pytest.raises(MemoryFull), memory._transaction(MemoryFull) as db:
        db.execute("INSERT INTO keys (key, reach) VALUES ('k', 1e9)")
        assert in_a_child(lambda: None) == 0
    assert begin(memory, CallId(STREAM, 1, age=0.5)) is Begin.RUN


def test_a_closed_memory_does_not_mind_a_fork(path: Path, memory: SqliteMemory) -> None:
    memory.close()
    shutil.rmtree(gate(path).parent)
    assert in_a_child(lambda: None) == 0
