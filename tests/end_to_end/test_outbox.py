"""Applications with an outbox and a broker over HTTP: sending waits for nobody, and what was sent arrives once."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import psycopg
import pytest

import backwater_tornado as backwater
from backwater_tornado.outbox.seat import Seat
from backwater_tornado.outbox.stores import SCHEMAS
from backwater_tornado.tasks import asks, current
from backwater_tornado.tasks.request import CURRENT_TASK, TaskContext, TaskRequest
from backwater_tornado.testing import (
    CUT_BEFORE_REQUEST,
    BadNetwork,
    RunningBroker,
    Script,
    running_broker,
    running_worker,
)
from tests.postgres import schema

PATIENCE = 30.0


@backwater.expose
def add(x: int, y: int) -> int:
    return x + y


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_default", [])


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with running_broker() as running:
        yield running


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/outbox.db"


def is_forwarding() -> bool:
    return any(each.name == "backwater-outbox" for each in threading.enumerate())


def held_files() -> list[Path]:
    return [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]


def ready(broker: RunningBroker, queue: str = "default") -> int:
    with backwater.App(broker.url, broker.secret, default=False, proxy="") as app:
        return sum(each.ready for each in app.ask(asks.stats([queue])))


def nowhere() -> str:
    """A URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# Sending -------------------------------------------------------------------------------------------------------------


def test_what_is_sent_runs_and_its_result_comes_as_always(broker: RunningBroker, url: str) -> None:
    with (
        backwater.App(broker.url, broker.secret, outbox=url, proxy="") as app,
        running_worker(broker, [sys.modules[__name__]]),
    ):
        result = add.delay(1, 2)
        assert result.get(PATIENCE) == 3
        assert (add.s(1, 2) | add.s(10)).delay().get(PATIENCE) == 13
        assert [each.get(PATIENCE) for each in app.send_many([add.s(n, n) for n in range(5)])] == [0, 2, 4, 6, 8]
    assert not is_forwarding()


def test_sending_does_not_wait_for_a_link_that_is_down(url: str) -> None:
    with BadNetwork("127.0.0.1", 1, Script([], CUT_BEFORE_REQUEST)) as proxy:
        app = backwater.App(f"http://127.0.0.1:{proxy.port}", "a secret of sixteen", outbox=url, proxy="")
        result = add.delay(1, 2)
        proxy.wait_for(2)
        with pytest.raises(backwater.DeadlineExceeded, match="not all that is in the outbox was accepted in time"):
            app.flush(timeout=0.01)
        with pytest.raises(backwater.DeadlineExceeded):
            result.get(timeout=0.01)
        begun = time.monotonic()
        app.close()
        assert time.monotonic() - begun < 4.0  # it does not linger
        assert app.spool is not None
        assert app.spool.store.status().waiting == {"default": 1}


def test_what_is_wrong_with_a_call_is_told_at_once(url: str) -> None:
    with backwater.App(nowhere(), "a secret of sixteen", outbox=url) as app:
        with pytest.raises(backwater.Unserializable):
            add.delay(object(), 1)  # type: ignore[arg-type]
        with pytest.raises(backwater.InvalidOption):
            add.s(1, 2).set(countdown=-1)
        assert app.spool is not None
        assert app.spool.store.last_number() == 0
        app.send_many([])
        assert not is_forwarding()


def test_a_full_outbox_refuses(url: str) -> None:
    with backwater.App(nowhere(), "a secret of sixteen", outbox=url, outbox_messages=2, proxy="") as app:
        app.send_many([add.s(1, 2), add.s(1, 2)])
        with pytest.raises(backwater.OutboxFull, match="it holds 2 messages"):
            add.delay(1, 2)
    with pytest.raises(backwater.InvalidOption, match="outbox_bytes"):
        backwater.App(nowhere(), "a secret of sixteen", outbox=url, outbox_bytes=0)
    with pytest.raises(backwater.InvalidOption, match="an outbox is named sqlite:///"):
        backwater.App(nowhere(), "a secret of sixteen", outbox="outbox.db")


def test_where_that_is_wished_sending_waits_for_room(broker: RunningBroker, url: str) -> None:
    full = {"outbox": url, "outbox_messages": 2, "outbox_full": "wait", "proxy": ""}
    with backwater.App(nowhere(), broker.secret, send_timeout=0.1, **full) as app:
        app.send_many([add.s(1, 2), add.s(1, 2)])
        with pytest.raises(backwater.OutboxFull):
            add.delay(1, 2)
    with backwater.App(broker.url, broker.secret, **full) as app:
        for _ in range(20):
            add.delay(1, 2)
        app.flush(PATIENCE)
    assert ready(broker) == 22


def test_what_is_dropped_to_make_room_is_logged_and_counted(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with backwater.App(
        nowhere(), "a secret of sixteen", outbox=url, outbox_messages=2, outbox_full="drop_oldest", proxy=""
    ) as app:
        assert app.spool is not None
        app.spool.start = lambda: None  # type: ignore[method-assign] - what was tried once is not dropped
        for _ in range(5):
            add.delay(1, 2)
        assert app.spool.store.status().dropped == 3
    assert [each.message for each in caplog.records] == [
        "the outbox is full: 1 of the oldest tasks in it were dropped"
    ] * 3


def test_an_outbox_in_postgresql_is_one_as_well(broker: RunningBroker, postgres: str) -> None:
    with (
        schema(postgres, SCHEMAS["postgresql"]) as url,
        backwater.App(broker.url, broker.secret, outbox=url, proxy="") as app,
        running_worker(broker, [sys.modules[__name__]]),
    ):
        assert add.delay(1, 2).get(PATIENCE) == 3
        with psycopg.connect(url) as connection, app.outbox_in(connection):
            result = add.delay(3, 4)
        assert result.get(PATIENCE) == 7
        with psycopg.connect(postgres, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> %s", ("",))
        assert add.delay(5, 6).get(PATIENCE) == 11


def test_it_rides_through_a_broker_that_comes_late(url: str) -> None:
    with BadNetwork("127.0.0.1", 1, Script([CUT_BEFORE_REQUEST] * 4)) as proxy, running_broker() as broker:
        proxy.upstream = ("127.0.0.1", broker.port)
        with backwater.App(f"http://127.0.0.1:{proxy.port}", broker.secret, outbox=url, proxy="") as app:
            results = [add.delay(number, 1) for number in range(20)]
            with running_worker(broker, [sys.modules[__name__]]):
                assert [each.get(PATIENCE) for each in results] == list(range(1, 21))
            app.flush(PATIENCE)


def test_closing_gives_what_waits_a_moment(broker: RunningBroker, url: str) -> None:
    with backwater.App(broker.url, broker.secret, outbox=url, proxy=""):
        for _ in range(10):
            add.delay(1, 2)
    assert ready(broker) == 10


def test_what_was_left_goes_when_it_is_opened_again(broker: RunningBroker, url: str) -> None:
    with backwater.App(nowhere(), broker.secret, outbox=url, proxy="") as app:
        add.delay(1, 2)
        assert app.spool is not None
        while not (app.spool._running and app.spool._running.forwarder.is_idle):
            os.sched_yield()
    assert not is_forwarding()
    with backwater.App(broker.url, broker.secret, outbox=url, proxy="") as app:
        assert is_forwarding()
        app.flush(PATIENCE)
    assert ready(broker) == 1


def test_an_application_without_one_has_nothing_to_flush(broker: RunningBroker) -> None:
    with backwater.App(broker.url, broker.secret) as app:
        app.flush()
        assert app.spool is None


# Awaiting ------------------------------------------------------------------------------------------------------------


def test_an_awaitable_application_has_one_too(broker: RunningBroker, url: str) -> None:
    async def work() -> None:
        async with backwater.AsyncApp(broker.url, broker.secret, outbox=url, proxy="") as app:
            results = await asyncio.gather(*[app.send(add.s(number, 1)) for number in range(20)])
            assert [await each.get(PATIENCE) for each in results] == list(range(1, 21))
            await app.flush(PATIENCE)
            await app.send(add.s(1, 2))

    with running_worker(broker, [sys.modules[__name__]]):
        asyncio.run(work())
    assert not is_forwarding()


def test_an_awaitable_one_without_has_nothing_to_flush(broker: RunningBroker) -> None:
    async def work() -> None:
        async with backwater.AsyncApp(broker.url, broker.secret) as app:
            await app.flush()

    asyncio.run(work())


def test_results_of_a_blocking_one_are_awaited_without_another_outbox(broker: RunningBroker, url: str) -> None:
    async def work() -> int:
        return await add.delay(1, 2)

    with (
        backwater.App(broker.url, broker.secret, outbox=url, proxy=""),
        running_worker(broker, [sys.modules[__name__]]),
    ):
        assert asyncio.run(work()) == 3
        assert sum(each.name == "backwater-outbox" for each in threading.enumerate()) == 1


# A transaction of one's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [backwater.App, backwater.AsyncApp])
def test_a_task_goes_with_the_transaction_that_it_is_about(broker: RunningBroker, tmp_path: Path, kind: Any) -> None:
    db = sqlite3.connect(tmp_path / "app.db")
    db.execute("CREATE TABLE orders (n)")
    db.commit()
    app = kind(broker.url, broker.secret, outbox=f"sqlite://{tmp_path}/app.db", proxy="")
    with pytest.raises(ZeroDivisionError), db, app.outbox_in(db):
        db.execute("INSERT INTO orders VALUES (1)")
        add.delay(1, 2)
        raise ZeroDivisionError
    with db, app.outbox_in(db):
        db.execute("INSERT INTO orders VALUES (2)")
        result = add.delay(3, 4)
    with running_worker(broker, [sys.modules[__name__]]):
        got = result.get(PATIENCE)
        assert (asyncio.run(got) if asyncio.iscoroutine(got) else got) == 7
    assert db.execute("SELECT n FROM orders").fetchall() == [(2,)]
    assert ready(broker) == 0
    app.close()
    db.close()


def test_it_may_be_another_database_than_its_own(tmp_path: Path) -> None:
    app = backwater.App(nowhere(), "a secret of sixteen")
    db = sqlite3.connect(":memory:")
    with pytest.raises(backwater.ConfigurationError, match="backwater outbox schema"):
        app.outbox_in(db)
    db.close()


def test_a_task_knows_what_it_has_sent(tmp_path: Path) -> None:
    task = TaskContext(TaskRequest(id="own"), lambda value: None)
    context = copy_context()
    context.run(CURRENT_TASK.set, task)
    with backwater.App(nowhere(), "a secret of sixteen", outbox=f"sqlite://{tmp_path}/app.db", proxy="") as app:
        db = sqlite3.connect(tmp_path / "app.db")
        sent = [context.run(app.send, add.s(1, 2)), context.run(app.outbox_in(db).send, add.s(1, 2))]
        db.close()
    assert task.children == [each.id for each in sent]


# Processes -----------------------------------------------------------------------------------------------------------


def test_a_child_forwards_when_it_sends_and_its_parent_goes_on(broker: RunningBroker, url: str) -> None:
    with backwater.App(broker.url, broker.secret, outbox=url, proxy="") as app:
        add.delay(1, 2)
        app.flush(PATIENCE)
        child = os.fork()
        if not child:
            code = 1
            try:
                assert not is_forwarding()
                assert not any("outbox.db" in str(each) for each in held_files())
                add.delay(3, 4)
                assert is_forwarding()
                app.flush(PATIENCE)  # by the parent, which has the seat
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        add.delay(5, 6)
        app.flush(PATIENCE)
    assert ready(broker) == 3


SCRIPT = """
import sys, backwater_tornado as backwater
app = backwater.App(sys.argv[1], bytes.fromhex(sys.argv[2]), outbox=sys.argv[3], proxy="")
for number in range(5):
    backwater.signature("m.f", [number]).delay()
"""


def test_a_script_that_ends_gives_what_waits_a_moment(broker: RunningBroker, url: str) -> None:
    assert isinstance(broker.secret, bytes)
    words = [sys.executable, "-c", SCRIPT, broker.url, broker.secret.hex(), url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ready(broker) == 5


def test_another_that_has_the_seat_is_left_to_it(broker: RunningBroker, tmp_path: Path, url: str) -> None:
    app = backwater.App(broker.url, broker.secret, outbox=url, proxy="")
    seat = Seat(tmp_path / "outbox.db")
    assert seat.take()
    add.delay(1, 2)
    app.close()
    assert ready(broker) == 0
    seat.leave()
    with backwater.App(broker.url, broker.secret, outbox=url, proxy="") as again:
        again.flush(PATIENCE)
    assert ready(broker) == 1


def test_a_pipe_that_was_taken_away_is_told(
    broker: RunningBroker, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with backwater.App(broker.url, broker.secret, outbox=url, proxy="") as app:
        (tmp_path / "outbox.db-forwarder").unlink()
        add.delay(1, 2)
        assert app.spool is not None
        assert app.spool._running is not None
        app.spool._running._thread.join(PATIENCE)
        assert "nothing is forwarded: the pipe" in caplog.text
    with backwater.App(broker.url, broker.secret, outbox=url, proxy="") as app:
        app.flush(PATIENCE)


def test_a_link_that_is_cut_time_and_again_loses_nothing(broker: RunningBroker, url: str) -> None:
    proxy = BadNetwork("127.0.0.1", broker.port)
    with proxy, backwater.App(f"http://127.0.0.1:{proxy.port}", broker.secret, outbox=url, proxy="") as app:
        for number in range(60):
            add.delay(number, 1)
            if number % 10 == 9:
                proxy.cut_all()
        app.flush(PATIENCE)
    assert ready(broker) == 60
