"""What users test with: brokers whose clock a test moves, and workers that begin and end within a test."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Poll
from backwater_tornado.tasks import asks
from backwater_tornado.testing import Clock, running_broker, running_worker
from backwater_tornado.worker.hooks import Hooks


def test_a_broker_with_a_clock_of_the_tests_own_sees_what_is_due_at_once() -> None:
    with running_broker(clock=Clock()) as broker:
        app = backwater.App(broker.url, broker.secret, default=False)
        sent = app.send_task("tasks.add", countdown=60)
        app.ask(asks.open_session("w", 1000.0))
        want = asks.receive("w", Poll((("default", 1),), 1), 0.0)
        assert app.ask(want).deliveries == ()
        broker.advance(59)
        assert app.ask(want).deliveries == ()
        broker.advance(1)
        assert [each.message.id for each in app.ask(want).deliveries] == [sent.id]


def test_only_a_clock_can_be_moved() -> None:
    with running_broker() as broker, pytest.raises(backwater.InvalidOption, match="only a Clock"):
        broker.advance(1)


class Functions:
    def add(self, x: int, y: int) -> int:
        return x + y

    def hold(self, started: str, go: str) -> None:
        Path(started).open("w").close()
        Path(go).open().close()


def test_a_worker_runs_the_tasks_of_a_broker_and_gives_back_what_runs_in_the_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    os.mkfifo(tmp_path / "go")
    functions = backwater.Exposed(t=Functions())
    with running_broker() as broker:
        app = backwater.App(broker.url, broker.secret, default=False)
        with running_worker(broker, functions) as worker:
            assert app.send_task("t.add", [1, 2]).get(timeout=20) == 3
            held = app.send_task("t.hold", [str(tmp_path / "started"), str(tmp_path / "go")])
            (tmp_path / "started").open().close()  # it runs
            assert worker.run(lambda: len(worker.worker.desk.pools)) == 1
        assert not held.ready()
        (tmp_path / "go").open("w").close()  # the thread that it left behind ends


def test_a_worker_that_is_stopped_lets_end_what_runs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    os.mkfifo(tmp_path / "go")
    with running_broker() as broker, running_worker(broker, backwater.Exposed(t=Functions())) as worker:
        app = backwater.App(broker.url, broker.secret, default=False)
        held = app.send_task("t.hold", [str(tmp_path / "started"), str(tmp_path / "go")])
        (tmp_path / "started").open().close()
        threading.Timer(0.0, lambda: (tmp_path / "go").open("w").close()).start()
        assert worker.stop(20.0)
        assert held.ready()
        assert worker.stop()  # again


def test_a_worker_takes_the_queues_that_it_is_told_and_tells_its_hooks() -> None:
    hooks, began = Hooks(), []
    hooks.on("before_task")(lambda job: began.append(job.queue))
    with running_broker() as broker, running_worker(broker, [math], queues=["other"], hooks=hooks, concurrency=1):
        app = backwater.App(broker.url, broker.secret, default=False)
        left = app.send_task("math.factorial", [3])
        assert app.send_task("math.factorial", [4], queue="other").get(timeout=20) == 24
        assert left.state is backwater.State.PENDING
    assert began == ["other"]


@pytest.mark.slow
def test_a_worker_may_have_processes() -> None:
    with running_broker() as broker, running_worker(broker, [os, math], pool="processes", concurrency=1):
        app = backwater.App(broker.url, broker.secret, default=False)
        assert app.send_task("os.getpid").get(timeout=30) != os.getpid()


def test_a_pool_that_there_is_not_is_refused() -> None:
    refused = pytest.raises(backwater.InvalidOption, match="pool is one of threads")
    with running_broker() as broker, refused, running_worker(broker, [math], pool="green"):
        pass
