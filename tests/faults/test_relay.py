"""Relays, links and brokers that die in the middle of it: each task runs once, and all results are home."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import backwater_tornado as backwater
from backwater_tornado.protocol.keys import Key, format_key
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
    DUPLICATE_ANSWERED,
    PASS,
    STALL_FOREVER,
    TRUNCATE_REQUEST,
    BadNetwork,
    Mix,
    RunningBroker,
    running_broker,
    running_worker,
)
from tests.end_to_end.processes import Serving

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KEY = Key(b"the secret of relays that are killed", "site")
PATIENCE = 60.0
HARM = (CUT_AFTER_REQUEST.with_reset(), CUT_BEFORE_REQUEST, CUT_MID_RESPONSE, DUPLICATE_ANSWERED, TRUNCATE_REQUEST)


class Runs:
    """The tasks: each run is written down."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._news = threading.Condition()

    @backwater.expose
    def note(self, number: int) -> int:
        with self._news:
            self.numbers.append(number)
            self._news.notify_all()
        return -number

    def wait_for(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.numbers) >= count, PATIENCE)


class Site:
    """A near broker with a sender, and whatever relays from there."""

    def __init__(self, folder: Path, near: RunningBroker, app: backwater.App) -> None:
        self._folder, self._near, self._app = folder, near, app
        self.runs = Runs()
        self._sent: list[backwater.AsyncResult[int]] = []

    def worker(self, far: RunningBroker) -> contextlib.AbstractContextManager[object]:
        return running_worker(far, backwater.Exposed(t=self.runs))

    def relay(self, far: str) -> Serving:
        ends = ("--from", self._near.url, "--to", far, "--queue", "default")
        more = ("--secret-file", "site.key", "--ttl", "1.5", "--health-file", "health.json", "--recv-timeout", "0.8")
        return Serving(self._folder, *ends, *more, command="relay", listens=False)

    def send(self, count: int) -> None:
        calls = [backwater.signature("t.note", (number,)) for number in range(count)]
        self._sent = self._app.send_many(calls)

    def check(self) -> None:
        """All results are home, and every task has run once."""
        assert [each.get(timeout=PATIENCE) for each in self._sent] == [-number for number in range(len(self._sent))]
        assert sorted(self.runs.numbers) == list(range(len(self._sent)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site.key").write_text(format_key(KEY))
    (tmp_path / "site.key").chmod(0o600)
    with (
        running_broker(f"sqlite:///{tmp_path}/near.db", KEY) as near,
        backwater.App(near.url, KEY, default=False, proxy="") as app,
    ):
        yield Site(tmp_path, near, app)


def test_a_relay_that_is_killed_loses_nothing_and_has_nothing_run_twice(site: Site, tmp_path: Path) -> None:
    with running_broker(secret=KEY) as far, site.worker(far):
        site.send(1000)
        for life in (1, 2):
            with site.relay(far.url):
                site.runs.wait_for(150 * life)
        with site.relay(far.url) as relay:
            site.check()
            assert json.loads((tmp_path / "health.json").read_text()) == {"status": "ok", "reasons": []}
            relay.process.terminate()
            assert relay.ended() == 0
        assert not (tmp_path / "health.json").exists()


def test_a_link_that_cuts_doubles_and_stalls_requests_loses_nothing(site: Site) -> None:
    with (
        running_broker(secret=KEY) as far,
        BadNetwork("127.0.0.1", far.port, Mix(5, {PASS: 8, STALL_FOREVER: 1, **dict.fromkeys(HARM, 2)})) as proxy,
        site.worker(far),
        site.relay(f"http://127.0.0.1:{proxy.port}"),
    ):
        site.send(300)
        site.runs.wait_for(100)
        proxy.cut_all()
        site.check()
        assert set(HARM) & set(proxy.faults())


def test_a_far_broker_that_is_killed_loses_nothing(site: Site, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("--store", f"sqlite:///{tmp_path}/far.db", "--secret-file", "site.key", "--address", "127.0.0.1")
    url = f"http://127.0.0.1:{port}"

    def broker() -> Serving:
        return Serving(tmp_path, *words, "--port", str(port), command="broker", listens=False)

    there = cast("RunningBroker", SimpleNamespace(url=url, secret=KEY))  # all that a worker wants to know of it
    with site.relay(url) as relay, site.worker(there):
        with broker() as far:
            site.send(300)
            site.runs.wait_for(50)
            far.process.kill()
            relay.wait_for("cannot be asked")
        with broker():
            site.check()
            relay.wait_for("is back", relay.said.count("cannot be asked"))
