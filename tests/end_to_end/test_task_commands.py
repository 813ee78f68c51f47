"""The commands that send tasks and ask for their results, as real processes, against a broker in this one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import backwater_tornado as backwater
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.testing import RunningBroker, running_broker
from tests.end_to_end.processes import run

# Real processes: once, on the source tree.
pytestmark = pytest.mark.slow

KEY = backwater.Key(b"a secret of who sends tasks", "sender")


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running_broker(secret=KEY) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, broker: RunningBroker) -> Path:
    (tmp_path / "backwater.toml").write_text(f'broker = "{broker.url}"\nsecret_file = "site.key"\nproxy = ""\n')
    (tmp_path / "site.key").write_text(format_key(KEY))
    (tmp_path / "site.key").chmod(0o600)
    return tmp_path


def test_waiting_for_a_result_that_does_not_come_names_the_option_for_more_time(folder: Path) -> None:
    done = run(folder, "result", "one", "other", "--for", "0.01")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.splitlines() == [
        f"backwater: {each}: the task has not ended in time; give it more time with --for" for each in ("one", "other")
    ]
    told = run(folder, "result", "one", "--for", "0", "--json")
    assert told.returncode == 5
    assert json.loads(told.stderr)["error"]["code"] == "deadline_exceeded"


def test_for_a_task_that_nobody_begins_it_is_said_where_to_look(folder: Path) -> None:
    done = run(folder, "result", "one", "--for", "3.1")
    assert done.returncode == 5
    hint, ended = done.stderr.splitlines()
    assert "still waiting for one; `backwater queues` tells whether a worker is there" in hint
    assert ended.endswith("give it more time with --for")


def test_a_broker_that_is_silent_is_given_up_after_the_timeout(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = run(folder, "send", "tasks.add", "1", "2", "--broker", url, "--timeout", "0.2")
    assert done.returncode == 5
    assert done.stderr.endswith("give it more time with --timeout\n")


def test_what_means_nothing_to_a_broker_is_no_option(folder: Path) -> None:
    for words in (["send", "tasks.add"], ["result", "one"], ["queues"]):
        done = run(folder, *words, "--wire", "erlang")
        assert done.returncode == 2
        assert "--wire" in done.stderr
