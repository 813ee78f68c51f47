"""A server from its start to its end: listening, TLS, keys, limits of functions, context, draining, mounting."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycurl
import pytest
import trustme
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

import backwater_tornado as backwater
from backwater_tornado import errors
from backwater_tornado.protocol.keys import Key
from backwater_tornado.server import stop_server
from backwater_tornado.testing import RunningServer, running_server
from tests.end_to_end.target import Target, connect, exchange

OLD = Key(b"the old secret, long enough", "old")
NEW = Key(b"the new secret, long enough", "new")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Functions:
    """Exposed as `functions`."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.ended = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.running = 0
        self.most = 0
        self.ran: list[str] = []
        self.client: backwater.Client | None = None
        self._lock = threading.Lock()

    @backwater.expose
    def add(self, x: int, y: int = 0) -> int:
        return x + y

    @backwater.expose
    async def add_awaited(self, x: int, y: int = 0) -> int:
        return x + y

    @backwater.expose
    def echo(self, value: Any) -> Any:
        return value

    @backwater.expose
    def note(self, what: str) -> None:
        self.ran.append(what)

    @backwater.expose
    async def note_awaited(self, what: str) -> None:
        self.ran.append(what)

    @backwater.expose
    def wait(self) -> str:
        self.entered.release()
        assert self.go.wait(20)
        self.ended.release()
        return "waited"

    @backwater.expose(max_concurrency=2)
    def narrow(self) -> int:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.entered.release()
        assert self.go.wait(20)
        with self._lock:
            self.running -= 1
        return self.most

    @backwater.expose(max_concurrency=1)
    async def narrow_awaited(self) -> str:
        self.entered.release()
        if not self.go.is_set():
            await asyncio.sleep(20)
        return "done"

    @backwater.expose(time_limit=0.2)
    async def short_awaited(self) -> None:
        self.entered.release()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @backwater.expose(time_limit=0.2)
    def short(self) -> None:
        self.entered.release()
        assert self.go.wait(20)
        call = backwater.current_call()
        assert call is not None
        self.ran.append(f"{call.remaining():.1f} s left")
        self.ended.release()

    @backwater.expose
    def context(self) -> dict[str, Any]:
        call = backwater.current_call()
        assert call is not None
        return _told(call)

    @backwater.expose
    async def context_awaited(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        call = backwater.current_call()
        assert call is not None
        return _told(call)

    @backwater.expose
    def nested(self) -> dict[str, Any]:
        assert self.client is not None
        return self.client.call("functions", "context")  # type: ignore[no-any-return]


def _told(call: backwater.CallContext) -> dict[str, Any]:
    return {
        "key_id": call.key_id,
        "request_id": call.request_id,
        "name": f"{call.module}.{call.function}",
        "remaining": call.remaining(),
        "traceparent": call.traceparent,
    }


@pytest.fixture
def functions() -> Iterator[Functions]:
    made = Functions()
    yield made
    made.go.set()


@pytest.fixture
def server(functions: Functions) -> Iterator[RunningServer]:
    with running_server({"functions": functions}, OLD) as running:
        yield running
        functions.go.set()


def _client(server: RunningServer, key: object = OLD, **options: Any) -> backwater.Client:
    return backwater.Client(server.url, key, **{"timeout": 20.0, **options})


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1_000):
        if condition():
            return
        pause.wait(0.01)
    raise TimeoutError


@contextmanager
def _in_thread(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """The work runs beside the block; its result, or what it raised, is in the list after it."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join(20)
        assert not thread.is_alive()


# Functions and their limits ------------------------------------------------------------------------------------------


def test_a_slow_plain_function_does_not_hold_up_the_loop(server: RunningServer, functions: Functions) -> None:
    client = _client(server)
    with ExitStack() as stack:
        waiting = [stack.enter_context(_in_thread(lambda: client.call("functions", "wait"))) for _ in range(3)]
        for _ in range(3):
            assert functions.entered.acquire(timeout=10)
        assert client.call("functions", "add_awaited", 1, 2) == 3
        assert client.call("functions", "add", 1, 2) == 3
        functions.go.set()
    assert waiting == [["waited"]] * 3


def test_no_more_runs_at_once_than_a_function_allows(server: RunningServer, functions: Functions) -> None:
    client = _client(server)
    with ExitStack() as stack:
        results = [stack.enter_context(_in_thread(lambda: client.call("functions", "narrow"))) for _ in range(8)]
        for _ in range(2):
            assert functions.entered.acquire(timeout=10)
        _until(lambda: server.run(lambda: server.server.service.dispatcher.pending) == 8)
        # Others are not held up by it.
        assert client.call("functions", "add", 1) == 1
        functions.go.set()
    assert results == [[2]] * 8
    assert functions.most == 2


def test_places_are_given_back_whatever_ends_a_call(server: RunningServer, functions: Functions) -> None:
    """Deadlines pass while calls wait for a place, while they get one, and while they run."""

    async def run() -> list[Any]:
        async with backwater.AsyncClient(server.url, OLD) as client:
            hurried = [
                client.with_options(timeout=0.05 + number * 0.003).call("functions", "narrow_awaited")
                for number in range(60)
            ]
            return await asyncio.gather(*hurried, return_exceptions=True)

    results = asyncio.run(run())
    assert {type(result) for result in results} == {errors.DeadlineExceeded}
    _until(lambda: server.run(lambda: server.server.service.dispatcher.pending) == 0)
    functions.go.set()
    assert _client(server).call("functions", "narrow_awaited") == "done"


def test_a_coroutine_is_cancelled_at_its_limit(server: RunningServer, functions: Functions) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        _client(server).call("functions", "short_awaited")
    assert functions.cancelled.wait(10)


def test_a_plain_function_is_told_that_its_time_is_over(server: RunningServer, functions: Functions) -> None:
    """Nobody can end a thread; its caller does not wait for it."""
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        _client(server).call("functions", "short")
    assert time.monotonic() - began < 5
    functions.go.set()
    assert functions.ended.acquire(timeout=10)
    assert functions.ran == ["0.0 s left"]


@pytest.mark.parametrize("function", ["short", "short_awaited"])
def test_a_retry_of_a_call_that_ran_out_of_time_gets_the_same_answer(
    server: RunningServer, functions: Functions, function: str
) -> None:
    client = _client(server, recv_timeout=0.1, backoff=0.001, max_attempts=100)
    with pytest.raises(errors.DeadlineExceeded):
        client.call("functions", function)
    functions.go.set()
    assert functions.entered.acquire(timeout=10)
    assert not functions.entered.acquire(blocking=False)


def test_a_call_that_comes_too_late_is_not_run(server: RunningServer, functions: Functions) -> None:
    from tests.end_to_end.test_bad_input import MSGPACK, _head, _sign

    body = MSGPACK.encode([["late"], {}])
    for function in ("note", "note_awaited"):
        for more in ({}, {"idempotency_key": f'"{function}.1";settled=0'}):
            head = _sign(_head(body, path=f"/backwater/2/functions/{function}", backwater_timeout="0", **more), OLD)
            assert exchange(server.port, head, body).value["type"].endswith("deadline_exceeded")
    _client(server).call("functions", "note", "in time")
    assert functions.ran == ["in time"]


def test_the_time_that_a_large_call_waits_for_a_thread_counts(functions: Functions) -> None:
    """All threads are busy; when one is free, the large call is late, and is not run."""
    with running_server({"functions": functions}, OLD, threads=1) as server:
        client = _client(server)
        with _in_thread(lambda: client.call("functions", "wait")):
            assert functions.entered.acquire(timeout=10)
            noise = "x" * 1_000_000
            with pytest.raises(errors.DeadlineExceeded):
                client.with_options(timeout=0.3).call("functions", "note", noise)
            functions.go.set()
        assert client.call("functions", "add", 1) == 1
        assert functions.ran == []


# Context -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["context", "context_awaited"])
def test_a_function_knows_the_call_that_it_serves(server: RunningServer, function: str) -> None:
    client = _client(server).with_options(timeout=7.0, traceparent=TRACE)
    first, second = client.call("functions", function), client.call("functions", function)
    assert first["key_id"] == "old"
    assert first["name"] == f"functions.{function}"
    assert 0 < first["remaining"] <= 7.0
    assert first["traceparent"] == TRACE
    assert first["request_id"] != second["request_id"]
    assert backwater.current_call() is None


def test_a_nested_call_inherits_deadline_and_trace(server: RunningServer, functions: Functions) -> None:
    functions.client = _client(server, timeout=100.0)
    told = _client(server).with_options(timeout=3.0, traceparent=TRACE).call("functions", "nested")
    assert told["name"] == "functions.context"
    assert 0 < told["remaining"] <= 3.0
    assert told["traceparent"] == TRACE


# Large and small -----------------------------------------------------------------------------------------------------


def test_large_bodies_go_both_ways_and_hold_up_no_small_call() -> None:
    with Target() as target:
        from tests.end_to_end.target import KEY

        noise = b"\x00\x01\xfe\xff" * (7 << 18)
        large, small = (backwater.Client(target.url, KEY, timeout=40.0) for _ in range(2))
        done = threading.Event()
        longest = 0.0

        def call_large() -> bool:
            try:
                return all(large.call("tasks", "echo", noise) == noise for _ in range(4))
            finally:
                done.set()

        with _in_thread(call_large) as results:
            while not done.is_set():
                began = time.monotonic()
                assert small.call("tasks", "add", 1) == 1
                longest = max(longest, time.monotonic() - began)
        assert results == [True]
        # Far below what four of them take, and far above what a busy machine makes of one small call.
        assert longest < 1.0


# Keys ----------------------------------------------------------------------------------------------------------------


def test_keys_are_rotated_under_load(server: RunningServer) -> None:
    """New keys are accepted first, then used, then the old ones are dropped: no call fails meanwhile."""
    clients = {"old": [OLD], "both": [OLD, NEW], "new": [NEW]}
    stages: list[tuple[list[Key], str]] = [([OLD], "old"), ([OLD, NEW], "both"), ([NEW], "new"), ([NEW], "both")]
    stop = threading.Event()
    calls = [0]
    current = ["old"]

    def call_on() -> None:
        made = {name: _client(server, keys) for name, keys in clients.items()}
        while not stop.is_set():
            assert made[current[0]].call("functions", "add", 1, 2) == 3
            calls[0] += 1

    with ExitStack() as stack:
        results = [stack.enter_context(_in_thread(call_on)) for _ in range(3)]
        stack.callback(stop.set)
        for keys, name in stages:
            if keys[0] is OLD:
                server.run(lambda keys=keys: server.server.reload_keys(keys))  # type: ignore[misc]
            current[0] = name
            reached = calls[0] + 60
            _until(lambda reached=reached: calls[0] >= reached)  # type: ignore[misc]
            if name == "both":
                server.run(lambda: server.server.reload_keys([NEW]))
    assert results == [[None]] * 3
    with pytest.raises(errors.ResponseUnsigned, match="unknown_key"):
        _client(server, OLD).call("functions", "add", 1)


def test_bad_keys_do_not_replace_good_ones(server: RunningServer) -> None:
    with pytest.raises(errors.InvalidKey):
        server.run(lambda: server.server.reload_keys(b"short"))
    assert _client(server).call("functions", "add", 1) == 1


# Shutting down -------------------------------------------------------------------------------------------------------


def test_calls_in_flight_end_before_the_server_does(server: RunningServer, functions: Functions) -> None:
    client = _client(server)
    with connect(server.port) as idle, connect(server.port) as probing:
        probing.send(b"GET /healthz HTTP/1.1\r\n")
        _until(lambda: server.run(lambda: server.server.listener.connections) == 2)
        with _in_thread(lambda: client.call("functions", "wait")) as results:
            assert functions.entered.acquire(timeout=10)
            with _in_thread(lambda: server.stop(20)) as stopped:
                _until(lambda: server.run(lambda: server.server.service.draining))
                # Idle connections are closed, new ones are not taken, and a probe that is under way learns the truth.
                assert idle.closed
                with pytest.raises(errors.Unreachable):
                    _client(server, max_attempts=1).call("functions", "add", 1)
                probing.send(b"Host: x\r\n\r\n")
                assert probing.read_answer().status == 503
                assert results == stopped == []
                functions.go.set()
        assert results == ["waited"]
    assert stopped == [True]


def test_many_calls_in_one_request_end_before_the_server_does(server: RunningServer, functions: Functions) -> None:
    client = _client(server)
    calls = [("functions", "wait"), ("functions", "add", [1])]
    with _in_thread(lambda: client.gather(*calls)) as results:
        assert functions.entered.acquire(timeout=10)
        with _in_thread(lambda: server.stop(20)) as stopped:
            _until(lambda: server.run(lambda: server.server.service.draining))
            functions.go.set()
    assert results == [["waited", 1]]
    assert stopped == [True]


def test_a_request_whose_body_comes_while_shutting_down_is_not_run(server: RunningServer, functions: Functions) -> None:
    from tests.end_to_end.target import write_head
    from tests.end_to_end.test_bad_input import MSGPACK, _head, _sign

    body = MSGPACK.encode([["late"], {}])
    head = _sign(_head(body, path="/backwater/2/functions/note"), OLD)
    client = _client(server)
    with connect(server.port) as connection, _in_thread(lambda: client.call("functions", "wait")):
        connection.send(write_head(head) + body[:-1])
        assert functions.entered.acquire(timeout=10)
        with _in_thread(lambda: server.stop(20)):
            _until(lambda: server.run(lambda: server.server.service.draining))
            connection.send(body[-1:])
            assert connection.read_answer().value["type"].endswith("draining")
            functions.go.set()
    assert functions.ran == []


def test_what_does_not_end_in_time_is_cut(server: RunningServer, functions: Functions) -> None:
    client = _client(server, max_attempts=1)
    with _in_thread(lambda: client.call("functions", "wait")) as results:
        assert functions.entered.acquire(timeout=10)
        assert server.stop(0.1) is False
    assert isinstance(results[0], errors.OutcomeUnknown)


def test_servers_have_names(functions: Functions) -> None:
    async def run() -> None:
        def start(ref: str) -> backwater.Server:
            return backwater.start_clear_server(OLD, {"functions": functions}, ref=ref, port=0, address="127.0.0.1")

        first, second = start("first"), start("second")
        assert first.port != second.port
        with pytest.raises(errors.InvalidOption, match="'first' is running already"):
            start("first")
        for server in (first, second):
            async with backwater.AsyncClient(f"http://127.0.0.1:{server.port}", OLD) as client:
                assert await client.call("functions", "add", 1) == 1
        assert await stop_server("first") is True
        assert await stop_server("first") is True
        async with backwater.AsyncClient(f"http://127.0.0.1:{second.port}", OLD) as client:
            assert await client.call("functions", "add", 1) == 1
        again = start("first")
        assert await stop_server() is True
        for server in (first, second, again):
            async with backwater.AsyncClient(f"http://127.0.0.1:{server.port}", OLD, max_attempts=1) as client:
                with pytest.raises(errors.Unreachable):
                    await client.call("functions", "add", 1)

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Tornado leaves its socket to the garbage collector
def test_a_port_in_use_is_told_and_leaves_no_server_behind(server: RunningServer, functions: Functions) -> None:
    async def run() -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="in use"):
                backwater.start_clear_server(OLD, {"functions": functions}, port=server.port, address="127.0.0.1")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 0, "max_connection": 1}, "unknown option 'max_connection'"),
        ({"port": 0, "max_connections": 0}, "max_connections is a number above 0"),
        ({"port": 0, "threads": "many"}, "threads is a number above 0"),
        ({"port": 0, "max_header_size": 100}, "max_header_size is 2048 or more"),
        ({"port": 0, "compression_level": 30}, "compression_level is between 1 and 19"),
    ],
)
def test_a_wrong_option_is_named(functions: Functions, options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidOption, match=message):
        backwater.start_clear_server(OLD, {"functions": functions}, **options)


# The log -------------------------------------------------------------------------------------------------------------


def test_the_access_log_has_no_secrets(functions: Functions, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = b"hush-hush-hush-hush-hush"
    with running_server({"functions": functions}, secret, access_log=True) as server:
        client = _client(server, secret)
        client.call("functions", "echo", "a-private-argument")
        client.gather(("functions", "add", [1]), ("functions", "add", [2]))
        with pytest.raises(errors.ResponseUnsigned):
            _client(server, b"wrong-secret-wrong-secret").call("functions", "add", 1)
        with pytest.raises(errors.UnknownFunction):
            client.call("functions", "nothing")
    lines = [record.getMessage() for record in caplog.records if record.name == "backwater.access"]
    assert [line.split()[:3] for line in lines] == [
        ["POST", "/backwater/2/functions/echo", "200"],
        ["POST", "/backwater/2", "200"],
        ["POST", "/backwater/2/functions/add", "401"],
        ["POST", "/backwater/2/functions/nothing", "404"],
    ]
    assert "calls=2" in lines[1]
    assert lines[2].endswith("key=-")
    everything = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    for private in ("hush-hush", "a-private-argument", "wrong-secret", "sha-256", "nonce="):
        assert private not in everything


def test_without_the_option_there_is_no_access_log(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _client(server).call("functions", "add", 1)
    assert [record for record in caplog.records if record.name in ("backwater.access", "tornado.access")] == []


# In somebody's application -------------------------------------------------------------------------------------------


class Mine(RequestHandler):
    def get(self) -> None:
        self.write("mine")


@contextmanager
def _hosted(make: Callable[[], Application]) -> Iterator[str]:
    """An application on a server of Tornado's own; gives its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[HTTPServer, int]:
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(make())
        server.add_sockets(sockets)
        return server, sockets[0].getsockname()[1]

    async def stop(server: HTTPServer) -> None:
        server.stop()
        await server.close_all_connections()
        await loop.shutdown_default_executor()

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.mark.parametrize("prefix", ["", "/rpc/v1"])
def test_routes_live_in_anybodys_application(functions: Functions, prefix: str) -> None:
    """With cookies, and protection against forged forms, which calls neither have nor need."""

    def make() -> Application:
        routes = backwater.routes(OLD, {"functions": functions}, prefix=prefix, max_encoded_args_size=4 << 20)
        settings = {"xsrf_cookies": True, "cookie_secret": "c" * 32, "log_function": lambda handler: None}
        return Application([(r"/mine", Mine), *routes], **settings)

    with _hosted(make) as url:
        client = backwater.Client(url + prefix, OLD, timeout=20.0, media_type="application/msgpack")
        assert client.call("functions", "add", 1, 2) == 3
        assert client.gather(*[("functions", "add", [number]) for number in range(20)]) == list(range(20))
        noise = bytes(range(256)) * (12 << 10)
        assert client.call("functions", "echo", noise) == noise
        with pytest.raises(errors.UnknownFunction):
            client.call("functions", "nothing")
        with pytest.raises(errors.ResponseUnsigned, match="unknown_key"):
            backwater.Client(url + prefix, NEW).call("functions", "echo", noise)
        with pytest.raises(errors.ResponseUnsigned, match="404"):
            backwater.Client(f"{url}/elsewhere", OLD).call("functions", "add", 1)
        port = int(url.rpartition(":")[2])
        page = exchange(port, b"GET /mine HTTP/1.1\r\nHost: x\r\n\r\n")
        assert page.body == b"mine"
        for method in (b"GET", b"HEAD", b"PUT", b"BREW"):
            answer = exchange(port, method + f" {prefix}/backwater/2/a/b HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.status == 405


def test_an_application_of_ours_serves_calls_and_a_probe(functions: Functions) -> None:
    with _hosted(lambda: backwater.application(OLD, {"functions": functions})) as url:
        client = backwater.Client(url, OLD, timeout=20.0)
        assert client.call("functions", "add", 1, 2) == 3
        assert client.gather(("functions", "add", [1]), ("functions", "add", [2])) == [1, 2]
        port = int(url.rpartition(":")[2])
        probe = exchange(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (probe.status, probe.body) == (204, b"")
        nothing = exchange(port, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert nothing.status == 404
        assert nothing.value["type"].endswith("path_not_found")


def test_several_edges_share_what_they_serve(functions: Functions) -> None:
    """The same call over two connections, and again in another media type, has run once."""
    with running_server({"functions": functions}, OLD) as server:
        from tests.end_to_end.test_bad_input import MSGPACK, _head, _sign

        body = MSGPACK.encode([["once"], {}])
        for _ in range(3):
            head = _sign(_head(body, path="/backwater/2/functions/note", idempotency_key='"once.1";settled=0'), OLD)
            assert exchange(server.port, head, body).value is None
    assert functions.ran == ["once"]


# Addresses and TLS ---------------------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certificate authority with a server's and a client's certificate, as files."""

    ca: str
    server: str
    client: str


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> list[Authority]:
    return [_authority(tmp_path_factory.mktemp("authority")) for _ in range(2)]


def _authority(folder: Path) -> Authority:
    made = trustme.CA()
    made.cert_pem.write_to_path(folder / "ca.pem")
    made.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    made.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    return Authority(*(str(folder / name) for name in ("ca.pem", "server.pem", "client.pem")))


def test_tls_with_a_pinned_authority(functions: Functions, authorities: list[Authority]) -> None:
    ours, theirs = authorities
    with running_server({"functions": functions}, OLD, certfile=ours.server, keyfile=ours.server) as server:
        assert _client(server, ca_file=ours.ca).call("functions", "add", 1) == 1

        async def run() -> list[int]:
            async with backwater.AsyncClient(server.url, OLD, ca_file=ours.ca) as client:
                return await client.gather(*[("functions", "add", [number]) for number in range(20)])

        assert asyncio.run(run()) == list(range(20))
        for options in ({"ca_file": theirs.ca}, {}):
            client = _client(server, **options)
            with pytest.raises(errors.TLSFailed, match="ca_file"):
                client.call("functions", "add", 1)
            assert client.counters()["requests"] == 1  # trying again would not help
        # The name has to fit as well.
        named = {"curl_options": {pycurl.RESOLVE: [f"other.example:{server.port}:127.0.0.1"]}, "ca_file": ours.ca}
        with pytest.raises(errors.TLSFailed):
            backwater.Client(f"https://other.example:{server.port}", OLD, **named).call("functions", "add", 1)
        with pytest.raises(errors.CallFailed):
            backwater.Client(f"http://127.0.0.1:{server.port}", OLD, max_attempts=1).call("functions", "add", 1)


def test_tls_that_asks_for_a_clients_certificate(functions: Functions, authorities: list[Authority]) -> None:
    ours, theirs = authorities
    certificates = {"certfile": ours.server, "keyfile": ours.server, "client_ca": ours.ca}
    with running_server({"functions": functions}, OLD, **certificates) as server:
        options = {"ca_file": ours.ca, "max_attempts": 2, "timeout": 5.0}
        good = _client(server, client_cert=ours.client, client_key=ours.client, **options)
        assert good.call("functions", "add", 1) == 1
        for other in ({}, {"client_cert": theirs.client, "client_key": theirs.client}):
            with pytest.raises((errors.Unreachable, errors.OutcomeUnknown)):
                _client(server, **other, **options).call("functions", "add", 1)
        assert good.call("functions", "add", 1) == 1


def test_a_certificate_that_cannot_be_used_is_named(functions: Functions, authorities: list[Authority]) -> None:
    ours, theirs = authorities
    for certificates in (
        {"certfile": "/nowhere", "keyfile": "/nowhere"},
        {"certfile": ours.server, "keyfile": theirs.server},
        {"certfile": ours.server, "keyfile": ours.server, "client_ca": "/nowhere"},
    ):
        with pytest.raises(errors.InvalidOption, match="cannot be used"):
            backwater.start_tls_server(OLD, {"functions": functions}, port=0, **certificates)


def test_ipv6(functions: Functions) -> None:
    try:
        for socket in bind_sockets(0, "::1"):
            socket.close()
    except OSError:
        pytest.skip("no IPv6 here")
    with running_server({"functions": functions}, OLD, address="::1", authorities=("[::1]",)) as server:
        for endpoint in (f"http://[::1]:{server.port}", f"[::1]:{server.port}", ("::1", server.port)):
            assert backwater.Client(endpoint, OLD, timeout=10.0).call("functions", "add", 1) == 1
