"""`backwater serve` in processes of its own: signals, several processes, reloading, deaths."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

import backwater_tornado as backwater
from backwater_tornado.curl import EasyTransport
from backwater_tornado.protocol.calling import Attempt, Outgoing, decode_answer, decode_problem
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.session import Session
from tests.end_to_end.processes import MODULE, PATIENCE, Serving

# Real processes, or many seconds: once, on the source tree.
pytestmark = pytest.mark.slow

SECRET = b"a secret of the tests of serving"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "served.py").write_text(MODULE)
    key_file = tmp_path / "site.key"
    key_file.write_text(format_key(backwater.Key(SECRET)))
    key_file.chmod(0o600)
    for name in ("started", "go"):
        os.mkfifo(tmp_path / name)
    return tmp_path


def serve(folder: Path, *words: str) -> Serving:
    return Serving(folder, "served", "--secret-file", "site.key", *words)


def client(serving: Serving, secret: object = SECRET, **options: Any) -> backwater.Client:
    return backwater.Client(serving.url(), secret, **{"proxy": "", "timeout": PATIENCE, **options})


def in_thread(function: Callable[[], Any]) -> Future[Any]:
    """What a function gives, later."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def hold(folder: Path, caller: backwater.Client, function: str = "hold") -> Future[Any]:
    """A call that has begun and does not end before `let_go`."""
    started, go = folder / "started", folder / "go"

    def call() -> Any:
        with caller:
            return caller.call("served", function, str(started), str(go))

    held = in_thread(call)
    with started.open() as pipe:
        pipe.read()
    return held


def let_go(folder: Path, text: str = "held") -> None:
    with (folder / "go").open("w") as pipe:
        pipe.write(text)


# One process ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_call_in_progress_end(folder: Path, number: int) -> None:
    with serve(folder) as serving:
        held = hold(folder, client(serving))
        serving.signal(number)
        serving.wait_for("stopping")
        with pytest.raises(backwater.Unreachable), client(serving, max_attempts=1) as other:
            other.call("served", "add", 1)
        let_go(folder)
        assert held.result(PATIENCE) == "held"
        assert serving.ended() == 0


def test_a_second_signal_cuts_the_call_in_progress(folder: Path) -> None:
    with serve(folder, "--grace", "600") as serving:
        held = hold(folder, client(serving, max_attempts=1))
        serving.signal(signal.SIGTERM)
        serving.wait_for("stopping")
        serving.signal(signal.SIGTERM)
        assert serving.ended() == 1
        with pytest.raises((backwater.OutcomeUnknown, backwater.DeadlineExceeded)):
            held.result(PATIENCE)
        assert "calls in progress were cut" in serving.said


def test_the_grace_period_ends_what_does_not(folder: Path) -> None:
    with serve(folder, "--grace", "0.1") as serving:
        hold(folder, client(serving, max_attempts=1))
        serving.signal(signal.SIGTERM)
        assert serving.ended() == 1


def test_sighup_takes_new_keys_and_drops_no_call(folder: Path) -> None:
    new = backwater.Key(b"the secret that comes after it")
    with serve(folder) as serving:
        held = hold(folder, client(serving))
        (folder / "site.key").write_text(format_key(new))
        serving.signal(signal.SIGHUP)
        assert new.id in serving.wait_for("keys reloaded")
        with client(serving, new) as caller:
            assert caller.call("served", "add", 1, 2) == 3
        with pytest.raises(backwater.ResponseUnsigned, match="unknown_key"), client(serving) as caller:
            caller.call("served", "add", 1, 2)
        let_go(folder)
        assert held.result(PATIENCE) == "held"


def test_a_broken_file_of_keys_changes_nothing(folder: Path) -> None:
    with serve(folder) as serving, client(serving) as caller:
        (folder / "site.key").write_text("[[key]]\nsecret = 'short'\n")
        serving.signal(signal.SIGHUP)
        line = serving.wait_for("the keys stay as they were")
        assert "site.key" in line
        assert "short" not in line
        assert caller.call("served", "add", 1, 2) == 3


def test_the_access_log_is_switched_on_by_a_flag(folder: Path) -> None:
    with serve(folder, "--access-log") as serving, client(serving) as caller:
        caller.call("served", "add", 1, 2)
        assert "POST /backwater/2/served/add 200" in serving.wait_for("backwater.access")


# Several processes ---------------------------------------------------------------------------------------------------


class Caller:
    """Sends what it likes, each time on a new connection."""

    def __init__(self, serving: Serving) -> None:
        self.session = Session(serving.url(), SECRET, {"proxy": ""})
        self._transport = EasyTransport(self.session.options)

    def begin(self, function: str, *args: object) -> Outgoing:
        arguments = self.session.sealer.encode_arguments(args, {})
        return Outgoing(self.session.stream.begin(), "served", function, arguments, 1e9)

    def send(self, call: Outgoing, *, copies: int = 1) -> list[Any]:
        """Send one signed request so many times; each answer's value, or the error it tells."""
        target = self.session.targets[0]
        sealed = self.session.seal([Attempt(call, target, fresh=True)])
        answers = []
        for _ in range(copies):
            response, _ = self._transport.send(sealed.request, PATIENCE, fresh=True)
            answer = self.session.open(sealed, target, response)
            answers.append(decode_answer(answer, unsafe=False) if answer.status == 200 else decode_problem(answer))
        return answers


def test_a_replayed_request_is_refused_by_whichever_process_gets_it(folder: Path) -> None:
    with serve(folder, "--processes", "2") as serving:
        caller = Caller(serving)
        first, *others = caller.send(caller.begin("append", str(folder / "ran")), copies=20)
        assert first in [child.pid for child in serving.children()]
        assert {type(each) for each in others} == {backwater.Replayed}
        assert (folder / "ran").read_text() == "x"


def test_a_retry_that_reaches_another_process_gets_the_recorded_answer(folder: Path) -> None:
    with serve(folder, "--processes", "2") as serving:
        caller = Caller(serving)
        served_by = {caller.send(caller.begin("pid"))[0] for _ in range(20)}
        assert served_by == {child.pid for child in serving.children()}
        call = caller.begin("append", str(folder / "ran"))
        assert len({caller.send(call)[0] for _ in range(20)}) == 1
        assert (folder / "ran").read_text() == "x"


def test_a_killed_child_is_replaced(folder: Path) -> None:
    with serve(folder, "--processes", "2") as serving, client(serving) as caller:
        before = serving.children()
        before[0].kill()
        serving.wait_for("was killed by SIGKILL; starting another")
        serving.wait_for("all 2 processes serve")
        after = serving.children()
        assert len(after) == 2
        assert before[1] in after
        assert caller.call("served", "add", 1, 2) == 3


def test_children_do_not_outlive_a_killed_parent(folder: Path) -> None:
    with serve(folder, "--processes", "2") as serving:
        serving.url()
        children = serving.children()
        assert len(children) == 2
        serving.signal(signal.SIGKILL)
        serving.ended()
        gone, alive = psutil.wait_procs(children, PATIENCE)
        assert not alive
        assert len(gone) == 2


def test_signals_to_the_parent_reach_the_children(folder: Path) -> None:
    new = backwater.Key(b"the secret that comes after it")
    with serve(folder, "--processes", "2") as serving:
        held = hold(folder, client(serving))
        ring = [backwater.Key(SECRET), new]
        (folder / "site.key").write_text("".join(map(format_key, ring)))
        serving.signal(signal.SIGHUP)
        serving.wait_for(new.id, times=2)
        with client(serving, new) as caller:
            assert caller.call("served", "add", 1, 2) == 3
        children = serving.children()
        serving.signal(signal.SIGTERM)
        serving.wait_for("stopping", times=2)
        let_go(folder)
        assert held.result(PATIENCE) == "held"
        assert serving.ended() == 0
        assert not [child for child in children if child.is_running()]


def test_a_second_signal_to_the_parent_cuts_the_calls_of_the_children(folder: Path) -> None:
    with serve(folder, "--processes", "2", "--grace", "600") as serving:
        hold(folder, client(serving, max_attempts=1))
        serving.signal(signal.SIGTERM)
        serving.wait_for("stopping", times=2)
        serving.signal(signal.SIGTERM)
        assert serving.ended() == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_whose_loop_is_blocked_is_ended_by_force(folder: Path, number: int) -> None:
    with serve(folder, "--processes", "2", "--grace", "0.1") as serving:
        hold(folder, client(serving, max_attempts=1), "block")
        children = serving.children()
        serving.signal(number)
        assert serving.ended() == (1 if number == signal.SIGTERM else -signal.SIGKILL)
        assert not psutil.wait_procs(children, PATIENCE)[1]


def test_what_is_wrong_at_the_start_is_told_once_and_ends_all(folder: Path) -> None:
    (folder / "served.py").write_text("1 / 0\n")
    with serve(folder, "--processes", "3") as serving:
        assert serving.ended() == 2
        assert serving.said == "backwater: importing 'served' raised ZeroDivisionError: division by zero\n"


def test_the_shared_memory_is_removed_at_the_end(folder: Path) -> None:
    with serve(folder, "--processes", "2") as serving:
        serving.url()
        assert list(folder.glob("backwater-*/calls.db"))
        serving.signal(signal.SIGTERM)
        assert serving.ended() == 0
        assert not list(folder.glob("backwater-*"))


# Reloading -----------------------------------------------------------------------------------------------------------


def test_an_edit_is_served_and_a_broken_one_waits_for_the_next(folder: Path) -> None:
    with serve(folder, "--reload") as serving, client(serving) as caller:
        assert caller.call("served", "add", 1, 2) == 3
        (folder / "served.py").write_text("def add(x, y): return x - y\n")
        serving.wait_for("serving on", times=2)
        assert caller.call("served", "add", 1, 2) == -1
        (folder / "served.py").write_text("def add(x, y) return x - y\n")
        serving.wait_for("waiting for the next change")
        assert "SyntaxError" in serving.said
        (folder / "served.py").write_text("def add(x, y): return x * y\n")
        serving.wait_for("serving on", times=3)
        assert caller.call("served", "add", 1, 2) == 2
        serving.signal(signal.SIGTERM)
        assert serving.ended() == 0
