"""The commands for whoever runs a broker, as processes against one that serves."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Batch, Message, Poll, Publication, Queue, Settlement, Verdict
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.testing import RunningBroker, running_broker
from tests.end_to_end.processes import COMMAND, PATIENCE, environment, run

# Real processes: once, on the source tree.
pytestmark = pytest.mark.slow

ALL = backwater.Key(b"a secret of who may do all", "all")
BOUND = backwater.Key(b"a secret of who may do less", "bound", scopes=backwater.Scopes(consume=("jobs",)))


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with running_broker(secret=backwater.KeyRing([ALL, BOUND])) as running:
        with backwater.Client(running.url, ALL, proxy="") as caller:
            caller.call("broker", "declare", [], [Queue("jobs"), Queue("idle")], [])
        yield running


@pytest.fixture
def folder(tmp_path: Path, broker: RunningBroker) -> Path:
    (tmp_path / "backwater.toml").write_text(f'broker = "{broker.url}"\nsecret_file = "site.key"\nproxy = ""\n')
    for name, key in (("site.key", ALL), ("bound.key", BOUND)):
        (tmp_path / name).write_text(format_key(key))
        (tmp_path / name).chmod(0o600)
    return tmp_path


def fill(broker: RunningBroker, *names: str, dead: int = 0) -> None:
    """Publish messages; put the first of them aside."""
    with backwater.Client(broker.url, ALL, proxy="") as caller:
        caller.call("broker", "publish", [Publication(Message(each, b"body of it"), "jobs") for each in names])
        if dead:
            caller.call("broker", "open_session", "w")
            asked = caller.with_options(returns=Batch)
            batch = asked.call("broker", "receive", "w", Poll((("jobs", dead),), dead))
            ends = [Settlement(each.token, Verdict.REJECT, reason="no good") for each in batch.deliveries]
            caller.call("broker", "settle", "w", ends)


def backwater_(folder: Path, *words: str) -> tuple[int, str, str]:
    done = run(folder, *words)
    return done.returncode, done.stdout, done.stderr


def told(folder: Path, *words: str) -> Any:
    """What a command says as JSON."""
    code, out, err = backwater_(folder, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def on_terminal(folder: Path, *words: str, typed: str = "") -> tuple[int, str]:
    """The exit code, and all that it says on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env=environment(TERM="xterm", COLUMNS="160"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    printed = b""
    try:
        while data := os.read(ours, 65536):
            printed += data
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    return process.wait(PATIENCE), printed.decode()


def test_queues_are_listed_with_their_numbers(folder: Path, broker: RunningBroker) -> None:
    fill(broker, "a", "b", "c", dead=1)
    code, out, err = backwater_(folder, "queues")
    assert (code, err) == (0, "")
    header, idle, jobs = (line.split() for line in out.splitlines())
    assert header[:6] == ["queue", "ready", "delayed", "leased", "dead", "oldest"]
    assert idle[:5] == ["idle", "0", "0", "0", "0"]
    assert jobs[:5] == ["jobs", "2", "0", "0", "1"]
    (row,) = told(folder, "queues", "jobs")
    assert (row["ready"], row["dead"], row["sessions"], row["paused"]) == (2, 1, 1, False)
    assert row["in/s"] > 0
    code, printed = on_terminal(folder, "queues")
    assert code == 0
    assert "\x1b[1mjobs" in printed


def test_an_unknown_queue_is_said_to_be_unknown(folder: Path) -> None:
    for words in (["queues", "jobs", "none"], ["purge", "none"], ["pause", "none"], ["resume", "none"]):
        assert backwater_(folder, *words) == (4, "", "backwater: there is no queue 'none'\n")


def test_a_queue_is_paused_and_resumed(folder: Path, broker: RunningBroker) -> None:
    assert backwater_(folder, "pause", "jobs", "idle") == (0, "", "")
    assert [row["paused"] for row in told(folder, "queues")] == [True, True]
    assert backwater_(folder, "resume", "jobs") == (0, "", "")
    assert [row["paused"] for row in told(folder, "queues")] == [True, False]


def test_a_queue_is_purged(folder: Path, broker: RunningBroker) -> None:
    fill(broker, "a", "b")
    assert backwater_(folder, "purge", "jobs") == (0, "purged: 2\n", "")
    assert told(folder, "purge", "jobs") == {"purged": 0}


def test_on_a_terminal_it_is_asked_before_anything_is_purged(folder: Path, broker: RunningBroker) -> None:
    fill(broker, "a", "b")
    code, printed = on_terminal(folder, "purge", "jobs", typed="n\n")
    assert (code, "Drop 2 messages of jobs?" in printed) == (130, True)
    assert told(folder, "queues", "jobs")[0]["ready"] == 2
    code, printed = on_terminal(folder, "purge", "jobs", "--yes")
    assert (code, "purged: 2" in printed, "?" in printed) == (0, True, False)


def test_the_dead_are_listed_and_shown(folder: Path, broker: RunningBroker) -> None:
    fill(broker, "a", "b", "c", dead=2)
    rows = told(folder, "dead", "list")
    assert [(row["id"], row["reason"], row["detail"]) for row in rows] == [
        ("a", "rejected", "no good"),
        ("b", "rejected", "no good"),
    ]
    assert len(told(folder, "dead", "list", "--limit", "1")) == 1
    assert told(folder, "dead", "list", "--reason", "expired") == []
    assert told(folder, "dead", "list", "--queue", "idle") == []
    shown = told(folder, "dead", "show", str(rows[1]["number"]))
    assert (shown["id"], shown["body"]) == ("b", "body of it")
    code, out, err = backwater_(folder, "dead", "show", "999")
    assert (code, out, err) == (2, "", "backwater: there is no dead letter 999\n")


def test_the_dead_are_replayed_and_dropped(folder: Path, broker: RunningBroker) -> None:
    fill(broker, "a", "b", "c", "d", dead=3)
    first = told(folder, "dead", "list")[0]["number"]
    assert backwater_(folder, "dead", "replay", "--all", "-n") == (0, "would be replayed: 3\n", "")
    assert told(folder, "dead", "replay", str(first), "999") == {"replayed": 1}
    assert told(folder, "dead", "drop", "--reason", "expired") == {"dropped": 0}
    assert told(folder, "dead", "drop", "--queue", "jobs", "-n") == {"would_be_dropped": 2}
    assert backwater_(folder, "dead", "drop", "--queue", "jobs") == (0, "dropped: 2\n", "")
    assert told(folder, "queues", "jobs")[0]["ready"] == 2


@pytest.mark.timeout(120)
def test_many_are_treated_page_by_page_with_a_bar_on_a_terminal(folder: Path, broker: RunningBroker) -> None:
    for start in range(0, 2500, 500):
        fill(broker, *(str(number) for number in range(start, start + 500)), dead=500)
    code, printed = on_terminal(folder, "dead", "replay", "--all")
    assert code == 0
    assert "100%" in printed
    assert "replayed: 2500" in printed
    assert told(folder, "queues", "jobs")[0]["ready"] == 2500


@pytest.mark.parametrize("words", [["dead", "replay"], ["dead", "drop"], ["dead", "drop", "1", "--all"]])
def test_what_is_to_be_treated_has_to_be_chosen_in_one_way(folder: Path, words: list[str]) -> None:
    code, out, err = backwater_(folder, *words)
    assert (code, out) == (2, "")
    assert "by their NUMBER or choose them with --queue, --reason or --all" in err


def test_a_key_that_is_bound_to_a_queue_may_do_to_it_what_it_may(folder: Path, broker: RunningBroker) -> None:
    fill(broker, "a", "b", dead=1)
    bound = ("--secret-file", "bound.key")
    assert told(folder, "dead", "replay", "--queue", "jobs", *bound) == {"replayed": 1}
    assert told(folder, "purge", "jobs", *bound) == {"purged": 2}
    for words in (["dead", "list"], ["pause", "idle"], ["purge", "idle"]):
        code, out, err = backwater_(folder, *words, *bound)
        assert (code, out) == (4, "")
        assert "the key may not receive from" in err


def test_without_a_broker_it_is_said_how_to_name_one(tmp_path: Path) -> None:
    code, out, err = backwater_(tmp_path, "queues")
    assert (code, out) == (2, "")
    assert "give --broker URL" in err


@pytest.mark.parametrize(
    "command",
    [["queues"], ["purge"], ["pause"], ["resume"], ["dead"], ["dead", "list"], ["dead", "show"], ["dead", "replay"]],
)
def test_every_command_has_help_with_an_example(tmp_path: Path, command: list[str]) -> None:
    code, out, _ = backwater_(tmp_path, *command, "--help")
    assert code == 0
    assert f"    backwater {' '.join(command)}" in out
