"""A Tornado `HTTPServer` that bounds what a connection may cost, and that can be drained.

Tornado starts one timer for each header block and each body. Here one sweep a second looks at all connections, which
costs the call path nothing and tells a slow header from an idle connection. Connections beyond the limit get a canned
503 before anything is read from them.

Rule: knows connections, not requests; what is served is the application's business.
"""

from __future__ import annotations

import asyncio
import copy
import ssl
import time
from collections.abc import Awaitable
from enum import Enum, auto
from typing import Any

from tornado import httputil
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.iostream import IOStream, StreamClosedError

from .options import ListenerOptions

SWEEP_PERIOD = 1.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 21\r\n\r\ntoo many connections\n"
)


class Phase(Enum):
    """What a connection is doing."""

    WAITING = auto()
    READING = auto()
    SERVING = auto()


class Connection:
    """One connection: its phase, since when, and how many requests it has had."""

    __slots__ = ("phase", "requests", "since", "started", "stream", "taken")

    def __init__(self, stream: IOStream) -> None:
        self.stream = stream
        self.phase = Phase.WAITING
        self.requests = 0
        #: When the phase began, and when the first byte of a header was seen by a sweep (both `time.monotonic()`).
        self.since = time.monotonic()
        self.started: float | None = None
        #: Bytes that the peer has taken, when a sweep last looked.
        self.taken = 0

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.since = time.monotonic()
        self.started = None

    @property
    def buffered(self) -> bool:
        """Whether part of a header has come; Tornado has no public name for that."""
        return bool(getattr(self.stream, "_read_buffer_size", 0))

    def overdue(self, options: ListenerOptions, now: float) -> bool:
        """Whether the connection has taken too long for what it is doing."""
        if self.phase is Phase.READING:
            return now - self.since > options.body_timeout
        if self.phase is Phase.SERVING:
            return self._unread(now) > options.body_timeout
        if self.buffered or self.requests <= 1:
            if self.started is None:
                self.started = self.since if self.requests <= 1 else now
            return now - self.started > options.header_timeout
        return now - self.since > options.idle_timeout

    def _unread(self, now: float) -> float:
        """Since when the peer has taken nothing of an answer that is there, seconds."""
        taken = getattr(self.stream, "_total_write_done_index", 0)
        if taken != self.taken or not self.stream.writing():
            self.taken, self.since = taken, now
        return now - self.since


class _Watched(httputil.HTTPMessageDelegate):
    """Passes a message on and notes its progress."""

    __slots__ = ("_connection", "_inner")

    def __init__(self, inner: httputil.HTTPMessageDelegate, connection: Connection) -> None:
        self._inner = inner
        self._connection = connection

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        self._connection.enter(Phase.READING)
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._connection.enter(Phase.SERVING)
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


class Listener(HTTPServer):
    """The server of one port."""

    options: ListenerOptions

    def initialize(  # type: ignore[override]
        self,
        front: httputil.HTTPServerConnectionDelegate,
        options: ListenerOptions,
        max_body_size: int,
        ssl_options: ssl.SSLContext | None = None,
    ) -> None:
        super().initialize(
            front,
            ssl_options=ssl_options,
            max_header_size=options.max_header_size,
            max_body_size=max_body_size,
            # What one connection may hold in memory; a body is handed on in chunks.
            max_buffer_size=max(options.max_header_size, 1 << 17),
        )
        self.options = options
        # The sweep watches headers: one timer less for each request.
        self.conn_params.header_timeout = None
        self._last_params = copy.copy(self.conn_params)
        self._last_params.no_keep_alive = True
        self._open: dict[object, Connection] = {}
        self._turning_away: set[asyncio.Future[None]] = set()
        self._draining = False
        self._idle: asyncio.Future[None] | None = None
        self._sweeper = PeriodicCallback(self._sweep, SWEEP_PERIOD * 1000)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._open)

    async def idle(self, longest: float) -> None:
        """Wait until no connection has a request in progress, for `longest` seconds at most."""
        self._idle = asyncio.get_running_loop().create_future()
        self._check_idle()
        await asyncio.wait([self._idle], timeout=longest)

    def _check_idle(self) -> None:
        if self._idle is None or self._idle.done():
            return
        if all(connection.phase is Phase.WAITING for connection in self._open.values()):
            self._idle.set_result(None)

    def listen_on(self, sockets: list[Any]) -> None:
        """Serve the sockets, bound before."""
        self.add_sockets(sockets)
        self._sweeper.start()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """A new connection."""
        if len(self._open) >= self.options.max_connections:
            task = asyncio.ensure_future(_turn_away(stream))
            self._turning_away.add(task)
            task.add_done_callback(self._turning_away.discard)
            return
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        """Called for each request before its headers are read."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        assert isinstance(request_conn, HTTP1Connection)
        connection = self._open.get(server_conn)
        if connection is None:
            connection = self._open[server_conn] = Connection(server_conn.stream)
        connection.requests += 1
        connection.enter(Phase.WAITING)
        if connection.requests >= self.options.max_keepalive or self._draining:
            request_conn.params = self._last_params
            if self._draining and not connection.buffered:
                connection.stream.close()
            self._check_idle()
        return _Watched(super().start_request(server_conn, request_conn), connection)

    def on_close(self, server_conn: object) -> None:
        """The connection is closed."""
        self._open.pop(server_conn, None)
        self._check_idle()
        super().on_close(server_conn)

    def begin_drain(self) -> None:
        """Accept no more connections, close the idle ones; the others end after the request they serve."""
        self._draining = True
        self.stop()
        for connection in list(self._open.values()):
            if connection.phase is Phase.WAITING and not connection.buffered:
                connection.stream.close()

    def close_all(self) -> None:
        """Close every connection now."""
        self.begin_drain()
        self._sweeper.stop()
        for connection in list(self._open.values()):
            connection.stream.close()

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._open.values()):
            if connection.overdue(self.options, now):
                connection.stream.close()


async def _turn_away(stream: IOStream) -> None:
    try:
        await asyncio.wait_for(stream.write(_FULL), 1.0)
    except (TimeoutError, StreamClosedError, OSError):
        pass
    finally:
        stream.close()
