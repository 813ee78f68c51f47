"""What a configured HTTP client of Tornado's may do to us: anything, and the call ends all the same."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from backwater_tornado import Exposed
from backwater_tornado.errors import CallFailed, OutcomeUnknown, ResponseAltered
from backwater_tornado.options import ClientOptions
from backwater_tornado.protocol.messages import HttpRequest
from backwater_tornado.testing import CUT_AFTER_REQUEST, PASS, BadNetwork, Fault, Script, running_server
from backwater_tornado.tornado_engine import Received, TornadoEngine

REQUEST = HttpRequest("http://host/path", [("content-type", "text/plain")], b"body")
HEAD = ["HTTP/1.1 200 OK\r\n", "Content-Type: text/plain\r\n", "\r\n"]


class Scripted(AsyncHTTPClient):
    """An HTTP client of somebody's making: `answer` is what its fetch does."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Nothing of Tornado's own."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[HTTPRequest] = []

    async def fetch(self, request: HTTPRequest, raise_error: bool = True, **more: Any) -> HTTPResponse:  # type: ignore[override]
        assert not raise_error
        self.asked.append(request)
        return await self.answer(request)  # type: ignore[no-any-return]


def _whole(request: HTTPRequest, code: int = 200, body: bytes = b"answer", lines: list[str] = HEAD) -> HTTPResponse:
    if request.header_callback is not None:
        for line in lines:
            request.header_callback(line)
    if request.streaming_callback is not None:
        request.streaming_callback(body)
        body = b""
    headers = HTTPHeaders({"Content-Type": "text/plain"})
    return HTTPResponse(request, code, headers=headers, buffer=io.BytesIO(body))


def _send(answer: Any, *, on_data: Any = None, timeout: float = 5.0) -> tuple[Received, CallFailed | None, Scripted]:
    async def main() -> tuple[Received, CallFailed | None, Scripted]:
        client = Scripted(answer)
        engine = TornadoEngine(client, ClientOptions())
        done: asyncio.Future[tuple[Received, CallFailed | None]] = asyncio.get_running_loop().create_future()
        engine.send(REQUEST, timeout, lambda *what: done.set_result(what), on_data=on_data)
        async with asyncio.timeout(10):
            return *(await done), client

    return asyncio.run(main())


def test_a_whole_answer_is_given() -> None:
    async def answer(request: HTTPRequest) -> HTTPResponse:
        return _whole(request)

    received, error, client = _send(answer)
    assert error is None
    assert received.response().status == 200
    assert received.response().fields == {"content-type": "text/plain"}
    assert received.response().body == b"answer"
    assert received.received == 6
    asked = client.asked[0]
    assert (asked.method, asked.body, asked.headers["content-type"]) == ("POST", b"body", "text/plain")
    assert not asked.follow_redirects
    assert not asked.decompress_response


def test_certificates_are_those_of_the_options() -> None:
    async def main() -> HTTPRequest:
        async def answer(request: HTTPRequest) -> HTTPResponse:
            return _whole(request)

        client = Scripted(answer)
        options = ClientOptions(ca_file="ca.pem", client_cert="cert.pem", client_key="key.pem")
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        TornadoEngine(client, options).send(REQUEST, 5.0, lambda *what: done.set_result(what))
        async with asyncio.timeout(10):
            await done
        return client.asked[0]

    asked = asyncio.run(main())
    assert (asked.ca_certs, asked.client_cert, asked.client_key) == ("ca.pem", "cert.pem", "key.pem")


def test_an_answer_in_parts_is_handed_on_with_its_head() -> None:
    async def answer(request: HTTPRequest) -> HTTPResponse:
        return _whole(request, lines=["HTTP/1.1 100 Continue\r\n", "\r\n", *HEAD])

    parts: list[tuple[int, dict[str, str], bytes]] = []
    received, error, _ = _send(
        answer, on_data=lambda got, data: parts.append((got.head().status, dict(got.head().fields), data))
    )
    assert error is None
    assert parts == [(200, {"content-type": "text/plain"}, b"answer")]
    assert received.received == 6


@pytest.mark.parametrize("lines", [HEAD, ["HTTP/1.1 100 Continue\r\n", "\r\n", *HEAD]], ids=["plain", "after 100"])
@pytest.mark.parametrize("known", [0, 1, 2], ids=lambda known: f"{known} lines known")
def test_parts_that_come_before_their_head_wait_for_it(lines: list[str], known: int) -> None:
    """As Tornado 6.6's curl client gives them when head and body arrive together."""

    async def answer(request: HTTPRequest) -> HTTPResponse:
        assert request.header_callback is not None
        assert request.streaming_callback is not None
        for line in lines[:known]:
            request.header_callback(line)
        for part in (b"an", b"swer"):
            request.streaming_callback(part)
        for line in lines[known:]:
            request.header_callback(line)
        return HTTPResponse(request, 200, headers=HTTPHeaders(), buffer=io.BytesIO())

    parts: list[tuple[int, dict[str, str], bytes]] = []
    received, error, _ = _send(
        answer, on_data=lambda got, data: parts.append((got.head().status, dict(got.head().fields), data))
    )
    assert error is None
    assert parts == [(200, {"content-type": "text/plain"}, b"an"), (200, {"content-type": "text/plain"}, b"swer")]
    assert received.received == 6


def test_what_refuses_the_parts_fails_the_request() -> None:
    async def answer(request: HTTPRequest) -> HTTPResponse:
        return _whole(request)

    def refuse(received: Received, data: bytes) -> None:
        raise ResponseAltered("no")

    _, error, _ = _send(answer, on_data=refuse)
    assert isinstance(error, ResponseAltered)


def test_a_head_that_was_cut_is_no_answer() -> None:
    """To curl, the end of the connection ends a head as well."""

    async def answer(request: HTTPRequest) -> HTTPResponse:
        return _whole(request, lines=HEAD[:2], body=b"")

    _, error, _ = _send(answer)
    assert isinstance(error, OutcomeUnknown)
    assert error.retryable


@pytest.mark.parametrize(
    "raised",
    [HTTPClientError(599, "timeout"), OSError("reset"), RuntimeError("fetch() called on closed client"), ValueError()],
)
def test_whatever_the_client_raises_ends_the_call(raised: Exception) -> None:
    async def answer(request: HTTPRequest) -> HTTPResponse:
        raise raised

    _, error, _ = _send(answer)
    assert isinstance(error, OutcomeUnknown)
    assert type(raised).__name__ in str(error)


def test_an_answer_that_is_an_error_of_the_client_itself_is_none() -> None:
    async def answer(request: HTTPRequest) -> HTTPResponse:
        return HTTPResponse(request, 599, error=HTTPClientError(599, "no route"))

    _, error, _ = _send(answer)
    assert isinstance(error, OutcomeUnknown)
    assert "no route" in str(error)


def test_the_time_in_the_clients_queue_counts() -> None:
    async def answer(request: HTTPRequest) -> HTTPResponse:
        await asyncio.sleep(30)
        raise AssertionError

    _, error, _ = _send(answer, timeout=0.05)
    assert isinstance(error, OutcomeUnknown)


def test_closing_ends_what_is_in_flight() -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def answer(request: HTTPRequest) -> HTTPResponse:
            entered.set()
            await asyncio.sleep(30)
            raise AssertionError

        engine = TornadoEngine(Scripted(answer), ClientOptions())
        done: asyncio.Future[CallFailed | None] = asyncio.get_running_loop().create_future()
        engine.send(REQUEST, 20.0, lambda received, error: done.set_result(error))
        async with asyncio.timeout(10):
            await entered.wait()
            engine.close()
            assert isinstance(await done, OutcomeUnknown)
        engine.abandon()

    asyncio.run(main())


class Functions:
    def nothing(self) -> None:
        return None


@pytest.mark.parametrize("fresh", [False, True])
def test_a_fresh_request_has_a_connection_of_its_own(fresh: bool) -> None:
    """Tornado's curl sends again, by itself, what it sent on a kept connection that died without an answer."""

    async def main() -> list[Fault]:
        client = CurlAsyncHTTPClient(force_instance=True)
        engine = TornadoEngine(client, ClientOptions())
        outcomes: asyncio.Queue[CallFailed | None] = asyncio.Queue()
        for kept in (False, fresh):
            engine.send(request, 5.0, lambda _, error: outcomes.put_nowait(error), fresh=kept)
            await outcomes.get()
        client.close()
        return proxy.faults()

    script = Script([PASS, CUT_AFTER_REQUEST])
    with (
        running_server(Exposed(functions=Functions())) as server,
        BadNetwork("127.0.0.1", server.port, script) as proxy,
    ):
        request = HttpRequest(f"http://127.0.0.1:{proxy.port}/nowhere", [], b"")
        assert asyncio.run(main()) == [PASS, CUT_AFTER_REQUEST, PASS][: 2 if fresh else 3]
