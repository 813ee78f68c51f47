"""Faults of single HTTP requests, against a small server of the standard library."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest

from backwater_tornado.network_simulator import requests
from backwater_tornado.network_simulator.paths import End
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
    Script,
    Seen,
    stall,
)


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with how many requests came before and the body; `/chunked`, `/close` and `/hang-up` do as they say."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        server = self.server
        assert isinstance(server, EchoServer)
        if len(body) < length:
            server.truncated.set()
            return
        answer = b"%d:" % server.count() + body
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (answer[:2], answer[2:]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\nX-Trailer: yes\r\n\r\n")
            return
        if self.path == "/close":
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.close_connection or self.path == "/hang-up"

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


class EchoServer(http.server.ThreadingHTTPServer):
    """Counts the requests that it has read whole, and notes one that ended too early."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.requests = 0
        self.arrived = threading.Semaphore(0)
        self.truncated = threading.Event()
        self._lock = threading.Lock()

    def count(self) -> int:
        with self._lock:
            self.requests += 1
            self.arrived.release()
            return self.requests - 1

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was cut is what these tests are about."""


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Caller:
    """A client with one kept connection."""

    def __init__(self, proxy: BadNetwork, timeout: float = 10.0) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)

    def post(self, body: bytes = b"hello", path: str = "/") -> bytes:
        self.connection.request("POST", path, body)
        return self.connection.getresponse().read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.connection.close()


def proxied(server: EchoServer, *faults: Fault) -> BadNetwork:
    return BadNetwork("127.0.0.1", server.server_port, Script(faults))


def test_requests_of_every_framing_pass_over_one_connection(server: EchoServer) -> None:
    with proxied(server) as proxy, Caller(proxy) as caller:
        assert caller.post() == b"0:hello"
        assert caller.post(b"again", "/chunked") == b"1:again"
        caller.connection.request("HEAD", "/")
        assert caller.connection.getresponse().read() == b""
        caller.connection.request("POST", "/", b"x" * 300_000)
        assert len(caller.connection.getresponse().read()) == 300_002
    assert proxy.counts().connections == 1
    assert proxy.faults() == [PASS] * 4
    assert [(seen.number, seen.on_connection, seen.method) for seen, _ in proxy.seen] == [
        (0, 0, "POST"),
        (1, 1, "POST"),
        (2, 2, "HEAD"),
        (3, 3, "POST"),
    ]


def test_an_answer_that_ends_with_its_connection_passes_and_ends_ours(server: EchoServer) -> None:
    with proxied(server) as proxy, Caller(proxy) as caller:
        assert caller.post(path="/close") == b"0:hello"
        assert caller.post() == b"1:hello"  # http.client connects anew by itself
    assert proxy.counts().connections == 2


def test_a_chunked_request_and_a_client_that_waits_to_continue_are_understood(server: EchoServer) -> None:
    with proxied(server) as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(b"POST /a?b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        stream = sock.makefile("rb")
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        sock.sendall(b"ok")
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        stream.close()
        ((seen, _),) = proxy.seen
        assert (seen.target, seen.headers["content-length"], seen.body) == ("/a?b", "2", b"ok")
    with proxied(server, DROP) as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        chunked = b"5;x=1\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n"
        sock.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
        proxy.wait_for(1)
        assert proxy.seen[0][0].body == chunked


def test_cut_before_request_keeps_it_from_the_server(server: EchoServer) -> None:
    with proxied(server, CUT_BEFORE_REQUEST) as proxy, Caller(proxy) as caller:
        with pytest.raises(http.client.RemoteDisconnected):
            caller.post()
        assert server.requests == 0
        assert caller.post() == b"0:hello"
    assert proxy.faults() == [CUT_BEFORE_REQUEST, PASS]


def test_cut_after_request_lets_the_server_answer_and_delivers_nothing(server: EchoServer) -> None:
    with proxied(server, CUT_AFTER_REQUEST) as proxy, Caller(proxy) as caller:
        with pytest.raises(http.client.RemoteDisconnected):
            caller.post()
        assert server.requests == 1
        assert caller.post() == b"1:hello"


@pytest.mark.parametrize("path", ["/", "/chunked"])
def test_cut_mid_response_delivers_half_of_the_answer(server: EchoServer, path: str) -> None:
    with proxied(server, CUT_MID_RESPONSE) as proxy, Caller(proxy) as caller:
        with pytest.raises(http.client.IncompleteRead) as caught:
            caller.post(b"x" * 10_000, path)
        assert 4_000 < len(caught.value.partial) < 6_000 or path == "/chunked"
        assert server.requests == 1


@pytest.mark.parametrize("fault", [CUT_BEFORE_REQUEST, CUT_AFTER_REQUEST])
def test_a_cut_may_be_a_reset(server: EchoServer, fault: Fault) -> None:
    with proxied(server, fault.with_reset()) as proxy, Caller(proxy) as caller:
        with pytest.raises(ConnectionResetError) as caught:
            caller.post()
        assert not isinstance(caught.value, http.client.RemoteDisconnected)


def test_a_stall_holds_the_answer_back(server: EchoServer) -> None:
    with proxied(server, stall(0.2)) as proxy, Caller(proxy) as caller:
        begun = time.monotonic()
        assert caller.post() == b"0:hello"
        assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize(("fault", "requests"), [(STALL_FOREVER, 1), (DROP, 0)])
def test_a_stall_for_ever_and_a_dropped_request_are_never_answered(
    server: EchoServer, fault: Fault, requests: int
) -> None:
    with proxied(server, fault) as proxy, Caller(proxy) as caller:
        caller.connection.request("POST", "/", b"hello")
        for _ in range(requests):
            assert server.arrived.acquire(timeout=10)
        caller.connection.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            caller.connection.getresponse()
        caller.connection.close()
        assert caller.post() == b"%d:hello" % requests  # the proxy is not held up by it


def test_a_duplicate_reaches_the_server_twice_and_the_first_answer_is_delivered(server: EchoServer) -> None:
    with proxied(server, DUPLICATE) as proxy, Caller(proxy) as caller:
        assert caller.post() == b"0:hello"
        assert server.requests == 2
        assert caller.post() == b"2:hello"
    assert proxy.counts().connections == 1


def test_the_answer_to_a_duplicate_can_be_delivered_instead(server: EchoServer) -> None:
    with proxied(server, DUPLICATE_ANSWERED) as proxy, Caller(proxy) as caller:
        assert caller.post() == b"1:hello"


def test_truncate_request_gives_the_server_half_of_it(server: EchoServer) -> None:
    with proxied(server, TRUNCATE_REQUEST) as proxy, Caller(proxy) as caller:
        with pytest.raises(http.client.RemoteDisconnected):
            caller.post(b"x" * 10_000)
        assert server.truncated.wait(10)
        assert server.requests == 0


def test_an_idle_server_that_hangs_up_ends_the_clients_connection(server: EchoServer) -> None:
    with proxied(server) as proxy, socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(b"POST /hang-up HTTP/1.1\r\nContent-Length: 2\r\n\r\nok")
        with sock.makefile("rb") as stream:
            assert stream.read().endswith(b"0:ok")


def test_all_connections_can_be_cut_at_once(server: EchoServer) -> None:
    with proxied(server) as proxy, Caller(proxy) as caller:
        assert caller.post() == b"0:hello"
        proxy.cut_all()
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            caller.post()
        caller.connection.close()
        assert caller.post() == b"1:hello"


def test_a_server_that_is_not_there_ends_the_connection_until_another_is_named(server: EchoServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    with BadNetwork("127.0.0.1", free, Script([])) as proxy, Caller(proxy) as caller:
        with pytest.raises(http.client.RemoteDisconnected):
            caller.post()
        proxy.upstream = ("127.0.0.1", server.server_port)
        assert caller.post() == b"0:hello"


def test_what_breaks_in_a_policy_is_raised_at_the_end(server: EchoServer) -> None:
    def broken(seen: Seen) -> Fault:
        raise LookupError("no such fault")

    with (
        pytest.raises(ExceptionGroup, match="the network simulator itself broke") as caught,
        BadNetwork("127.0.0.1", server.server_port, broken) as proxy,
        Caller(proxy) as caller,
        pytest.raises(http.client.RemoteDisconnected),
    ):
        caller.post()
    assert isinstance(caught.value.exceptions[0], LookupError)


def test_waiting_for_requests_that_do_not_come_ends(server: EchoServer) -> None:
    with proxied(server) as proxy, pytest.raises(TimeoutError, match="0 of 1 requests"):
        proxy.wait_for(1, timeout=0.01)


def test_a_mix_draws_the_same_faults_from_the_same_seed() -> None:
    seen = Seen(0, 0, 0, b"POST / HTTP/1.1\r\n\r\n", b"")
    weights = {PASS: 3.0, CUT_AFTER_REQUEST: 1.0, DUPLICATE: 1.0}
    one, same, other = Mix(1, weights), Mix(1, weights), Mix(2, weights)
    drawn = [one(seen) for _ in range(50)]
    assert drawn == [same(seen) for _ in range(50)]
    assert drawn != [other(seen) for _ in range(50)]
    assert set(drawn) == set(weights)


def test_bytes_that_come_before_their_reader_looks_are_seen() -> None:
    async def read() -> bool:
        stream = requests._Stream(End(lambda end: None))
        reading = asyncio.ensure_future(stream.fill())
        stream.write(b"a whole request")  # before the reader's first step
        async with asyncio.timeout(5):
            return await reading

    assert asyncio.run(read())
