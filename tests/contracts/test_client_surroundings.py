"""Clients where programs put them: after a fork, within a running loop, under Ctrl-C, on one loop after the other."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import trustme

import backwater_tornado as backwater
from backwater_tornado.testing import RunningServer, running_server


class Functions:
    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def add(self, x: int, y: int = 0) -> int:
        return x + y

    def wait(self) -> None:
        self.entered.release()
        self.go.wait(30)


@pytest.fixture
def functions() -> Functions:
    return Functions()


@pytest.fixture(params=["clear", "tls"])
def serving(
    request: pytest.FixtureRequest, functions: Functions, tmp_path: Path
) -> Iterator[tuple[RunningServer, str]]:
    """A server, and the file of the authority to trust."""
    options = {}
    authority = tmp_path / "authority.pem"
    if request.param == "tls":
        made = trustme.CA()
        made.cert_pem.write_to_path(authority)
        certificate = made.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
        options = {"certfile": str(tmp_path / "server.pem"), "keyfile": str(tmp_path / "server.pem")}
    with running_server({"functions": functions}, **options) as server:
        yield server, str(authority)
        functions.go.set()


def _in_child(work: Callable[[], None]) -> None:
    """Run in a forked child process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _connections(server: RunningServer) -> int:
    return server.run(lambda: server.server.listener.connections)


@pytest.mark.parametrize("of_thread", [False, True], ids=["own thread", "another thread"])
def test_after_a_fork_both_sides_go_on(serving: tuple[RunningServer, str], of_thread: bool) -> None:
    """And the parent's connection is not spoken on by the child, nor closed by its end."""
    server, authority = serving
    client = backwater.Client(server.url, server.secret, ca_file=authority, timeout=20.0)
    done = [threading.Event(), threading.Event()]
    results: list[int] = []

    def call_twice() -> None:
        results.append(client.call("functions", "add", 1))
        done[0].set()
        assert done[1].wait(30)
        results.append(client.call("functions", "add", 2))

    if of_thread:
        caller = threading.Thread(target=call_twice)
        caller.start()
        assert done[0].wait(10)
    else:
        results.append(client.call("functions", "add", 1))
    requests = client.counters()["requests"]

    def child() -> None:
        gc.collect()
        assert client.call("functions", "add", 10) == 10
        assert client.gather(("functions", "add", [11]), ("functions", "add", [12])) == [11, 12]

    _in_child(child)
    if of_thread:
        done[1].set()
        caller.join(20)
    else:
        results.append(client.call("functions", "add", 2))
    assert results == [1, 2]
    assert client.counters()["requests"] == requests + 1
    assert client.counters()["retries"] == 0
    if not of_thread:  # a thread's connection ends with the thread
        assert _connections(server) == 1


_FORKING = """
import os, sys
import backwater_tornado as backwater
url, secret, authority = sys.argv[1:]
client = backwater.Client(url, bytes.fromhex(secret), ca_file=authority, timeout=20.0)
client.call("functions", "add", 1)
child = os.fork()
if child == 0:
    sys.exit(client.call("functions", "add", 0))
assert os.waitpid(child, 0)[1] == 0
client.call("functions", "add", 1)
print(client.counters()["retries"])
"""


def test_a_child_that_ends_as_programs_do_leaves_the_parents_connection_alone(
    serving: tuple[RunningServer, str],
) -> None:
    """The interpreter's end frees what is left; curl would say goodbye on connections that are not the child's."""
    server, authority = serving
    assert isinstance(server.secret, bytes)
    command = [sys.executable, "-c", _FORKING, server.url, server.secret.hex(), authority]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_after_a_fork_an_awaiting_client_goes_on(serving: tuple[RunningServer, str]) -> None:
    server, authority = serving
    client = backwater.AsyncClient(server.url, server.secret, ca_file=authority, timeout=20.0)

    async def run() -> None:
        assert await client.call("functions", "add", 1) == 1

        def child() -> None:
            asyncio.events._set_running_loop(None)
            assert asyncio.run(client.call("functions", "add", 10)) == 10

        _in_child(child)
        assert await client.call("functions", "add", 2) == 2

    asyncio.run(run())
    assert client.counters()["retries"] == 0
    client.close()


def test_a_child_uses_numbers_of_its_own(serving: tuple[RunningServer, str], tmp_path: Path) -> None:
    """Otherwise its calls would be taken for its parent's."""
    server, authority = serving
    client = backwater.Client(server.url, server.secret, ca_file=authority)
    client.call("functions", "add", 1)
    parents = client._session.stream.name
    told = tmp_path / "stream"
    _in_child(lambda: told.write_text(client._session.stream.name) and None)
    assert told.read_text() != parents
    assert client._session.stream.name == parents


def test_a_blocking_client_works_within_a_running_loop(serving: tuple[RunningServer, str]) -> None:
    """As in Jupyter, where every cell runs in one."""
    server, authority = serving

    async def cell() -> int:
        return int(backwater.call((server.url, server.secret), "functions", "add", [1, 2], ca_file=authority))

    assert asyncio.run(cell()) == 3


def test_an_awaiting_client_serves_one_loop_after_the_other(serving: tuple[RunningServer, str]) -> None:
    """Without leaving connections behind on loops that have ended."""
    server, authority = serving
    client = backwater.AsyncClient(server.url, server.secret, ca_file=authority)
    process = psutil.Process()
    for number in range(3):
        assert asyncio.run(client.call("functions", "add", number)) == number
    gc.collect()
    before = process.num_fds()
    for number in range(8):
        assert asyncio.run(client.call("functions", "add", number)) == number
    gc.collect()
    _until(lambda: process.num_fds() <= before + 1)
    client.close()


def test_threads_that_end_leave_no_connections_behind(serving: tuple[RunningServer, str]) -> None:
    server, authority = serving
    client = backwater.Client(server.url, server.secret, ca_file=authority)

    def in_threads(count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=client.call, args=("functions", "add", 1))
            thread.start()
            thread.join(10)
        gc.collect()

    in_threads(3)
    before = psutil.Process().num_fds()
    in_threads(10)
    _until(lambda: psutil.Process().num_fds() <= before + 1)


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if condition():
            return
        pause.wait(0.01)
    raise TimeoutError


_BLOCKED = """
import signal, sys, threading, time
import backwater_tornado as backwater
url, secret, face, kind = sys.argv[1:]
if kind == "own handler":
    class Stopped(BaseException): pass
    def stop(*signal): raise Stopped
    signal.signal(signal.SIGINT, stop)
else:
    Stopped = KeyboardInterrupt
try:
    if face == "awaitable":
        import asyncio
        asyncio.run(backwater.AsyncClient(url, secret, timeout=60.0, recv_timeout=60.0).call("functions", "wait"))
    else:
        client = backwater.Client(url, secret, timeout=60.0, recv_timeout=60.0)
        client.call("functions", "wait")
except Stopped:
    print("stopped", flush=True)
if face != "awaitable":
    print(client.call("functions", "add", 1, 2), flush=True)
"""


@pytest.mark.parametrize(
    ("face", "kind"), [("blocking", "default handler"), ("blocking", "own handler"), ("awaitable", "default handler")]
)
def test_ctrl_c_ends_a_call_that_waits(functions: Functions, face: str, kind: str) -> None:
    with running_server({"functions": functions}, b"a secret of this test, long enough") as server:
        command = [sys.executable, "-c", _BLOCKED, server.url, "a secret of this test, long enough", face, kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert functions.entered.acquire(timeout=20)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=3)
        finally:
            process.kill()
            process.wait()
            functions.go.set()
    assert out.split() == (["stopped", "3"] if face == "blocking" else ["stopped"]), error
    assert error == ""
    assert process.returncode == 0
