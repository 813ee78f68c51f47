"""The edges to Tornado: what brings requests into `conversations`, and takes their answers out.

There are two, over the same conversation. `CallHandler` is a `RequestHandler` and mounts in any application. `Front`
stands before an application of ours and takes calls straight from the connection, which halves what a small call costs
(a `RequestHandler` is a task, three futures and seven turns of the loop for each request).

Rule: no decision about a call here; what an edge knows is how Tornado wants bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from http import HTTPStatus

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import Application, RequestHandler, stream_request_body

from .conversations import Conversation
from .errors import PathNotFound
from .protocol.messages import HttpResponse
from .protocol.serving import Exchange
from .protocol.signatures import RequestHead, normal_authority
from .service import Service

CALLS = "/backwater/"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


def read_head(method: str, target: str, headers: HTTPHeaders, scheme: str) -> RequestHead:
    """The head of a request as it is signed."""
    fields: dict[str, str] = {}
    for given_name, value in headers.get_all():
        name = given_name.lower()
        # RFC 9421, 2.1: several lines are signed as one, joined like this.
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    path, _, query = target.partition("?")
    return RequestHead(method, normal_authority(fields.get("host", ""), scheme), path, query, fields)


# Straight from the connection ----------------------------------------------------------------------------------------


class Front(HTTPServerConnectionDelegate):
    """Takes calls from connections; everything else goes on to the application."""

    def __init__(self, service: Service, application: Application, scheme: str) -> None:
        self.service = service
        self.application = application
        self.scheme = scheme

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Tornado is about to read a request."""
        return _Incoming(self, server_conn, request_conn)


class _Incoming(HTTPMessageDelegate):
    """One request on a connection of ours; an `Outlet` for its conversation."""

    def __init__(self, front: Front, server_conn: object, connection: HTTPConnection) -> None:
        self._front = front
        self._server_conn = server_conn
        self._connection = connection
        self._conversation: Conversation | None = None
        self._inner: HTTPMessageDelegate | None = None
        #: The answer to HEAD has no body.
        self._bodiless = False
        self._gone = False

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """The head has come."""
        assert isinstance(start_line, RequestStartLine)
        if not start_line.path.startswith(CALLS):
            self._inner = self._front.application.start_request(self._server_conn, self._connection)
            return self._inner.headers_received(start_line, headers)
        self._conversation = Conversation(self._front.service, self)
        self._bodiless = start_line.method == "HEAD"
        # The peer may go away at any time, also while the call runs.
        self._connection.set_close_callback(self.on_connection_close)  # type: ignore[attr-defined]
        self._conversation.head(read_head(start_line.method, start_line.path, headers, self._front.scheme))
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """A part of the body."""
        if self._conversation is None:
            return self._inner.data_received(chunk) if self._inner is not None else None
        self._conversation.data(chunk)
        return None

    def finish(self) -> None:
        """The body is complete."""
        if self._conversation is not None:
            self._conversation.complete()
        elif self._inner is not None:
            self._inner.finish()

    def on_connection_close(self) -> None:
        """The peer is gone."""
        self._gone = True
        if self._inner is not None:
            self._inner.on_connection_close()

    def answer(self, response: HttpResponse, *, close: bool) -> None:
        """See `Outlet`."""
        if self._gone:
            return
        headers = HTTPHeaders(response.fields)
        if close:
            headers["Connection"] = "close"
        body = None if self._bodiless else response.body or None
        self._connection.write_headers(_status_line(response.status), headers, body)
        self.end()

    def begin(self, status: int, fields: Mapping[str, str]) -> None:
        """See `Outlet`."""
        if self._gone:
            raise ConnectionResetError
        self._connection.write_headers(_status_line(status), HTTPHeaders(fields))

    def write(self, data: bytes) -> Awaitable[None]:
        """See `Outlet`."""
        return self._connection.write(data)

    def end(self) -> None:
        """See `Outlet`."""
        self._connection.set_close_callback(None)  # type: ignore[attr-defined]
        self._connection.finish()
        # Cuts the circle of references, so that nothing waits for the garbage collector.
        self._conversation = None


def _status_line(status: int) -> ResponseStartLine:
    return ResponseStartLine("HTTP/1.1", status, _REASONS.get(status, "Unknown"))


# In an application ---------------------------------------------------------------------------------------------------


class _Handler(RequestHandler):
    """What all our handlers leave out of Tornado's: cookies, pages, tags and default headers."""

    def initialize(self, service: Service) -> None:
        """Tornado hands over what the route was given."""
        self.service = service

    def clear(self) -> None:
        """No Server, Date or Content-Type by default: each header costs bytes and time on both sides."""
        self._headers = HTTPHeaders()
        self._write_buffer: list[bytes] = []
        self._status_code = 200
        self._reason = "OK"

    def compute_etag(self) -> str | None:
        """None: an answer is never cached."""
        return None

    def check_xsrf_cookie(self) -> None:
        """The signature does what the cookie is for."""

    def set_head(self, status: int, fields: Mapping[str, str]) -> None:
        """Status and headers of the answer."""
        self.set_status(status, _REASONS.get(status, "Unknown"))
        for name, value in fields.items():
            self.set_header(name, value)


@stream_request_body
class CallHandler(_Handler):
    """Calls in an application of anybody's."""

    def prepare(self) -> None:
        """The head has come."""
        request = self.request
        self.outlet = _HandlerOutlet(self)
        self.conversation = Conversation(self.service, self.outlet)
        self.conversation.head(read_head(request.method or "", request.uri or "", request.headers, request.protocol))

    def data_received(self, chunk: bytes) -> None:
        """A part of the body."""
        self.conversation.data(chunk)

    async def post(self, *names: str) -> None:
        """The body is complete."""
        self.conversation.complete()
        await self.outlet.ended

    get = head = put = delete = patch = options = post

    def on_connection_close(self) -> None:
        """The peer is gone."""
        self.outlet.let_go()


class _HandlerOutlet:
    """An `Outlet` through a handler."""

    def __init__(self, handler: CallHandler) -> None:
        self._handler = handler
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def let_go(self) -> None:
        """Nothing more will be sent."""
        if not self.ended.done():
            self.ended.set_result(None)

    def answer(self, response: HttpResponse, *, close: bool) -> None:
        """See `Outlet`."""
        if self.ended.done():
            return
        if close:
            self._handler.set_header("Connection", "close")
        self._handler.set_head(response.status, response.fields)
        self._handler.finish(response.body or None)
        self.let_go()

    def begin(self, status: int, fields: Mapping[str, str]) -> None:
        """See `Outlet`."""
        if self.ended.done():
            raise ConnectionResetError
        self._handler.set_head(status, fields)

    def write(self, data: bytes) -> Awaitable[None]:
        """See `Outlet`."""
        self._handler.write(data)
        return self._handler.flush()

    def end(self) -> None:
        """See `Outlet`."""
        self._handler.finish()
        self.let_go()


@stream_request_body
class HealthHandler(_Handler):
    """`/healthz`: 204 while serving, 503 while shutting down; no content, no key needed."""

    def data_received(self, chunk: bytes) -> None:
        """A body of somebody without a key is not kept."""

    def get(self) -> None:
        """Answer the probe."""
        self.set_head(503 if self.service.draining else 204, {})
        self.finish()

    head = get


@stream_request_body
class NotFoundHandler(_Handler):
    """Any other path of an application of ours."""

    def data_received(self, chunk: bytes) -> None:
        """As `HealthHandler.data_received`."""

    def get(self) -> None:
        """Refuse, behind the body: who is hung up on in the middle of it may miss the answer."""
        exchange = Exchange(RequestHead(self.request.method or "", "", self.request.path, "", {}), time.time())
        error = PathNotFound("calls are made at /backwater/2/MODULE/FUNCTION")
        response = self.service.serving.refuse(exchange, error, time.time())
        self.set_head(response.status, response.fields)
        self.finish(response.body)

    head = post = put = delete = patch = options = get
