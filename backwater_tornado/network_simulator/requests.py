"""One client's connection, understood as HTTP/1.1 just enough to do harm at a chosen moment of a chosen request.

Every request is read whole before it is decided what happens to it. Without a fault, its answer goes through as it
arrives, piece by piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from .connections import Connection
from .faults import Fault, Kind, Seen, headers_of
from .paths import Sink

T = TypeVar("T")

#: What is read of an answer before its reader has to take some of it, bytes.
BUFFER = 256 * 1024


class _Disconnected(Exception):
    """The other side has gone, or we have cut it off: the connection is over."""


class Requests:
    """One client's connection, request by request.

    Args:
        connection: of the client; what arrives of it comes here.
        decide: says, from the connection's number, the request's number on it, its head and its body, what happens.
    """

    def __init__(self, connection: Connection, decide: Callable[[int, int, bytes, bytes], tuple[Seen, Fault]]) -> None:
        self._connection = connection
        self._decide = decide
        self.client = _Stream(connection.down)
        self.server: _Stream | None = None
        connection.feed(self.client)

    async def serve(self) -> None:
        """One request after the other until somebody hangs up."""
        served = 0
        try:
            while await self._until_request():
                head, body = await _read_request(self.client)
                await self._handle(*self._decide(self._connection.number, served, head, body))
                served += 1
        except (_Disconnected, OSError):
            pass  # one of the three hung up, and that ends all of it
        finally:
            self.client.out.end()
            if self.server is not None:
                self.server.out.end()

    async def _until_request(self) -> bool:
        """Waits for a request's first bytes; an idle server that hangs up ends the client's connection too."""
        if self.client.buffered:
            return True
        reading = [asyncio.ensure_future(stream.fill()) for stream in (self.client, self.server) if stream]
        try:
            await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _dismiss(*reading)
        return bool(self.client.buffered)

    async def _handle(self, seen: Seen, fault: Fault) -> None:
        match fault.kind:
            case Kind.CUT_BEFORE_REQUEST:
                self._cut(fault)
            case Kind.DROP:
                await self._while_connected(_for_ever())
            case Kind.TRUNCATE_REQUEST:
                request = seen.head + seen.body
                (await self._connected()).out.write(request[: len(request) // 2])
                self._cut(fault)
            case Kind.PASS:
                await self._while_connected(self._relay(seen))
            case _:
                answers = await self._while_connected(self._answers(seen, fault))
                await self._deliver(answers, fault)

    async def _relay(self, seen: Seen) -> None:
        """The plain way through: every piece of the answer as it comes."""
        server = await self._connected()
        server.out.write(seen.head + seen.body)
        async for piece in _response(server, seen.method):
            await self.client.send(piece)
        if server.ended:
            raise _Disconnected

    async def _answers(self, seen: Seen, fault: Fault) -> list[bytes]:
        """The server's answers, whole: two if the request was sent twice, the second over a connection of its own."""
        answers = [await _ask(await self._connected(), seen)]
        if fault.kind in {Kind.DUPLICATE, Kind.DUPLICATE_ANSWERED}:
            other = await self._connect()
            try:
                answers.append(await _ask(other, seen))
            finally:
                other.out.end()
        if fault.kind is Kind.STALL:
            await (_for_ever() if fault.seconds is None else asyncio.sleep(fault.seconds))
        return answers

    async def _deliver(self, answers: list[bytes], fault: Fault) -> None:
        answer = answers[-1] if fault.kind is Kind.DUPLICATE_ANSWERED else answers[0]
        if fault.kind is Kind.CUT_AFTER_REQUEST:
            self._cut(fault)
        if fault.kind is Kind.CUT_MID_RESPONSE:
            await self.client.send(answer[: len(answer) // 2])
            self._cut(fault)
        await self.client.send(answer)
        if self.server is not None and self.server.ended:
            raise _Disconnected

    async def _while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result; if the client hangs up before, the work is dropped and so is the connection."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self.client.fill())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done() and not watch.result() and not task.done():
                raise _Disconnected
            return await task
        finally:
            await _dismiss(task, watch)

    async def _connected(self) -> _Stream:
        if self.server is None:
            self.server = await self._connect()
        return self.server

    async def _connect(self) -> _Stream:
        end = self._connection.new_end()
        stream = _Stream(end)
        end.onward = stream
        await self._connection.connect(end)
        return stream

    def _cut(self, fault: Fault) -> NoReturn:
        if fault.reset:
            self.client.out.end(reset=True)
        raise _Disconnected


class _Stream:
    """What one of the two sends, a `Sink` whose bytes can be looked at before they are taken, and the way to it."""

    def __init__(self, out: Sink) -> None:
        self.out = out
        self.full = False
        self.room: Callable[[], None] = lambda: None
        self.buffered = bytearray()
        #: The answer just read was the last one of this connection.
        self.ended = False
        self._is_over = False
        #: Bytes that have come, and those of them that a reader knows of.
        self._come = self._known = 0
        self._news = asyncio.Event()

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        self.buffered += data
        self._come += len(data)
        self.full = len(self.buffered) > BUFFER
        self._news.set()

    def end(self, *, reset: bool = False) -> None:
        """See `Sink`."""
        self._is_over = True
        self._news.set()

    async def fill(self) -> bool:
        """Waits until more bytes have come than a reader knows of; False at the end of the stream. Safe to cancel."""
        while self._come == self._known and not self._is_over:
            self._news.clear()
            await self._news.wait()
        known, self._known = self._known, self._come
        return self._known > known

    async def until(self, mark: bytes) -> bytes:
        """All bytes up to and with the mark."""
        while (found := self.buffered.find(mark)) < 0:
            if not await self.fill():
                raise _Disconnected
        return self._take(found + len(mark))

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """That many bytes, as they come."""
        while size > 0:
            if not self.buffered and not await self.fill():
                raise _Disconnected
            piece = self._take(min(size, len(self.buffered)))
            size -= len(piece)
            yield piece

    async def rest(self) -> AsyncIterator[bytes]:
        """All bytes until the other side closes."""
        while self.buffered or await self.fill():
            yield self._take(len(self.buffered))

    async def send(self, data: bytes) -> None:
        """Passes on, and waits while the other side is slow to read."""
        self.out.write(data)
        if self.out.full:
            has_room = asyncio.Event()
            self.out.room = has_room.set
            await has_room.wait()

    def _take(self, size: int) -> bytes:
        taken = bytes(self.buffered[:size])
        del self.buffered[:size]
        self._known = self._come
        if self.full and len(self.buffered) <= BUFFER // 2:
            self.full = False
            self.room()
        return taken


async def _read_request(client: _Stream) -> tuple[bytes, bytes]:
    """The next request, head and body as framed; a client that waits for "100 Continue" gets it from us."""
    head = await client.until(b"\r\n\r\n")
    headers = headers_of(head)
    if headers.get("expect", b"").lower() == b"100-continue":
        await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if b"chunked" in headers.get("transfer-encoding", b"").lower():
        body = _chunks(client)
    else:
        body = client.pieces(int(headers.get("content-length", b"0")))
    return head, b"".join([piece async for piece in body])


async def _response(server: _Stream, method: str) -> AsyncIterator[bytes]:
    """The pieces of the next final response, as they come; interim ones (1xx) are swallowed."""
    status = 100
    while status < 200:
        head = await server.until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    yield head
    headers = headers_of(head)
    server.ended = headers.get("connection", b"").lower() == b"close" or head.startswith(b"HTTP/1.0")
    if method == "HEAD" or status in {204, 304}:
        return
    if b"chunked" in headers.get("transfer-encoding", b"").lower():
        body = _chunks(server)
    elif "content-length" in headers:
        body = server.pieces(int(headers["content-length"]))
    else:
        server.ended = True
        body = server.rest()
    async for piece in body:
        yield piece


async def _chunks(stream: _Stream) -> AsyncIterator[bytes]:
    """A chunked body with its framing, up to the empty line behind the trailers."""
    size = -1
    while size != 0:
        line = await stream.until(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size:
            async for piece in stream.pieces(size + 2):
                yield piece
    while line != b"\r\n":
        line = await stream.until(b"\r\n")
        yield line


async def _ask(server: _Stream, seen: Seen) -> bytes:
    """Sends the request and reads the whole answer."""
    server.out.write(seen.head + seen.body)
    return b"".join([piece async for piece in _response(server, seen.method)])


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _dismiss(*tasks: asyncio.Task[Any]) -> None:
    """Cancels what still runs, and waits until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
