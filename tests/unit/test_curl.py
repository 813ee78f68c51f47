"""curl's two faces against servers that fail at a chosen moment: what was sent is told from what was not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pycurl
import pytest

from backwater_tornado.curl import EasyTransport, MultiEngine
from backwater_tornado.errors import (
    CallFailed,
    InvalidOption,
    OutcomeUnknown,
    ResponseAltered,
    ResponseUndecodable,
    Unreachable,
)
from backwater_tornado.options import ClientOptions, Limits
from backwater_tornado.protocol.messages import HttpRequest, HttpResponse

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-One: 1\r\nX-One: 2\r\n\r\nok"
Script = Callable[[socket.socket, int], None]


class Peer:
    """Takes connections; for each request that it has read whole, `script` gets the connection and a number."""

    def __init__(self, script: Script) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            try:
                while True:
                    while not data.endswith(b"BODY"):
                        received = connection.recv(65536)
                        if not received:
                            return
                        data += received
                    self.requests.append(data)
                    data = b""
                    self._script(connection, len(self.requests))
            except OSError:
                return

    def stop_listening(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self.stop_listening()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@contextmanager
def _peer(script: Script) -> Iterator[Peer]:
    peer = Peer(script)
    try:
        yield peer
    finally:
        peer.close()


Send = Callable[..., HttpResponse]


class Blocking:
    def __init__(self, **options: Any) -> None:
        self._transport = EasyTransport(ClientOptions(**options))

    def send(self, port: int, timeout: float = 10.0, *, fresh: bool = False) -> HttpResponse:
        return self._transport.send(_request(port), timeout, fresh=fresh)[0]

    def close(self) -> None:
        self._transport.close()


class Awaiting:
    def __init__(self, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._engine = MultiEngine(self._runner.get_loop(), ClientOptions(**options))

    def send(self, port: int, timeout: float = 10.0, *, fresh: bool = False) -> HttpResponse:
        async def run() -> HttpResponse:
            done: asyncio.Future[tuple[Any, CallFailed | None]] = asyncio.get_running_loop().create_future()

            def end(transfer: Any, error: CallFailed | None) -> None:
                done.set_result((None if error else transfer.response(), error))

            self._engine.send(_request(port), timeout, end, fresh=fresh)
            response, error = await done
            if error is not None:
                raise error
            return response  # type: ignore[no-any-return]

        return self._runner.run(run())

    def close(self) -> None:
        self._engine.close()
        self._runner.close()


Face = Blocking | Awaiting


@pytest.fixture(params=[Blocking, Awaiting], ids=["blocking", "awaitable"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Face]]:
    made: list[Face] = []

    def make(**options: Any) -> Face:
        made.append(request.param(**options))
        return made[-1]

    yield make
    for face in made:
        face.close()


Connect = Callable[..., Face]


def _request(port: int) -> HttpRequest:
    return HttpRequest(f"http://127.0.0.1:{port}/path", [("x-given", "1")], b"BODY")


def test_a_request_is_sent_as_it_is_given_and_its_answer_read(connect: Connect) -> None:
    with _peer(lambda connection, number: connection.sendall(OK)) as peer:
        response = connect().send(peer.port)
    assert (response.status, response.body) == (200, b"ok")
    assert response.fields == {"content-length": "2", "x-one": "1, 2"}
    lines = peer.requests[0].split(b"\r\n")
    assert lines[0] == b"POST /path HTTP/1.1"
    assert {line.split(b":")[0].lower() for line in lines[1:-2]} <= {
        b"host",
        b"x-given",
        b"content-length",
        b"content-type",
    }


def test_connections_are_kept_unless_a_fresh_one_is_asked_for(connect: Connect) -> None:
    with _peer(lambda connection, number: connection.sendall(OK)) as peer:
        face = connect()
        for _ in range(3):
            face.send(peer.port)
        assert peer.connections == 1
        face.send(peer.port, fresh=True)
        assert peer.connections == 2


def test_interim_answers_are_passed_over(connect: Connect) -> None:
    with _peer(lambda connection, number: connection.sendall(b"HTTP/1.1 102 Wait\r\nX-Two: 2\r\n\r\n" + OK)) as peer:
        response = connect().send(peer.port)
    assert response.status == 200
    assert "x-two" not in response.fields


def test_nobody_there_is_unreachable(connect: Connect) -> None:
    with pytest.raises(Unreachable):
        connect().send(1)


def test_no_such_host_is_unreachable(connect: Connect) -> None:
    face = connect(curl_options={pycurl.RESOLVE: ["-127.0.0.1:1"], pycurl.PROXY: "http://nowhere.invalid:1"})
    with pytest.raises(Unreachable):
        face.send(1)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nX-One: 1",
        b"HTTP/1.1 200 OK\r\nX-One: 1\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"nonsense\r\n\r\n",
    ],
)
def test_an_answer_that_was_cut_is_lost(connect: Connect, answer: bytes) -> None:
    def cut(connection: socket.socket, number: int) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    with _peer(cut) as peer, pytest.raises(OutcomeUnknown) as raised:
        connect().send(peer.port)
    assert raised.value.retryable
    assert len(peer.requests) == 1


@pytest.mark.parametrize("gone", [False, True], ids=["peer stays", "peer goes"])
def test_a_request_is_sent_once_whatever_becomes_of_its_connection(connect: Connect, gone: bool) -> None:
    """curl itself would send it again when a kept connection dies, and call it unreachable if it cannot."""

    def once(connection: socket.socket, number: int) -> None:
        if number == 1:
            connection.sendall(OK)
            return
        if gone:
            peer.stop_listening()
        connection.shutdown(socket.SHUT_RDWR)

    with _peer(once) as peer:
        face = connect()
        face.send(peer.port)
        with pytest.raises(OutcomeUnknown):
            face.send(peer.port)
        assert len(peer.requests) == 2


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_unseen(connect: Connect) -> None:
    def answer_and_close(connection: socket.socket, number: int) -> None:
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)

    with _peer(answer_and_close) as peer:
        face = connect()
        assert face.send(peer.port).status == 200
        # curl looks whether a connection has been closed when it was last used a second ago or more.
        threading.Event().wait(1.2)
        assert face.send(peer.port).status == 200


def test_silence_ends_a_request_and_no_sooner_than_it_should(connect: Connect) -> None:
    with _peer(lambda connection, number: None) as peer:
        face = connect(recv_timeout=0.6)
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown, match="nothing was heard for 0.6 s"):
            face.send(peer.port)
        assert 0.5 < time.monotonic() - began < 3


def test_silence_beside_busy_requests_is_noticed_too() -> None:
    """curl's own limit of speed is not looked at while other requests keep its loop busy."""
    arrived = threading.Event()

    def answer_all_but_the_first(connection: socket.socket, number: int) -> None:
        if number == 1:
            arrived.set()
        else:
            connection.sendall(OK)

    with _peer(answer_all_but_the_first) as peer:

        async def run() -> float:
            engine = MultiEngine(asyncio.get_running_loop(), ClientOptions(recv_timeout=0.6))
            silent: asyncio.Future[CallFailed | None] = asyncio.get_running_loop().create_future()
            began = time.monotonic()
            engine.send(_request(peer.port), 30.0, lambda transfer, error: silent.set_result(error))
            assert await asyncio.get_running_loop().run_in_executor(None, arrived.wait, 10)
            while not silent.done():
                busy: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                engine.send(_request(peer.port), 30.0, lambda *_, busy=busy: busy.set_result(None))  # type: ignore[misc]
                await busy
            engine.close()
            assert isinstance(silent.result(), OutcomeUnknown)
            return time.monotonic() - began

        assert asyncio.run(run()) < 3


def test_what_comes_slowly_is_not_silent(connect: Connect) -> None:
    def trickle(connection: socket.socket, number: int) -> None:
        pause = threading.Event()
        for at in range(len(OK)):
            connection.sendall(OK[at : at + 1])
            pause.wait(0.03)

    with _peer(trickle) as peer:
        assert connect(recv_timeout=0.8).send(peer.port).body == b"ok"


def test_the_time_of_a_request_is_bounded(connect: Connect) -> None:
    with _peer(lambda connection, number: None) as peer:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            connect(recv_timeout=30.0).send(peer.port, 0.3)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "endless"])
def test_an_answer_beyond_all_measure_is_not_kept(connect: Connect, stated: bool) -> None:
    size = 64 << 20

    def flood(connection: socket.socket, number: int) -> None:
        length = b"Content-Length: %d\r\n" % size if stated else b""
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        piece = bytes(1 << 20)
        for _ in range(size >> 20):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_RDWR)

    with _peer(flood) as peer:
        resident = psutil.Process().memory_info().rss
        with pytest.raises(ResponseUndecodable):
            connect(limits=Limits(max_encoded_result_size=1 << 20)).send(peer.port)
        assert psutil.Process().memory_info().rss - resident < 24 << 20


def test_an_option_of_curls_that_it_does_not_take_is_named(connect: Connect) -> None:
    for options in ({pycurl.TIMEOUT: "soon"}, {999_999: 1}):
        with pytest.raises(InvalidOption, match="curl option"):
            connect(curl_options=options).send(1)


def test_what_refuses_the_parts_of_an_answer_ends_it() -> None:
    with _peer(lambda connection, number: connection.sendall(OK)) as peer:

        async def run() -> CallFailed | None:
            engine = MultiEngine(asyncio.get_running_loop(), ClientOptions())
            done: asyncio.Future[CallFailed | None] = asyncio.get_running_loop().create_future()

            def refuse(transfer: Any, data: bytes) -> None:
                raise ResponseAltered("no")

            engine.send(_request(peer.port), 10.0, lambda _, error: done.set_result(error), on_data=refuse)
            error = await done
            engine.close()
            return error

        assert isinstance(asyncio.run(run()), ResponseAltered)


def test_a_closed_engine_ends_what_is_in_flight_and_takes_no_more() -> None:
    with _peer(lambda connection, number: None) as peer:

        async def run() -> CallFailed | None:
            engine = MultiEngine(asyncio.get_running_loop(), ClientOptions())
            ended: list[CallFailed | None] = []
            for _ in range(3):
                engine.send(_request(peer.port), 10.0, lambda _, error: ended.append(error))
            assert engine.active == 3
            engine.close()
            with pytest.raises(Unreachable):
                engine.send(_request(peer.port), 10.0, lambda *_: None)
            assert [type(error) for error in ended] == [OutcomeUnknown] * 3
            return ended[0]

        asyncio.run(run())
