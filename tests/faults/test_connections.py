"""Connections that dawdle, flood, break off or speak nonsense: bounded, ended, and of no effect on anybody else."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest

import backwater_tornado as backwater
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.signatures import RequestHead, sign_request
from backwater_tornado.testing import RunningServer, running_server
from tests.end_to_end.target import Connection, connect, write_head
from tests.wire import fields_of

KEY = Key(bytes(range(32)), "test")
SOON = 0.3
#: The sweep looks once a second.
SWEPT = 4.0
_NUMBERS = iter(range(1, 1_000_000))


class Functions:
    """Exposed as `functions`."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.runs = 0

    def add(self, x: int, y: int = 0) -> int:
        return x + y

    def wait(self) -> str:
        self.runs += 1
        self.entered.release()
        assert self.go.wait(20)
        return "waited"

    def large(self) -> bytes:
        return bytes(range(256)) * (12 << 12)


@contextmanager
def _serving(**options: Any) -> Iterator[tuple[RunningServer, Functions]]:
    functions = Functions()
    with running_server({"functions": functions}, KEY, **options) as server:
        try:
            yield server, functions
        finally:
            functions.go.set()


def _request(function: str, *args: object, **more: str) -> bytes:
    body = MSGPACK.encode([list(args), {}])
    fields = fields_of(body, **more)
    head = RequestHead("POST", "host", f"/backwater/2/functions/{function}", "", fields)
    created = int(time.time())
    nonce = f"{time.monotonic_ns() % 10**11:011d}.{next(_NUMBERS)}"
    written = sign_request(KEY, head, created=created, expires=created + 60, nonce=nonce)
    fields["signature-input"], fields["signature"] = written
    return write_head(head) + body


def _good_call(server: RunningServer) -> None:
    client = backwater.Client(server.url, KEY)
    assert client.call("functions", "add", 1, 2) == 3
    client.close()


def _connections(server: RunningServer) -> int:
    return server.run(lambda: server.server.listener.connections)


def _until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    pause = threading.Event()
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        pause.wait(0.01)


# Dawdlers ------------------------------------------------------------------------------------------------------------


def _says_nothing(connection: Connection) -> None:
    pass


def _starts_a_header(connection: Connection) -> None:
    connection.send(_request("add", 1)[:40])


def _starts_a_body(connection: Connection) -> None:
    connection.send(_request("add", 1)[:-1])


def _starts_a_refused_body(connection: Connection) -> None:
    connection.send(b"POST /backwater/2/functions/add HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")


def _is_idle(connection: Connection) -> None:
    connection.send(_request("add", 1))
    assert connection.read_answer().status == 200


def _starts_a_second_header(connection: Connection) -> None:
    _is_idle(connection)
    connection.send(_request("add", 1)[:40])


PATIENT = {"header_timeout": 60.0, "body_timeout": 60.0, "idle_timeout": 60.0}
DAWDLERS: list[tuple[str, Callable[[Connection], None], str]] = [
    ("says nothing", _says_nothing, "header_timeout"),
    ("half of a header", _starts_a_header, "header_timeout"),
    ("half of a later header", _starts_a_second_header, "header_timeout"),
    ("half of a body", _starts_a_body, "body_timeout"),
    ("half of a refused body", _starts_a_refused_body, "body_timeout"),
    ("idle", _is_idle, "idle_timeout"),
]


@pytest.mark.parametrize(("dawdle", "limit"), [row[1:] for row in DAWDLERS], ids=[row[0] for row in DAWDLERS])
def test_a_dawdler_is_hung_up_on_by_its_own_limit(dawdle: Callable[[Connection], None], limit: str) -> None:
    with _serving(**{**PATIENT, limit: SOON}) as (server, _):
        with connect(server.port) as connection:
            dawdle(connection)
            began = time.monotonic()
            assert connection.closed
            assert time.monotonic() - began < SWEPT
        _good_call(server)


def test_a_header_that_trickles_in_does_not_reset_its_limit() -> None:
    with _serving(**{**PATIENT, "header_timeout": SOON}) as (server, _), connect(server.port) as connection:
        pause = threading.Event()
        began = time.monotonic()
        with pytest.raises(OSError):
            for letter in b"POST / HTTP/1.1\r\n" + b"x: " + b"y" * 10_000:
                connection.send(bytes([letter]))
                assert time.monotonic() - began < SWEPT
                pause.wait(0.02)


def test_a_call_that_takes_long_is_no_dawdler() -> None:
    """All limits are short here, and pass twice while it runs."""
    short = {"header_timeout": SOON, "body_timeout": SOON, "idle_timeout": SOON}
    with _serving(**short) as (server, functions), connect(server.port) as busy:
        busy.send(_request("wait"))
        assert functions.entered.acquire(timeout=10)
        for _ in range(2):
            with connect(server.port) as idle:
                assert idle.closed
        functions.go.set()
        assert busy.read_answer().value == "waited"


def test_a_peer_that_takes_nothing_of_its_answer_is_hung_up_on() -> None:
    limits = {**PATIENT, "body_timeout": SOON, "max_encoded_result_size": 32 << 20}
    with _serving(**limits) as (server, _), connect(server.port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # JSON is not compressed for those who do not say that they take it.
        connection.send(_json_request("large"))
        assert connection.socket.recv(100).startswith(b"HTTP/1.1 200")
        assert _connections(server) == 1
        _until(lambda: _connections(server) == 0)
        _good_call(server)


def _json_request(function: str) -> bytes:
    body = b"[[],{}]"
    fields = fields_of(body, "application/json")
    head = RequestHead("POST", "host", f"/backwater/2/functions/{function}", "", fields)
    created = int(time.time())
    written = sign_request(KEY, head, created=created, expires=created + 60, nonce=f"json{next(_NUMBERS)}")
    fields["signature-input"], fields["signature"] = written
    return write_head(head) + body


# Too much ------------------------------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_turned_away_and_the_others_served() -> None:
    with _serving(max_connections=3) as (server, _), ExitStack() as stack:
        held = [stack.enter_context(connect(server.port)) for _ in range(3)]
        _until(lambda: _connections(server) == 3)
        for _ in range(20):
            with connect(server.port) as beyond:
                answer = beyond.read_answer()
                assert (answer.status, answer.fields["retry-after"]) == (503, "1")
                assert beyond.closed
        assert _connections(server) == 3
        held[0].send(_request("add", 1, 2))
        assert held[0].read_answer().value == 3
        held[1].socket.close()
        held[1]._file.close()
        _until(lambda: _connections(server) == 2)
        _good_call(server)


def test_a_client_waits_until_there_is_room_for_its_connection() -> None:
    with _serving(max_connections=1) as (server, _), connect(server.port) as held:
        _until(lambda: _connections(server) == 1)
        client = backwater.Client(server.url, KEY, timeout=20.0, backoff=0.01)
        threading.Timer(0.1, lambda: (held._file.close(), held.socket.close())).start()
        assert client.call("functions", "add", 1, 2) == 3
        assert client.counters()["retries"] >= 1


@pytest.mark.parametrize(
    "flood",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 3_000_000,
        b"POST /" + b"x" * 3_000_000,
        b"POST / HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 500_000,
        b"\r\n" * 1_500_000,
        b"x" * 3_000_000,
    ],
    ids=["a long header", "a long line", "many headers", "empty lines", "no HTTP"],
)
def test_a_header_without_an_end_costs_no_memory(flood: bytes) -> None:
    with _serving() as (server, _), ExitStack() as stack:
        resident = psutil.Process().memory_info().rss
        for _ in range(5):
            connection = stack.enter_context(connect(server.port))
            try:
                connection.send(flood)
                connection.socket.shutdown(socket.SHUT_WR)
                while connection.socket.recv(65536):
                    pass
            except OSError:
                pass
        _until(lambda: _connections(server) == 0)
        assert psutil.Process().memory_info().rss - resident < 20 << 20
        _good_call(server)


def test_a_header_within_the_limit_is_read_and_one_beyond_is_not() -> None:
    with _serving(max_header_size=4096) as (server, _):
        for size, answered in ((2000, True), (5000, False)):
            with connect(server.port) as connection:
                connection.send(_request("add", 1).replace(b"\r\n", b"\r\nx: " + b"y" * size + b"\r\n", 1))
                if answered:
                    assert connection.read_answer().value == 1
                else:
                    assert connection.closed


def test_a_connection_is_closed_after_its_share_of_requests() -> None:
    with _serving(max_keepalive=3) as (server, _), connect(server.port) as connection:
        for number in range(3):
            connection.send(_request("add", number))
            answer = connection.read_answer()
            assert answer.value == number
            assert ("connection" in answer.fields) is (number == 2)
        assert connection.closed
        client = backwater.Client(server.url, KEY)
        assert [client.call("functions", "add", number) for number in range(10)] == list(range(10))
        assert client.counters()["retries"] == 0


# Odd orders ----------------------------------------------------------------------------------------------------------


def test_requests_sent_ahead_are_answered_in_order() -> None:
    with _serving() as (server, functions), connect(server.port) as connection:
        ahead = [_request("wait"), *[_request("add", number) for number in range(30)]]
        connection.send(b"".join(ahead))
        assert functions.entered.acquire(timeout=10)
        functions.go.set()
        assert connection.read_answer().value == "waited"
        assert [connection.read_answer().value for _ in range(30)] == list(range(30))


def test_a_request_in_pieces_is_read() -> None:
    request = _request("add", 20, 22)
    with _serving() as (server, _), connect(server.port) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), 7):
            connection.send(request[at : at + 7])
        assert connection.read_answer().value == 42


def test_a_peer_that_closes_its_half_does_no_harm() -> None:
    """It may get its answer or not; the function runs once, and the connection is given back."""
    with _serving() as (server, functions), connect(server.port) as connection:
        connection.send(_request("wait"))
        assert functions.entered.acquire(timeout=10)
        connection.socket.shutdown(socket.SHUT_WR)
        _good_call(server)
        functions.go.set()
        while connection.socket.recv(65536):
            pass
        _until(lambda: _connections(server) == 0)
        _until(lambda: server.run(lambda: server.server.service.dispatcher.pending) == 0)
        assert functions.runs == 1


@pytest.mark.parametrize("function", ["wait", "large"])
def test_a_peer_that_is_reset_does_no_harm(function: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with _serving() as (server, functions):
        for _ in range(3):
            with connect(server.port) as connection:
                connection.send(_request(function))
                if function == "wait":
                    assert functions.entered.acquire(timeout=10)
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        functions.go.set()
        _until(lambda: _connections(server) == 0)
        _until(lambda: server.run(lambda: server.server.service.dispatcher.pending) == 0)
        _good_call(server)
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"POST /backwater/2/functions/add HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /backwater/2/functions/add HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\nab",
        b"POST /backwater/2/functions/add HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /backwater/2/functions/add HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
        b"POST /backwater/2/functions/add HTTP/1.1\r\nHost: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"POST http://x/backwater/2/functions/add HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST * HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /backwater/2/\x00\x01 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /backwater/2/a/b HTTP/1.1\r\nHost: x\r\n folded: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /backwater/2/a/b HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
        b"POST /backwater/2/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /backwater/2/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /backwater/2/a/b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz?\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\nCookie: \xff=;;;\r\nAuthorization: Basic !!\r\n\r\n",
        b"GET /backwater/2 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"\x00" * 1000,
    ],
    ids=lambda data: repr(data[:60]),
)
def test_nonsense_is_refused_or_hung_up_on(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """And nobody without a key can write tracebacks into the log."""
    with _serving(access_log=True) as (server, _):
        with connect(server.port) as connection:
            connection.send(nonsense)
            connection.socket.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while data := connection.socket.recv(65536):
                    answer += data
            except ConnectionError:
                pass
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 204", b"HTTP/1.1 100"))
        assert b"Traceback" not in answer
        _until(lambda: _connections(server) == 0)
        _good_call(server)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_connections_that_come_and_go_leave_nothing_behind() -> None:
    with _serving() as (server, _):
        _good_call(server)
        _until(lambda: _connections(server) == 0)
        before = psutil.Process().num_fds()
        for round_ in range(100):
            with connect(server.port) as connection:
                if round_ % 2:
                    connection.send(_request("add", 1)[: round_ * 3])
        _until(lambda: _connections(server) == 0)
        _until(lambda: psutil.Process().num_fds() <= before)
