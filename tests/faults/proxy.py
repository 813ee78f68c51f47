"""A TCP proxy that understands HTTP/1.1 just enough to do harm at a chosen moment of a chosen request.

It listens on a port of its own, in a thread and an event loop of its own, so that blocking and awaiting tests use it
alike. For every request that it has read whole, it asks a policy what to do; the policy is any callable from `Seen` to
`Fault`, `Script` and `Mix` are two::

    with FaultyProxy("127.0.0.1", server_port, Script([CUT_AFTER_REQUEST, PASS])) as proxy:
        client = Client(f"http://127.0.0.1:{proxy.port}", secret)
        ...
    assert proxy.faults() == [CUT_AFTER_REQUEST, PASS]

Without a fault, responses go through as they arrive, piece by piece. What breaks inside the proxy itself is kept and
raised when the with-block ends, so that a fault of the proxy is never taken for one of the client.
"""

from __future__ import annotations

import asyncio
import enum
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self, TypeVar

__all__ = [
    "CUT_AFTER_REQUEST",
    "CUT_BEFORE_REQUEST",
    "CUT_MID_RESPONSE",
    "DROP",
    "DUPLICATE",
    "DUPLICATE_ANSWERED",
    "PASS",
    "STALL_FOREVER",
    "TRUNCATE_REQUEST",
    "Fault",
    "FaultyProxy",
    "Kind",
    "Mix",
    "Script",
    "Seen",
    "stall",
]


class Kind(enum.StrEnum):
    """What may happen to one request."""

    PASS = "pass"
    CUT_BEFORE_REQUEST = "cut before request"  # the server never hears of it, the client's connection ends
    CUT_AFTER_REQUEST = "cut after request"  # the server has answered, the client's connection ends without a byte
    CUT_MID_RESPONSE = "cut mid response"  # half of the answer is delivered
    STALL = "stall"  # the whole answer is held back for some seconds, or for ever
    DUPLICATE = "duplicate"  # the server gets it twice; the first answer is delivered
    DUPLICATE_ANSWERED = "duplicate answered"  # the server gets it twice; the second answer is delivered
    TRUNCATE_REQUEST = "truncate request"  # the server gets half of it, then both connections end
    DROP = "drop"  # nothing is forwarded or answered, and the connection stays open


@dataclass(frozen=True)
class Fault:
    """What to do with one request.

    Attributes:
        seconds: how long a stall lasts; None is for ever, which is until the client or the proxy closes.
        reset: a cut is a TCP reset instead of an orderly end.
    """

    kind: Kind
    seconds: float | None = None
    reset: bool = False

    def with_reset(self) -> Fault:
        """The same, cutting with a TCP reset."""
        return replace(self, reset=True)


PASS = Fault(Kind.PASS)
CUT_BEFORE_REQUEST = Fault(Kind.CUT_BEFORE_REQUEST)
CUT_AFTER_REQUEST = Fault(Kind.CUT_AFTER_REQUEST)
CUT_MID_RESPONSE = Fault(Kind.CUT_MID_RESPONSE)
STALL_FOREVER = Fault(Kind.STALL)
DUPLICATE = Fault(Kind.DUPLICATE)
DUPLICATE_ANSWERED = Fault(Kind.DUPLICATE_ANSWERED)
TRUNCATE_REQUEST = Fault(Kind.TRUNCATE_REQUEST)
DROP = Fault(Kind.DROP)


def stall(seconds: float) -> Fault:
    """Holds the whole answer back for that long."""
    return Fault(Kind.STALL, seconds)


@dataclass(frozen=True)
class Seen:
    """One request as the proxy read it.

    Attributes:
        number: counts all requests from 0.
        connection: counts the client's connections from 0.
        on_connection: counts the requests of its connection from 0.
        head: request line and headers with the empty line behind them; `body` as it was framed.
    """

    number: int
    connection: int
    on_connection: int
    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        """GET, POST."""
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """Path and query as sent."""
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        """Header fields by lower-case name."""
        return {name: value.decode("latin-1") for name, value in _headers(self.head).items()}


T = TypeVar("T")
Policy = Callable[[Seen], Fault]


class Script:
    """One fault after the other, then `afterwards` for all the rest."""

    def __init__(self, faults: Iterable[Fault], afterwards: Fault = PASS) -> None:
        self._faults = iter(list(faults))
        self._afterwards = afterwards

    def __call__(self, seen: Seen) -> Fault:
        return next(self._faults, self._afterwards)


class Mix:
    """Faults drawn by weight from a seeded generator: the same seed gives the same order of faults."""

    def __init__(self, seed: int, weights: Mapping[Fault, float]) -> None:
        self._dice = random.Random(seed)
        self._faults = list(weights)
        self._weights = list(weights.values())

    def __call__(self, seen: Seen) -> Fault:
        return self._dice.choices(self._faults, self._weights)[0]


class FaultyProxy:
    """The proxy; entering starts it, leaving ends every connection and raises what broke inside.

    `upstream` may be changed while it runs (a server that came back on another port); new connections go there.
    """

    def __init__(self, host: str, port: int, policy: Policy | None = None) -> None:
        self.upstream = (host, port)
        self.policy = policy or Script([])
        #: Where it listens, once it is entered.
        self.port = 0
        #: Every request with what was done to it, in order of arrival.
        self.seen: list[tuple[Seen, Fault]] = []
        #: Connections accepted so far.
        self.connections = 0
        self._broken: list[Exception] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: set[_Wire] = set()
        # Accepted, and not yet a wire: a task that is cancelled before its first step closes nothing.
        self._unserved: set[socket.socket] = set()
        self._arrived = threading.Condition()

    def faults(self) -> list[Fault]:
        """What was done to each request, in order of arrival."""
        return [fault for _, fault in list(self.seen)]

    def wait_for(self, requests: int, timeout: float = 10.0) -> None:
        """Blocks until that many requests have been read whole."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.seen) >= requests, timeout):
                raise TimeoutError(f"{len(self.seen)} of {requests} requests came within {timeout} s")

    def cut_all(self) -> None:
        """Ends every connection that is open now, at once; new ones are taken as before."""
        self._call(self._cut_connections())

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._loop.add_reader(self._listener, self._accept)
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, raised: BaseException | None, traceback: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._broken and raised is None:
            raise ExceptionGroup("the proxy itself broke", self._broken)

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _accept(self) -> None:
        # No awaiting here: what is accepted while its awaiter is cancelled belongs to nobody, and is never closed.
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        client.setblocking(False)
        # asyncio does so by itself only for sockets that know the number of their protocol: accepted ones do not.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unserved.add(client)
        task = self._loop.create_task(self._serve(client, self.connections))
        self.connections += 1
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self._broken.append(failure)

    async def _stop(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await self._cut_connections()

    async def _cut_connections(self) -> None:
        await _dismiss(*self._tasks)
        while self._unserved:
            self._unserved.pop().close()
        for wire in list(self._wires):
            wire.abort()
        await asyncio.sleep(0)  # one turn of the loop, in which the transports close their sockets

    async def _serve(self, sock: socket.socket, number: int) -> None:
        client = self._wire(*await asyncio.open_connection(sock=sock))
        self._unserved.discard(sock)
        connection = _Connection(self, number, client)
        try:
            await connection.serve()
        except (_Disconnected, ConnectionError):
            pass  # one of the three hung up, and that ends all of it
        finally:
            connection.close()

    async def connect(self) -> _Wire:
        """A new connection to the server; to be used inside the proxy's own loop."""
        return self._wire(*await asyncio.open_connection(*self.upstream))

    def _wire(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Wire:
        self._wires = {wire for wire in self._wires if not wire.closed()}
        wire = _Wire(reader, writer)
        self._wires.add(wire)
        return wire

    def decide(self, seen: Seen) -> Fault:
        """Asks the policy and notes what it said."""
        fault = self.policy(seen)
        with self._arrived:
            self.seen.append((seen, fault))
            self._arrived.notify_all()
        return fault


class _Disconnected(Exception):
    """The other side has gone, or we have cut it off: the connection is over."""


class _Connection:
    """One connection of a client, and the one to the server that goes with it."""

    def __init__(self, proxy: FaultyProxy, number: int, client: _Wire) -> None:
        self.proxy = proxy
        self.number = number
        self.client = client
        self.server: _Wire | None = None

    async def serve(self) -> None:
        """One request after the other until somebody hangs up."""
        served = 0
        while await self._until_request():
            head, body = await _read_request(self.client)
            seen = Seen(len(self.proxy.seen), self.number, served, head, body)
            served += 1
            await self._handle(seen, self.proxy.decide(seen))

    def close(self) -> None:
        """Ends both connections."""
        self.client.close()
        if self.server is not None:
            self.server.close()

    async def _until_request(self) -> bool:
        """Waits for a request's first bytes; an idle server that hangs up ends the client's connection too."""
        if self.client.buffered:
            return True
        reading = [asyncio.ensure_future(wire.fill()) for wire in (self.client, self.server) if wire is not None]
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
                (await self._connected()).write(request[: len(request) // 2])
                self._cut(fault)
            case Kind.PASS:
                await self._while_connected(self._relay(seen))
            case _:
                answers = await self._while_connected(self._answers(seen, fault))
                await self._deliver(answers, fault)

    async def _relay(self, seen: Seen) -> None:
        """The plain way through: every piece of the answer as it comes."""
        server = await self._connected()
        server.write(seen.head + seen.body)
        async for piece in _response(server, seen.method):
            await self.client.send(piece)
        if server.ended:
            raise _Disconnected

    async def _answers(self, seen: Seen, fault: Fault) -> list[bytes]:
        """The server's answers, whole: two if the request was sent twice, the second over a connection of its own."""
        answers = [await _ask(await self._connected(), seen)]
        if fault.kind in {Kind.DUPLICATE, Kind.DUPLICATE_ANSWERED}:
            other = await self.proxy.connect()
            try:
                answers.append(await _ask(other, seen))
            finally:
                other.close()
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

    async def _connected(self) -> _Wire:
        if self.server is None:
            self.server = await self.proxy.connect()
        return self.server

    def _cut(self, fault: Fault) -> NoReturn:
        if fault.reset:
            self.client.reset()
        raise _Disconnected


class _Wire:
    """One end of a connection: a reader whose bytes can be looked at before they are taken, and a writer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.buffered = bytearray()
        #: The answer just read was the last one of this connection.
        self.ended = False

    async def fill(self) -> bool:
        """Waits for more bytes and keeps them; False at the end of the stream. Safe to cancel."""
        data = await self._reader.read(65536)
        self.buffered += data
        return bool(data)

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

    def write(self, data: bytes) -> None:
        """Sends without waiting: a server may answer, and stop reading, before it has the whole request."""
        self._writer.write(data)

    async def send(self, data: bytes) -> None:
        """Sends, and waits while the other side is slow to read."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """An orderly end, after what was written."""
        self._writer.close()

    def closed(self) -> bool:
        """Whether its end has begun."""
        return self._writer.is_closing()

    def abort(self) -> None:
        """An end at once; what was written and not yet sent is lost."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """An end at once, by a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def _take(self, size: int) -> bytes:
        taken = bytes(self.buffered[:size])
        del self.buffered[:size]
        return taken


async def _read_request(client: _Wire) -> tuple[bytes, bytes]:
    """The next request, head and body as framed; a client that waits for "100 Continue" gets it from us."""
    head = await client.until(b"\r\n\r\n")
    headers = _headers(head)
    if headers.get("expect", b"").lower() == b"100-continue":
        await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if b"chunked" in headers.get("transfer-encoding", b"").lower():
        body = _chunks(client)
    else:
        body = client.pieces(int(headers.get("content-length", b"0")))
    return head, b"".join([piece async for piece in body])


async def _response(server: _Wire, method: str) -> AsyncIterator[bytes]:
    """The pieces of the next final response, as they come; interim ones (1xx) are swallowed."""
    status = 100
    while status < 200:
        head = await server.until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    yield head
    headers = _headers(head)
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


async def _chunks(wire: _Wire) -> AsyncIterator[bytes]:
    """A chunked body with its framing, up to the empty line behind the trailers."""
    size = -1
    while size != 0:
        line = await wire.until(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size:
            async for piece in wire.pieces(size + 2):
                yield piece
    while line != b"\r\n":
        line = await wire.until(b"\r\n")
        yield line


def _headers(head: bytes) -> dict[str, bytes]:
    lines = head.split(b"\r\n")[1:]
    pairs = (line.partition(b":") for line in lines if line)
    return {name.strip().lower().decode("latin-1"): value.strip() for name, _, value in pairs}


async def _ask(server: _Wire, seen: Seen) -> bytes:
    """Sends the request and reads the whole answer."""
    server.write(seen.head + seen.body)
    return b"".join([piece async for piece in _response(server, seen.method)])


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _dismiss(*tasks: asyncio.Task[Any]) -> None:
    """Cancels what still runs, and waits until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
