"""A broker process that is killed while it is published to and received from: nothing is lost, or settled twice.

Run as a module it is that process: `python -m tests.faults.test_broker_crash PORT DATABASE`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.performers import Grouped
from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.values import (
    Batch,
    Message,
    Outcome,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    Settlement,
    SettleState,
)
from backwater_tornado.errors import SessionGone

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRET = b"broker-crash-secret-0123456789"
JOBS = 600
KILLS = 4


class BrokerProcess:
    """The process, killed and started again on its port and its database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", __name__, str(self.port), str(self._database)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def client(self) -> backwater.Client:
        options: dict[str, Any] = {"timeout": 60, "max_attempts": 1000, "backoff": 0.01, "max_backoff": 0.2}
        return backwater.Client(f"http://127.0.0.1:{self.port}", SECRET, proxy="", **options)


def verb(client: backwater.Client, name: str, *args: object, returns: Any = None) -> Any:
    return client.with_options(returns=returns, idempotent=True).call("broker", name, *args)


def publish_all(broker: BrokerProcess, accepted: list[str]) -> None:
    with broker.client() as client:
        for start in range(0, JOBS, 10):
            names = [str(number) for number in range(start, start + 10)]
            jobs = [Publication(Message(name, b"body", keep_result=600.0), "jobs") for name in names]
            states = {each.state for each in verb(client, "publish", jobs, returns=list[Published])}
            assert states <= {PublishState.ACCEPTED, PublishState.DUPLICATE}
            accepted += names


def work_off(broker: BrokerProcess, done: Counter[str]) -> None:
    """Receives and settles until every job is done; counts what was settled as done by it."""
    with broker.client() as client:
        verb(client, "open_session", "w", 60.0)
        confirmed = 0
        while len(done) < JOBS:
            batch = verb(client, "receive", "w", Poll((("jobs", 20),), 20, confirmed, ()), 1.0, returns=Batch)
            confirmed = batch.number
            settlements = [Settlement(each.token, outcome=Outcome("SUCCESS", b"")) for each in batch.deliveries]
            states = verb(client, "settle", "w", settlements, returns=list[SettleState])
            done.update(each.message.id for each, state in zip(batch.deliveries, states, strict=True)
                        if state is SettleState.DONE)  # fmt: skip


def test_what_was_accepted_is_worked_off_once_though_the_broker_is_killed(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "broker.db")
    try:
        with broker.client() as client:
            verb(client, "declare", [], [Queue("jobs")], [])
        accepted: list[str] = []
        done: Counter[str] = Counter()
        threads = [
            threading.Thread(target=publish_all, args=(broker, accepted)),
            threading.Thread(target=work_off, args=(broker, done)),
        ]
        for thread in threads:
            thread.start()
        for kill in range(KILLS):
            # In the middle of things: after so many more are done.
            while len(done) < (kill + 1) * JOBS // (KILLS + 2):
                assert any(thread.is_alive() for thread in threads)
                time.sleep(0.005)
            broker.kill()
            broker.start()
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive()
        assert sorted(accepted, key=int) == [str(number) for number in range(JOBS)]
        assert done == Counter(accepted)
        with broker.client() as client:
            verb(client, "open_session", "late", 60.0)
            left = verb(client, "receive", "late", Poll((("jobs", 100),), 100), returns=Batch)
            assert left.deliveries == ()
            results = verb(client, "results", accepted)
            assert [each["final"] for each in results] == [True] * JOBS
            with pytest.raises(SessionGone):
                verb(client, "receive", "nobody", Poll((), 1))
    finally:
        broker.kill()


async def _serve(port: int, database: str) -> None:
    broker = Broker(Grouped(SqliteStore(database)))
    server = backwater.start_clear_server(SECRET, backwater.Exposed(broker=broker), port=port, address="127.0.0.1")
    broker.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
