"""A broker whose disk is full: it says so, loses nothing that it accepted, and goes on when there is room again.

The disk is full for the broker's process alone: it may not write files beyond a size (RLIMIT_FSIZE), until it may.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Poll, Settlement
from backwater_tornado.errors import StorageFailed
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.outcomes import succeeded
from tests.end_to_end.processes import PATIENCE, Serving

# Real processes: once, on the source tree.
pytestmark = pytest.mark.slow

SECRET = b"a secret of the full disk's tests"
STORE = "jobs.db"
ROOM = 400_000


def limit(serving: Serving, size: int) -> None:
    """Let the broker's process write no file beyond a size, bytes."""
    resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.glob(f"{STORE}*"))


def send(app: backwater.App, number: int) -> str:
    """Send a task of 20 kB that does not shrink; gives its id."""
    return str(app.send_task("jobs.store", [os.urandom(20_000)], task_id=f"task-{number}").id)


def receive_all(app: backwater.App, session: str) -> set[str]:
    app.ask(asks.open_session(session, 30.0))
    found: set[str] = set()
    confirmed = 0
    while True:
        batch = app.ask(asks.receive(session, Poll((("default", 50),), 50, confirmed), 0.0))
        if not batch.deliveries:
            return found
        confirmed = batch.number
        found |= {each.message.id for each in batch.deliveries}
        app.ask(asks.settle(session, [Settlement(each.token, outcome=succeeded(1)) for each in batch.deliveries]))


def test_a_full_disk_refuses_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "site.key").write_text(format_key(backwater.Key(SECRET, "site")))
    words = ("--secret-file", "site.key", "--store", f"sqlite://{tmp_path / STORE}")
    key = backwater.Key(SECRET, "site")
    accepted: list[str] = []
    with Serving(tmp_path, *words, command="broker") as serving:
        app = backwater.App(serving.url(), key, default=False, proxy="", send_timeout=1.0)
        accepted.append(send(app, 0))
        limit(serving, largest(tmp_path) + ROOM)
        with pytest.raises(StorageFailed):
            for number in range(1, 10 * ROOM // 20_000):
                accepted.append(send(app, number))
        refused = len(accepted)
        with pytest.raises(StorageFailed):
            send(app, refused)
        assert app.result(accepted[0]).state is backwater.State.PENDING  # those who only ask are answered
        limit(serving, resource.RLIM_INFINITY)
        patient = backwater.App(serving.url(), key, default=False, proxy="", send_timeout=PATIENCE)
        for number in range(refused, refused + 5):
            accepted.append(send(patient, number))
        serving.signal(signal.SIGKILL)
        serving.ended()
    with Serving(tmp_path, *words, command="broker") as serving:
        patient = backwater.App(serving.url(), key, default=False, proxy="", send_timeout=PATIENCE)
        assert receive_all(patient, "w") == set(accepted)
        assert [patient.result(each).get(PATIENCE) for each in accepted] == [1] * len(accepted)
