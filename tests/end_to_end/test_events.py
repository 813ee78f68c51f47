"""`backwater events` beside a broker and a worker, each in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.protocol.keys import format_key
from tests.end_to_end.processes import COMMAND, PATIENCE, Serving, environment, run

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRET = b"a secret of the events' tests"

MODULE = """
import backwater_tornado as backwater

@backwater.expose
def add(x: int, y: int) -> int:
    return x + y

@backwater.expose
def fail() -> None:
    raise ValueError("as told")

@backwater.expose(autoretry_for=(KeyError,), max_retries=1, retry_backoff=0.01, retry_jitter=False)
def again() -> None:
    raise KeyError("not yet")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "site.key").write_text(format_key(backwater.Key(SECRET, "site")))
    (tmp_path / "site.key").chmod(0o600)
    return tmp_path


class Tail:
    """The command, and what it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_for(self, text: str) -> None:
        """Until a line of its standard error has it; it ends with this test's time."""
        assert self.process.stderr is not None
        assert any(text in line for line in self.process.stderr)

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline() for _ in range(count)]

    def events(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(count)]


@contextmanager
def tailing(folder: Path, url: str, *words: str) -> Iterator[Tail]:
    process = subprocess.Popen(
        [*COMMAND, "events", "--broker", url, "--secret-file", "site.key", *words],
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            tail = Tail(process)
            tail.wait_for("listening")
            yield tail
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        finally:
            process.kill()


def working(folder: Path, url: str, *words: str) -> Serving:
    named = ("shop", "--broker", url, "--secret-file", "site.key", "--concurrency", "1", *words)
    return Serving(folder, *named, command="worker", listens=False)


def test_what_happens_to_tasks_is_printed_in_its_order(folder: Path) -> None:
    with Serving(folder, "--store", "memory://", "--secret-file", "site.key", command="broker") as broker:
        url = broker.url()
        app = backwater.App(url, backwater.Key(SECRET, "site"), default=False, proxy="")
        with tailing(folder, url, "--json") as everything, tailing(folder, url, "--task", "shop.f*") as failures:
            with working(folder, url, "--events") as worker:
                added = app.send_task("shop.add", [1, 2])
                assert added.get(PATIENCE) == 3
                failing = app.send_task("shop.fail", [])
                worker.wait_for("failed")
                again = app.send_task("shop.again", [])
                worker.wait_for("failed", 2)
                worker.signal(signal.SIGTERM)
                assert worker.ended() == 0
            found = everything.events(14)
            assert [(each.get("id", ""), each["event"]) for each in found] == [
                ("", "online"),
                *((added.id, event) for event in ("received", "started", "succeeded")),
                *((failing.id, event) for event in ("received", "started", "failed")),
                *((again.id, event) for event in ("received", "started", "retried")),
                *((again.id, event) for event in ("received", "started", "failed")),
                ("", "offline"),
            ]
            assert found[3]["task"] == "shop.add"
            assert found[3]["seconds"] >= 0
            assert found[6]["error"] == "ValueError: as told"
            received, started, failed = failures.lines(3)
            assert f"received shop.fail[{failing.id}]" in received
            assert f"started shop.fail[{failing.id}]" in started
            assert failed.endswith(" s ValueError: as told\n")
        app.close()


def test_only_those_that_are_named_are_printed(folder: Path) -> None:
    with Serving(folder, "--store", "memory://", "--secret-file", "site.key", command="broker") as broker:
        url = broker.url()
        with (
            tailing(folder, url, "--json", "--event", "succeeded", "--event", "offline") as tail,
            working(folder, url, "--events") as worker,
            backwater.App(url, backwater.Key(SECRET, "site"), default=False, proxy="") as app,
        ):
            app.send_task("shop.add", [1, 2]).get(PATIENCE)
            worker.signal(signal.SIGTERM)
            assert worker.ended() == 0
            assert [each["event"] for each in tail.events(2)] == ["succeeded", "offline"]


def test_it_goes_on_when_the_broker_is_back(folder: Path) -> None:
    words = ("--store", "sqlite:broker.db", "--secret-file", "site.key")
    with Serving(folder, *words, command="broker") as broker:
        url = broker.url()
        with tailing(folder, url, "--json", "--event", "succeeded", "--max-attempts", "1") as tail:
            broker.process.kill()
            broker.ended()
            tail.wait_for("cannot be asked")
            port = url.rpartition(":")[2]
            with Serving(folder, *words, "--port", port, "--address", "127.0.0.1", command="broker", listens=False):
                tail.wait_for("listening")
                with (
                    working(folder, url, "--events"),
                    backwater.App(url, backwater.Key(SECRET, "site"), default=False, proxy="") as app,
                ):
                    sent = app.send_task("shop.add", [1, 2])
                    (event,) = tail.events(1)
                    assert event["id"] == sent.id


def test_where_there_is_no_broker_it_says_so(folder: Path) -> None:
    done = run(folder, "events", "--broker", "http://127.0.0.1:1", "--secret-file", "site.key", "--max-attempts", "1")
    assert done.returncode == 3
    assert "connect" in done.stderr
