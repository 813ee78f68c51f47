"""A worker that is killed while its link is cut: what it has done is not done again, and its results are there."""

from __future__ import annotations

import fcntl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Batch, Poll, QueueStats, Receiver, Settlement, SettleState
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.outcomes import succeeded
from backwater_tornado.tasks.signatures import signature
from backwater_tornado.testing import DROP, PASS, BadNetwork, Fault, RunningBroker, Seen, running_broker
from backwater_tornado.worker.spool import read_status, read_superseded
from tests.end_to_end.processes import Serving, run

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEY = backwater.Key(b"the secret of a worker with a spool", "site")
TASKS = 12
PATIENCE = 30.0
MODULE = """
import fcntl, os
import backwater_tornado as backwater

BEGUN = os.open("begun", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@backwater.expose
def note(number: int, size: int = 0) -> tuple[int, str]:
    os.write(BEGUN, b"%d\\n" % number)
    with open("gate") as gate:  # which the test holds shut
        fcntl.flock(gate, fcntl.LOCK_SH)
    return number, "x" * size
"""


class Link:
    """A policy: everything gets through, or nothing at all and nobody is told."""

    def __init__(self) -> None:
        self.is_dead = False

    def __call__(self, seen: Seen) -> Fault:
        return DROP if self.is_dead else PASS


def until(true: Callable[[], bool]) -> None:
    """Wait until it holds; nobody tells of it."""
    pause, end = threading.Event(), time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        pause.wait(0.02)


class Site:
    """A worker behind a proxy, and what is known of its tasks."""

    def __init__(self, folder: Path, broker: RunningBroker, stack: ExitStack) -> None:
        self.folder, self.spool, self._stack = folder, folder / "spool.db", stack
        (folder / "tasks.py").write_text(MODULE)
        (folder / "site.key").write_text(format_key(KEY))
        (folder / "site.key").chmod(0o600)
        self.link = Link()
        self.proxy = stack.enter_context(BadNetwork("127.0.0.1", broker.port, self.link))
        self.app = stack.enter_context(backwater.App(broker.url, KEY, default=False, proxy=""))
        self.gate = stack.enter_context((folder / "gate").open("w"))
        fcntl.flock(self.gate, fcntl.LOCK_EX)

    def start_worker(self) -> Serving:
        words = ("tasks", "--broker", f"http://127.0.0.1:{self.proxy.port}", "--secret-file", "site.key")
        more = ("--spool", "spool.db", "--concurrency", "4", "--prefetch", str(TASKS), "--log-level", "debug")
        return self._stack.enter_context(Serving(self.folder, *words, *more, command="worker", listens=False))

    def begun(self) -> Counter[int]:
        return Counter(map(int, (self.folder / "begun").read_text().split()))

    def ready(self) -> int:
        stats: list[QueueStats] = self.app.ask(asks.stats(["default"]))
        return stats[0].ready

    def expire_sessions(self) -> None:
        """The broker has not heard of the worker for too long."""
        receivers: list[Receiver] = self.app.ask(asks.sessions())
        for each in receivers:
            self.app.ask(asks.close_session(each.session))


def test_what_was_done_behind_a_dead_link_is_told_by_the_next_worker(tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(f"sqlite:///{tmp_path}/broker.db", KEY))
        site = Site(tmp_path, broker, stack)
        sent = site.app.send_many([signature("tasks.note", (number, number * 50_000)) for number in range(TASKS)])
        first = site.start_worker()
        first.wait_for(" received", TASKS)
        site.link.is_dead = True
        site.proxy.cut_all()
        fcntl.flock(site.gate, fcntl.LOCK_UN)
        first.wait_for(" succeeded in ", TASKS)
        until(lambda: read_status(site.spool).waiting == TASKS)
        first.process.kill()
        first.ended()

        site.expire_sessions()
        assert site.ready() == TASKS
        site.app.ask(asks.open_session("other", 1000.0))
        batch: Batch = site.app.ask(asks.receive("other", Poll((("default", 1),), 1), 0.0))
        (taken,) = batch.deliveries

        site.link.is_dead = False
        second = site.start_worker()
        results: list[Any] = [result.get(timeout=PATIENCE) for result in sent[1:]]
        assert [(number, len(text)) for number, text in results] == [(each, each * 50_000) for each in range(1, TASKS)]
        assert set(site.begun().values()) == {1}
        third = run(
            tmp_path, "worker", "tasks", "--broker", broker.url, "--spool", "spool.db", "--secret-file", "site.key"
        )
        assert third.returncode != 0
        assert "spool.db' is in use by another worker; stop that one, or name another spool" in third.stderr
        second.wait_for("run by a former process, is superseded")
        until(lambda: read_status(site.spool)[::3] == (0, 1))
        assert [about.id for about in read_superseded(site.spool, 9)] == [taken.message.id] == [sent[0].id]
        settled = site.app.ask(asks.settle("other", [Settlement(taken.token, outcome=succeeded("of another"))]))
        assert settled == [SettleState.DONE]
        assert sent[0].get(timeout=PATIENCE) == "of another"
