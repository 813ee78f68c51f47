"""The memory in a file, under real processes that are killed at any moment."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backwater_tornado.errors import OutcomeUnknown, Replayed
from backwater_tornado.memory_sqlite import SqliteMemory
from backwater_tornado.protocol.memory import Begin, CallId, Recorded

NOW = 1_000_000.0
LATER = NOW + 300
STREAM = "s" * 11
PROJECT = Path(__file__).parents[2]

Start = Callable[[str], subprocess.Popen[str]]

PRELUDE = f"""
import os, sys
from backwater_tornado.errors import *
from backwater_tornado.memory_sqlite import SqliteMemory
from backwater_tornado.protocol.memory import *
path, NOW, LATER, STREAM = sys.argv[1], {NOW}, {LATER}, {STREAM!r}
def say(text):
    os.write(1, f"{{text}}\\n".encode())
"""

#: Runs one call and does not come to its end.
HOLDS = """
memory = SqliteMemory(path, NOW)
say(memory.begin("k", CallId(STREAM, 1), b"", LATER, NOW).name)
sys.stdin.read()
"""

#: The same, and leaves a child behind that lives on.
HOLDS_AND_FORKS = """
memory = SqliteMemory(path, NOW)
say(memory.begin("k", CallId(STREAM, 1), b"", LATER, NOW).name)
if os.fork() == 0:
    say(os.getpid())
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
"""

#: Works through calls that others work through too; what runs is told before it is on record as finished.
WORKS = """
memory = SqliteMemory(path, NOW)
say("ready")
sys.stdin.readline()
for number in range(400):
    try:
        memory.admit("k", f"{STREAM}.{number}", LATER, NOW)
        say(f"admitted {number}")
    except Replayed:
        pass
    call = CallId(STREAM, number, settled=max(0, number - 300))
    try:
        if memory.begin("k", call, b"", LATER, NOW) is Begin.RUN:
            say(f"ran {number}")
            memory.finish("k", call, Recorded(True, 200, "x", b"%d" % number * 50), NOW)
            say(f"finished {number}")
    except (OutcomeUnknown, AlreadySettled) as exc:
        say(f"{type(exc).__name__} {number}")
    if number % 50 == 0:
        memory.sweep(NOW)
say("done")
sys.stdin.read()
"""

#: Opens the memory at the same moment as the others.
OPENS = """
say("ready")
sys.stdin.readline()
memory = SqliteMemory(path, NOW)
say(memory.begin("k", CallId(STREAM, 1), b"", LATER, NOW).name)
sys.stdin.read()
"""


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def lines(process: subprocess.Popen[str], count: int | None = None) -> list[str]:
    """So many lines, or all until it says that it is done."""
    said: list[str] = []
    while len(said) != count and (told := line(process)) != "done":
        said.append(told)
    return said


def let_go(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert line(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def kill(process: subprocess.Popen[str]) -> str:
    """Kill it, and what it said before."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    return process.stdout.read()


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Starts a program on the memory; kills it in the end if the test has not."""
    started: list[subprocess.Popen[str]] = []

    def start_one(program: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + program, str(path)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        with process:
            pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def memory(path: Path) -> Iterator[SqliteMemory]:
    with closing(SqliteMemory(path, NOW)) as memory:
        yield memory


def begin(memory: SqliteMemory) -> Begin | Recorded:
    return memory.begin("k", CallId(STREAM, 1), b"", LATER, NOW)


def test_a_call_whose_process_was_killed_never_runs_again(start: Start, memory: SqliteMemory) -> None:
    process = start(HOLDS)
    assert line(process) == "RUN"
    assert begin(memory) is Begin.WAIT
    kill(process)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            begin(memory)


def test_the_memory_outlives_the_death_of_everybody(start: Start, path: Path) -> None:
    process = start(HOLDS)
    assert line(process) == "RUN"
    kill(process)
    with closing(SqliteMemory(path, NOW + 10)) as memory, pytest.raises(OutcomeUnknown):
        begin(memory)


def test_a_child_of_a_killed_process_does_not_keep_its_calls_alive(start: Start, memory: SqliteMemory) -> None:
    process = start(HOLDS_AND_FORKS)
    assert line(process) == "RUN"
    child = int(line(process))
    try:
        assert begin(memory) is Begin.WAIT
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(OutcomeUnknown):
            begin(memory)
        os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_stopped_process_is_not_a_dead_one(start: Start, memory: SqliteMemory) -> None:
    process = start(HOLDS)
    assert line(process) == "RUN"
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert begin(memory) is Begin.WAIT


@pytest.mark.slow
@pytest.mark.parametrize("gate", [None, "1 another boot\n"])
def test_of_many_that_open_a_new_memory_at_once_one_runs_the_call(start: Start, path: Path, gate: str | None) -> None:
    if gate is not None:
        SqliteMemory(path, NOW).close()
        (path.with_name("memory.db-owners") / "gate").write_text(gate)
    processes = [start(OPENS) for _ in range(5)]
    let_go(processes)
    assert sorted(line(process) for process in processes) == ["RUN", "WAIT", "WAIT", "WAIT", "WAIT"]


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0, 5, 60, 300])
def test_nothing_runs_twice_however_processes_are_killed(start: Start, path: Path, patience: int) -> None:
    # Given four processes that work through the same calls
    processes = [start(WORKS) for _ in range(4)]
    let_go(processes)
    # When two of them are killed in the midst of it
    said = []
    for process in processes[:2]:
        said += lines(process, patience)
        said += kill(process).splitlines()
    for process in processes[2:]:
        said += lines(process)
    # Then each call ran once at most, and those of the killed are known to be unknown
    counted = Counter(said)
    for number in range(400):
        assert counted[f"ran {number}"] <= 1
        assert counted[f"admitted {number}"] <= 1
    with closing(SqliteMemory(path, NOW)) as memory:
        for number in range(400):
            with pytest.raises(Replayed):
                memory.admit("k", f"{STREAM}.{number}", LATER, NOW)
            if number < 100:
                continue  # settled on the way
            try:
                answer = memory.begin("k", CallId(STREAM, number), b"", LATER, NOW)
            except OutcomeUnknown:
                assert counted[f"finished {number}"] == 0
            else:
                assert answer == Recorded(True, 200, "x", b"%d" % number * 50)
                assert counted[f"ran {number}"] == 1
        begin_more = memory.begin("k", CallId(STREAM, 400, settled=400), b"", LATER, NOW)
        assert begin_more is Begin.RUN
    # And the books are right
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        books = db.execute("SELECT records, answer_bytes, streams, windows FROM keys").fetchone()
        assert books[:2] == db.execute("SELECT count(*), total(size) FROM calls").fetchone()
        assert books[2:] == (1, 1)
