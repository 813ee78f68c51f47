"""A worker behind a proxy that loses, doubles and cuts what goes through it: every task is run, and none twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest

from backwater_tornado.app import App, AsyncApp
from backwater_tornado.exposure import Exposed, Exposure
from backwater_tornado.tasks.signatures import signature
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
    DROP,
    DUPLICATE,
    DUPLICATE_ANSWERED,
    PASS,
    STALL_FOREVER,
    TRUNCATE_REQUEST,
    BadNetwork,
    Fault,
    Mix,
    RunningBroker,
    Script,
    running_broker,
)
from backwater_tornado.worker import health
from backwater_tornado.worker.line import SplitLink
from backwater_tornado.worker.options import WorkerOptions
from backwater_tornado.worker.worker import Worker
from tests.unit.worker.bench import Functions, HandPool

pytestmark = pytest.mark.timeout(90)

TASKS = 120
HARM = (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
    DUPLICATE,
    DUPLICATE_ANSWERED,
    TRUNCATE_REQUEST,
    CUT_AFTER_REQUEST.with_reset(),
)


class WorkerThread:
    """A worker on a loop of its own, for the length of a with-block."""

    def __init__(self, url: str, secret: object, **options: Any) -> None:
        self._url, self._secret = url, secret
        self._options = WorkerOptions(**{"wait": 0.3, **options})
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        # Silence is found out soon, so that the tests are short.
        options: dict[str, Any] = {"recv_timeout": 0.6, "max_attempts": 1, "coalesce_delay": 0.0, "proxy": ""}
        with_polls, without = (AsyncApp(self._url, self._secret, **options) for _ in range(2))
        async with with_polls, without:
            self.pool = HandPool()
            exposure = Exposure.of(Exposed(t=Functions()))
            self.worker = Worker(SplitLink(with_polls, without), exposure, lambda function: self.pool, self._options)
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self.worker.run()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self.worker.stop)
        self._thread.join(30)
        assert not self._thread.is_alive()


def run_all(broker: RunningBroker, count: int = TASKS) -> None:
    """Send tasks, past the proxy, and wait for their results."""
    with App(broker.url, broker.secret, default=False, proxy="") as app:
        sent = app.send_many([signature("t.add", (number,)) for number in range(count)])
        assert [result.get(timeout=60) for result in sent] == list(range(count))


@pytest.mark.parametrize("fault", HARM, ids=str)
def test_whatever_happens_to_requests_each_task_runs_once(fault: Fault) -> None:
    with (
        running_broker() as broker,
        BadNetwork("127.0.0.1", broker.port, Mix(7, {PASS: 2, fault: 1})) as proxy,
        WorkerThread(f"http://127.0.0.1:{proxy.port}", broker.secret, prefetch=10) as working,
    ):
        run_all(broker)
        assert len(working.pool.begun) == len(set(working.pool.begun)) == TASKS
        assert fault in proxy.faults()


@pytest.mark.parametrize("fault", [DROP, STALL_FOREVER], ids=str)
def test_a_link_that_is_silent_is_found_out(fault: Fault) -> None:
    with (
        running_broker() as broker,
        BadNetwork("127.0.0.1", broker.port, Script([PASS] * 4 + [fault] * 3)) as proxy,
        WorkerThread(f"http://127.0.0.1:{proxy.port}", broker.secret) as working,
    ):
        proxy.wait_for(7)
        run_all(broker)
        assert len(working.pool.begun) == TASKS


def test_a_silence_that_is_longer_than_its_session_lives_has_nothing_run_twice() -> None:
    with (
        running_broker() as broker,
        BadNetwork("127.0.0.1", broker.port, Script([PASS] * 6 + [DROP] * 4)) as proxy,
        WorkerThread(f"http://127.0.0.1:{proxy.port}", broker.secret, prefetch=30, ttl=0.5) as working,
    ):
        run_all(broker)
        assert len(working.pool.begun) == len(set(working.pool.begun)) == TASKS
        assert working.worker.consumer.life > 1


def test_a_worker_goes_on_when_its_connections_are_cut() -> None:
    with (
        running_broker() as broker,
        BadNetwork("127.0.0.1", broker.port) as proxy,
        WorkerThread(f"http://127.0.0.1:{proxy.port}", broker.secret) as working,
    ):
        for times in (1, 2, 3):
            run_all(broker)
            proxy.cut_all()
            assert len(working.pool.begun) == TASKS * times


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells of."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def test_a_worker_that_hears_nothing_says_so_and_needs_no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SLACK", 0.7)
    with (
        running_broker() as broker,
        BadNetwork("127.0.0.1", broker.port) as network,
        WorkerThread(network.url, broker.secret) as working,
    ):
        run_all(broker)
        assert working.worker.health().status == "ok"
        network.blackhole()
        until(lambda: working.worker.health().status != "ok")
        (reason,) = working.worker.health().reasons
        assert reason == "the broker was not heard of for 1 s"
        network.heal()
        run_all(broker)
        assert working.worker.health().status == "ok"
        assert len(working.pool.begun) == 2 * TASKS


def test_a_worker_rides_through_a_restart_of_its_broker(tmp_path: Any) -> None:
    store = f"sqlite:///{tmp_path / 'broker.db'}"
    secret = b"the secret of a broker that restarts"
    with running_broker(store, secret) as broker:
        port = broker.port
        with WorkerThread(broker.url, secret) as working:
            run_all(broker)
            broker.stop()
            with running_broker(store, secret, port=port) as again:
                run_all(again)
                assert len(working.pool.begun) == 2 * TASKS
