"""`backwater worker` in a process of its own, with a broker in another: what it runs, and how signals end it."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.tasks import asks
from tests.end_to_end.processes import PATIENCE, Serving, run

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRET = b"a secret of the worker's tests"

MODULE = """
import os
import backwater_tornado as backwater

@backwater.expose
def add(x: int, y: int = 0) -> int:
    "The sum."
    return x + y

@backwater.expose(queue="reports")
async def report(day: int) -> int:
    return day

@backwater.expose
def hold(started: str, go: str) -> str:
    open(started, "w").close()
    with open(go) as pipe:
        return pipe.read()

@backwater.expose
def send(x: int) -> str:
    return add.delay(x, 1).id

@backwater.expose
def pid() -> int:
    return os.getpid()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(MODULE)
    (tmp_path / "site.key").write_text(format_key(backwater.Key(SECRET, "site")))
    (tmp_path / "site.key").chmod(0o600)
    return tmp_path


class Site:
    """A broker, and an application that asks it."""

    def __init__(self, folder: Path, broker: Serving) -> None:
        self.folder, self.broker = folder, broker
        self.app = backwater.App(broker.url(), backwater.Key(SECRET, "site"), default=False, proxy="")

    def worker(self, *words: str) -> Serving:
        named = ("--broker", self.broker.url(), "--secret-file", "site.key")
        return Serving(self.folder, *(words or ("tasks",)), *named, command="worker", listens=False)

    def send(self, task: str, *args: object, **options: object) -> backwater.AsyncResult[object]:
        return self.app.send_task(f"tasks.{task}", args, **options)

    def hold(self) -> tuple[backwater.AsyncResult[object], Path]:
        """A task in the middle of its run; it ends when somebody writes into the pipe."""
        started, go = self.folder / "started", self.folder / "go"
        for each in (started, go):
            os.mkfifo(each)
        result = self.send("hold", str(started), str(go))
        started.read_text()
        return result, go


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Serving(folder, "--store", "memory://", "--secret-file", "site.key", command="broker") as broker:
        site = Site(folder, broker)
        yield site
        site.app.close()


@pytest.mark.parametrize("pool", ["threads", "processes", "async"])
def test_it_runs_what_is_sent_in_every_pool(site: Site, pool: str) -> None:
    with site.worker("tasks", "--pool", pool, "--concurrency", "2") as worker:
        results = [site.send("add", number, 1) for number in range(20)]
        assert [each.get(PATIENCE) for each in results] == list(range(1, 21))
        assert site.send("report", 7, queue="reports").get(PATIENCE) == 7
        own = site.send("pid").get(PATIENCE)
        assert (own == worker.process.pid) is (pool != "processes")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0


def test_it_says_what_it_serves(site: Site) -> None:
    with site.worker("-A", "tasks", "--concurrency", "3", "--prefetch", "5") as worker:
        worker.wait_for("working on the queues default, reports")
        for said in ("tasks.add(x: int, y: int = 0) -> int", "async tasks.report", "threads, 3 at a time", "key: site"):
            assert said in worker.said


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_a_task_may_send_others(site: Site, pool: str) -> None:
    with site.worker("tasks", "--pool", pool):
        sender = site.send("send", 1)
        sent = sender.get(PATIENCE)
        assert site.app.result(str(sent)).get(PATIENCE) == 2
        assert [child.id for child in sender.children] == [sent]


def test_what_runs_may_end_after_sigterm(site: Site) -> None:
    with site.worker() as worker:
        result, go = site.hold()
        worker.signal(signal.SIGTERM)
        worker.wait_for("stopping")
        go.write_text("done")
        assert worker.ended() == 0
        assert result.get(PATIENCE) == "done"


def test_a_second_signal_gives_back_what_runs(site: Site) -> None:
    with site.worker("tasks", "--pool", "processes") as worker:
        result, _ = site.hold()
        for _ in range(2):
            worker.signal(signal.SIGINT)
            worker.wait_for("stopping")
        assert worker.ended() == 1
        assert result.state == "PENDING"
        (stats,) = site.app.ask(asks.stats(["default"]))
        assert (stats.ready, stats.leased) == (1, 0)


def test_a_worker_that_is_killed_has_its_task_run_by_another(site: Site) -> None:
    with site.worker() as worker:
        result, go = site.hold()
        worker.process.kill()
        worker.ended()
    (receiver,) = site.app.ask(asks.sessions())
    assert json.loads(receiver.about)["pid"] == worker.process.pid
    site.app.ask(asks.close_session(receiver.session))  # before its time
    with site.worker():
        (site.folder / "started").read_text()
        go.write_text("again")
        assert result.get(PATIENCE) == "again"


def test_probes_are_told_how_it_is(site: Site) -> None:
    port = _free_port()
    with site.worker("tasks", "--health-port", str(port), "--health-file", "health.json") as worker:
        site.send("add", 1).get(PATIENCE)
        url = f"http://127.0.0.1:{port}/healthz"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
            assert json.load(answer)["status"] == "ok"
        assert json.loads((site.folder / "health.json").read_text())["status"] == "ok"
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert not (site.folder / "health.json").exists()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_worker_rides_through_the_end_of_its_broker(folder: Path) -> None:
    words = ("--store", "sqlite:broker.db", "--secret-file", "site.key")
    with Serving(folder, *words, command="broker") as broker:
        url = broker.url()
        site = Site(folder, broker)
        with site.worker("tasks", "--max-attempts", "1") as worker:
            assert site.send("add", 1).get(PATIENCE) == 1
            broker.process.kill()
            broker.ended()
            worker.wait_for("cannot be asked")
            port = url.rpartition(":")[2]
            with Serving(folder, *words, "--port", port, "--address", "127.0.0.1", command="broker", listens=False):
                worker.wait_for("is back")
                assert site.send("add", 2).get(PATIENCE) == 2
                site.app.close()


def test_its_log_may_be_json(site: Site) -> None:
    with site.worker("tasks", "--json-logs") as worker:
        result = site.send("add", 1)
        result.get(PATIENCE)
        told = json.loads(worker.wait_for("succeeded"))
        assert (told["task"], told["task_id"], told["level"]) == ("tasks.add", result.id, "info")


def test_it_starts_anew_when_its_source_changes(site: Site) -> None:
    with site.worker("tasks", "--reload") as worker:
        assert site.send("add", 1, 2).get(PATIENCE) == 3
        (site.folder / "tasks.py").write_text(MODULE.replace("x + y", "x * y"))
        worker.wait_for("working on", 2)
        assert site.send("add", 3, 3).get(PATIENCE) == 9


def test_workers_and_what_they_do_are_seen_from_elsewhere(site: Site) -> None:
    def inspect(what: str) -> tuple[int, Any]:
        done = run(site.folder, "inspect", what, "--json", "--broker", site.broker.url(), "--secret-file", "site.key")
        return done.returncode, json.loads(done.stdout)

    assert inspect("ping") == (1, [])
    with site.worker("tasks", "--concurrency", "1", "--log-level", "debug") as worker:
        held, go = site.hold()
        waiting = [site.send("add", 1), site.send("add", 2)]
        site.send("add", 3, countdown=1000.0)
        worker.wait_for("begins")
        code, (row,) = inspect("ping")
        assert (code, row["pid"]) == (0, worker.process.pid)
        while not (active := inspect("active")[1]):
            pass  # it is shown every few seconds
        assert [(each["task"], each["id"]) for each in active] == [("tasks.hold", held.id)]
        assert [each["id"] for each in inspect("reserved")[1]] == [each.id for each in waiting]
        assert inspect("scheduled")[1] == [{"queue": "default", "delayed": 1}]
        (stats,) = inspect("stats")[1]
        assert (stats["slots"], stats["running"], stats["held"], stats["received"]) == (1, 1, 3, 3)
        go.write_text("done")
        assert held.get(PATIENCE) == "done"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tasks"], "no broker was named"),
        (["tasks", "--broker", "http://127.0.0.1:1", "--secret-file", "site.key", "--pool", "fibres"], "fibres"),
        (["nothing", "--broker", "http://127.0.0.1:1", "--secret-file", "site.key"], "no module 'nothing'"),
        (["--broker", "http://127.0.0.1:1", "--secret-file", "site.key"], "name a MODULE"),
    ],
)
def test_what_is_wrong_is_said_at_once(folder: Path, words: list[str], said: str) -> None:
    done = run(folder, "worker", *words)
    assert done.returncode == 2
    assert said in done.stderr
