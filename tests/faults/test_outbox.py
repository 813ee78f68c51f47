"""Senders with an outbox that are killed, and links that lose what goes through them: all that was sent is there, once.

Run as a module it is such a sender: `python -m tests.faults.test_outbox URL SECRET OUTBOX NAME`. It prints the id of
each task when `delay` has returned.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Batch, Poll
from backwater_tornado.tasks import asks
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
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

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRET = b"outbox-faults-secret-0123456789"
PATIENCE = 60.0
HARM = (
    CUT_AFTER_REQUEST.with_reset(),
    CUT_MID_RESPONSE,
    DUPLICATE_ANSWERED,
    TRUNCATE_REQUEST,
)


class Sender:
    """The process, and the ids of which it has said that they were sent."""

    def __init__(self, url: str, outbox: str, name: str) -> None:
        command = [sys.executable, "-m", __name__, url, SECRET.hex(), outbox, name]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.sent: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                if line.endswith("\n"):  # the last may be cut
                    self.sent.append(line.strip())
                self._news.notify_all()

    def wait_for(self, number: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.sent) >= number, PATIENCE)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def received(broker: RunningBroker) -> list[str]:
    """The ids of all that waits, in order."""
    found: list[str] = []
    confirmed = 0
    with backwater.App(broker.url, SECRET, default=False, proxy="") as app:
        app.ask(asks.open_session("s", 60.0))
        while True:
            batch: Batch = app.ask(asks.receive("s", Poll((("default", 1000),), 1000, confirmed), 0.0))
            if batch.number == confirmed:
                return found
            confirmed = batch.number
            found += [each.message.id for each in batch.deliveries]


def flush(url: str, outbox: str) -> None:
    with backwater.App(url, SECRET, outbox=outbox, default=False, proxy="") as app:
        app.flush(PATIENCE)


def check(there: list[str], *senders: list[str]) -> None:
    """All that was sent is there once, in each sender's order; and of each at most the one that it was just sending."""
    assert max(Counter(there).values()) == 1
    for sent in senders:
        assert [each for each in there if each in set(sent)] == sent
    assert len(there) - sum(map(len, senders)) <= len(senders)


@pytest.mark.parametrize("fault", [None, *HARM], ids=str)
def test_what_delay_has_returned_from_is_there_once_though_its_sender_is_killed(
    tmp_path: Path, fault: Fault | None
) -> None:
    outbox = f"sqlite://{tmp_path}/o.db"
    policy: Any = Script([]) if fault is None else Mix(3, {PASS: 1, fault: 1})
    with running_broker(secret=SECRET) as broker, BadNetwork("127.0.0.1", broker.port, policy) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        lives = []
        for life in range(3):
            sender = Sender(url, outbox, f"life{life}")
            sender.wait_for(60)
            sender.kill()
            lives.append(sender.sent)
        flush(url, outbox)
        check(received(broker), *lives)


def test_a_broker_that_is_down_all_the_time_gets_all_of_it_when_it_is_up(tmp_path: Path) -> None:
    outbox = f"sqlite://{tmp_path}/o.db"
    with BadNetwork("127.0.0.1", 1, Script([], CUT_BEFORE_REQUEST)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        sender = Sender(url, outbox, "one")
        sender.wait_for(200)
        sender.kill()
        with running_broker(secret=SECRET) as broker:
            proxy.upstream = ("127.0.0.1", broker.port)
            proxy.policy = Script([])
            flush(url, outbox)
            check(received(broker), sender.sent)


def test_two_senders_share_an_outbox_and_one_takes_over_when_the_other_is_killed(tmp_path: Path) -> None:
    outbox = f"sqlite://{tmp_path}/o.db"
    with running_broker(secret=SECRET) as broker:
        senders = [Sender(broker.url, outbox, name) for name in "ab"]
        for sender in senders:
            sender.wait_for(50)
        senders[0].kill()
        senders[1].wait_for(len(senders[1].sent) + 50)
        senders[1].kill()
        flush(broker.url, outbox)
        check(received(broker), *[each.sent for each in senders])


def test_a_link_that_is_silent_is_found_out(tmp_path: Path) -> None:
    outbox = f"sqlite://{tmp_path}/o.db"
    faulty = Script([PASS, STALL_FOREVER, PASS, STALL_FOREVER])
    with running_broker(secret=SECRET) as broker, BadNetwork("127.0.0.1", broker.port, faulty) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        with backwater.App(url, SECRET, outbox=outbox, default=False, proxy="", recv_timeout=0.5) as app:
            sent = [app.send(backwater.signature("m.f")).id for _ in range(50)]
            app.flush(PATIENCE)
        check(received(broker), sent)


def main(url: str, secret: str, outbox: str, name: str) -> None:
    backwater.App(url, bytes.fromhex(secret), outbox=outbox, proxy="")
    for number in count():
        result = backwater.signature("m.f", [number], task_id=f"{name}-{number}").delay()
        print(result.id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
