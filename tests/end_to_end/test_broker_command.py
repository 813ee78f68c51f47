"""`backwater broker` in a process of its own: what it accepted is there after a kill, and signals end it in order."""

from __future__ import annotations

import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import (
    Batch,
    Message,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    QueueStats,
)
from backwater_tornado.protocol.keys import Scopes, format_key
from tests.end_to_end.processes import PATIENCE, Serving, run

# Real processes: once, on the source tree.
pytestmark = pytest.mark.slow

SECRET = b"a secret of the broker's tests"
WANT = Poll((("jobs", 10),), 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_keys(tmp_path, Scopes())
    return tmp_path


def write_keys(folder: Path, scopes: Scopes) -> None:
    (folder / "site.key").write_text(format_key(backwater.Key(SECRET, "site", scopes=scopes)))
    (folder / "site.key").chmod(0o600)


def serve(folder: Path, *words: str) -> Serving:
    return Serving(folder, "--secret-file", "site.key", *words, command="broker")


def client(serving: Serving) -> backwater.Client:
    return backwater.Client(serving.url(), backwater.Key(SECRET, "site"), proxy="", timeout=PATIENCE)


def verb(caller: backwater.Client, name: str, *args: object, returns: Any = None) -> Any:
    return caller.with_options(returns=returns).call("broker", name, *args)


def publish(caller: backwater.Client, *names: str) -> set[PublishState]:
    jobs = [Publication(Message(name, b"body of " + name.encode()), "jobs") for name in names]
    return {each.state for each in verb(caller, "publish", jobs, returns=list[Published])}


def receive(caller: backwater.Client) -> list[bytes]:
    verb(caller, "open_session", "w")
    return [each.message.body for each in verb(caller, "receive", "w", WANT, returns=Batch).deliveries]


def test_what_was_accepted_is_there_after_a_kill(folder: Path) -> None:
    with serve(folder) as serving, client(serving) as caller:
        verb(caller, "declare", [], [Queue("jobs")], [])
        assert publish(caller, "a", "b") == {PublishState.ACCEPTED}
        serving.signal(signal.SIGKILL)
        serving.ended()
    assert (folder / "backwater.db").exists()
    with serve(folder) as serving, client(serving) as caller:
        assert publish(caller, "a") == {PublishState.DUPLICATE}
        assert receive(caller) == [b"body of a", b"body of b"]


def test_sigterm_sends_polls_home_and_keeps_what_was_accepted(folder: Path) -> None:
    with serve(folder, "--store", f"sqlite://{folder}/jobs.db") as serving, client(serving) as caller:
        verb(caller, "declare", [], [Queue("jobs"), Queue("empty")], [])
        verb(caller, "open_session", "idle")
        with ThreadPoolExecutor(1) as pool, client(serving) as other:
            assert publish(caller, "a") == {PublishState.ACCEPTED}
            polling = pool.submit(verb, other, "receive", "idle", Poll((("empty", 1),), 1), 45.0, returns=Batch)
            wait_until_polled(caller, "empty")
            serving.signal(signal.SIGTERM)
            assert polling.result(PATIENCE).deliveries == ()
            assert serving.ended() == 0
    with serve(folder, "--store", f"sqlite://{folder}/jobs.db") as serving, client(serving) as caller:
        assert receive(caller) == [b"body of a"]


def wait_until_polled(caller: backwater.Client, queue: str) -> None:
    """Wait until a session receives from the queue."""
    while not verb(caller, "stats", [queue], returns=list[QueueStats])[0].sessions:
        pass


def test_sighup_takes_the_scopes_of_the_new_keys(folder: Path) -> None:
    with serve(folder, "--store", "memory://") as serving, client(serving) as caller:
        verb(caller, "declare", [], [Queue("jobs")], [])
        assert publish(caller, "a") == {PublishState.ACCEPTED}
        write_keys(folder, Scopes(publish=("others",)))
        serving.signal(signal.SIGHUP)
        serving.wait_for("keys reloaded")
        with pytest.raises(backwater.QueueNotInScope, match="may not publish to 'jobs'"):
            publish(caller, "b")


def test_a_second_broker_on_a_file_says_what_to_do_and_harms_nothing(folder: Path) -> None:
    with serve(folder) as serving, client(serving) as caller:
        verb(caller, "declare", [], [Queue("jobs")], [])
        second = run(folder, "broker", "--secret-file", "site.key", "--port", "0")
        assert (second.returncode, second.stdout) == (2, "")
        assert "backwater.db' is in use by another broker; stop that one, or name another store" in second.stderr
        assert publish(caller, "a") == {PublishState.ACCEPTED}
        assert receive(caller) == [b"body of a"]


def test_functions_are_served_beside_it(folder: Path) -> None:
    with serve(folder, "math", "--store", "memory://") as serving, client(serving) as caller:
        assert caller.call("math", "sqrt", 4) == 2.0
        assert verb(caller, "stats") == []


def test_the_variable_and_the_file_name_the_store(folder: Path) -> None:
    (folder / "backwater.toml").write_text('secret_file = "site.key"\n[broker]\nstore = "sqlite:of_the_file.db"\n')
    with Serving(folder, command="broker") as serving:
        serving.url()
    assert (folder / "of_the_file.db").exists()


def test_prometheus_is_told_on_a_port_of_its_own(folder: Path) -> None:
    with serve(folder, "--store", "memory://", "--metrics-port", "0") as serving, client(serving) as caller:
        verb(caller, "declare", [], [Queue("jobs")], [])
        assert publish(caller, "a") == {PublishState.ACCEPTED}
        url = serving.wait_for("metrics on ").split()[-1]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own
            assert b'backwater_queue_messages{queue="jobs",state="ready"} 1.0' in answer.read()
