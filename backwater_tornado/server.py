"""The server: our handler in a Tornado application, ours or somebody else's.

`Service` is what is served (keys, exposed functions, options, memory); `routes` mounts it in an application of yours,
`application` makes one of ours, and `start_clear_server` and `start_tls_server` listen with it. The handler is thin:
`protocol.serving` decides, `dispatch` runs.

Rule: a request's body is not read before its head has passed; every answer to a good signature is signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, stream_request_body

from .dispatch import LARGE, Dispatcher
from .errors import CallFailed, Draining, InternalError, InvalidOption, PathNotFound
from .exposure import Exposure
from .listener import Listener
from .memory_sqlite import SqliteMemory
from .options import CLEAR_PORT, TLS_PORT, Limits, ListenerOptions, ServerOptions, make_options
from .protocol.batches import FRAME_ROOM, BatchedAnswer, encode_answers, write_frame
from .protocol.codec import JSON, Codec, codec_for
from .protocol.keys import KeyRing
from .protocol.memory import CallMemory, InProcessMemory, Recorded
from .protocol.messages import Batch, HttpResponse
from .protocol.problems import PROBLEM_MEDIA_TYPES, PROBLEM_VALUES
from .protocol.serving import Exchange, Serving
from .protocol.signatures import RequestHead, normal_authority

log = logging.getLogger("backwater.server")
access_log = logging.getLogger("backwater.access")

#: Beyond this a refused body is not read to its end; the connection is closed instead.
MAX_DISCARDED = 64 * 1024
#: A stream of answers without news gets an empty frame after this, seconds, so that a dead link shows.
HEARTBEAT = 2.0
GRACE = 30.0
#: The answers of the last calls are on their way; connections are closed after this all the same, seconds.
LAST_ANSWERS = 1.0


class Service:
    """What is served, whoever listens."""

    def __init__(
        self, secret: object, exposed: object, options: ServerOptions, memory: CallMemory | None = None
    ) -> None:
        keys = KeyRing.of(secret)  # type: ignore[arg-type]
        self.options = options
        self.serving = Serving(keys, Exposure.of(exposed), options, memory or InProcessMemory(time.time()))  # type: ignore[arg-type]
        self.draining = False
        self._dispatcher: Dispatcher | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """Made at first use, on the loop that serves."""
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self.serving, asyncio.get_running_loop())
        return self._dispatcher

    def replace_keys(self, secret: object) -> None:
        """Serve with another ring of keys from now on."""
        self.serving.keys = KeyRing.of(secret)  # type: ignore[arg-type]

    async def drain(self, grace: float) -> bool:
        """Refuse new calls and wait for those that run; False when some still ran after `grace` seconds."""
        self.draining = True
        if self._dispatcher is None:
            return True
        try:
            await asyncio.wait_for(self._dispatcher.drained(), grace)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Cancel what still runs and let go of the memory."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        self.serving.memory.close()


class _Handler(RequestHandler):
    """What all our handlers leave out of Tornado's: cookies, pages, tags and default headers."""

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

    def send(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        """Answer and end."""
        self.set_status(status)
        for name, value in fields.items():
            self.set_header(name, value)
        self.finish(body)


@stream_request_body
class CallHandler(_Handler):
    """One request: a call, or many."""

    def initialize(self, service: Service) -> None:
        """Tornado hands over what the route was given."""
        self.service = service
        self._refused: CallFailed | None = None
        self._chunks: list[bytes] = []
        self._digest = hashlib.sha256()
        self._calls = 0

    def prepare(self) -> None:
        """The head: everything that can be refused before the body is read."""
        request = self.request
        fields: dict[str, str] = {}
        for given_name, value in request.headers.get_all():
            name = given_name.lower()
            # RFC 9421, 2.1: several lines are signed as one, joined like this.
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        authority = normal_authority(request.host, request.protocol)
        head = RequestHead(request.method or "", authority, request.path, request.query, fields)
        self.exchange = Exchange(head, time.time())
        try:
            self.service.serving.accept_head(self.exchange)
            if self.service.draining:
                raise Draining
        except CallFailed as error:
            self._refused = error
            length = fields.get("content-length", "0")
            if not length.isdigit() or int(length) > MAX_DISCARDED or "transfer-encoding" in fields:
                self.set_header("Connection", "close")
                self._refuse(error)

    def data_received(self, chunk: bytes) -> None:
        """A part of the body; that of a refused request is dropped."""
        if self._refused is None:
            self._chunks.append(chunk)
            self._digest.update(chunk)

    async def post(self, *names: str) -> None:
        """The body is complete."""
        if self._refused is not None:
            self._refuse(self._refused)
            return
        try:
            batch = await self._read_body()
        except CallFailed as error:
            self._refuse(error)
            return
        self._calls = len(batch.calls)
        if batch.streamed:
            await self._answer_many(batch)
        else:
            await self._answer_one(batch)

    get = head = put = delete = patch = options = post

    async def _read_body(self) -> Batch:
        exchange, serving = self.exchange, self.service.serving
        exchange.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        exchange.digest = self._digest.digest()
        self._chunks = []
        if len(exchange.body) > LARGE or (exchange.field("content-encoding") is not None and len(exchange.body) > 8192):
            return await asyncio.get_running_loop().run_in_executor(None, serving.accept_body, exchange)
        return serving.accept_body(exchange)

    async def _answer_one(self, batch: Batch) -> None:
        exchange, service = self.exchange, self.service
        future: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        service.dispatcher.start(exchange.key, batch.calls[0], exchange.answer_codec, future.set_result)
        answer = await future
        extra = {"retry-after": "1"} if answer.status == 503 else {}
        self._send(service.serving.respond(exchange, answer, time.time(), extra))

    async def _answer_many(self, batch: Batch) -> None:
        exchange, service = self.exchange, self.service
        stream = AnswerStream(exchange, service.options.limits, len(batch.calls))
        start, key, codec = service.dispatcher.start, exchange.key, exchange.codec
        for call in batch.calls:
            assert call.call_id is not None
            start(key, call, codec, stream.collector(call.call_id.number))
        response = service.serving.begin_stream(exchange, time.time())
        for name, value in response.fields.items():
            self.set_header(name, value)
        try:
            while not stream.ended:
                await stream.wait(HEARTBEAT)
                for frame in stream.frames():
                    self.write(frame)
                    await self.flush()
        except StreamClosedError:
            return  # the calls run on: the caller asks for their answers again
        self.finish()

    def _refuse(self, error: CallFailed) -> None:
        self._send(self.service.serving.refuse(self.exchange, error, time.time()))

    def _send(self, response: HttpResponse) -> None:
        if self.service.draining:
            self.set_header("Connection", "close")
        if not self.request.connection.stream.closed():  # type: ignore[union-attr]
            self.send(response.status, response.fields, response.body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A fault of our own, which Tornado has logged: the caller learns that, and no more."""
        self.clear()
        self._send(self.service.serving.refuse(self.exchange, InternalError(), time.time()))

    def on_finish(self) -> None:
        """The access log: who, what, how it ended and how long it took; no arguments, no secrets."""
        if self.service.options.access_log:
            exchange = self.exchange
            access_log.info(
                "%s %s %d calls=%d %.1fms key=%s",
                self.request.method,
                exchange.head.path,
                self.get_status(),
                self._calls,
                self.request.request_time() * 1000,
                "-" if exchange.verified is None else exchange.key.id,
            )


class AnswerStream:
    """Collects the answers of many calls and gives them out as frames."""

    def __init__(self, exchange: Exchange, limits: Limits, calls: int) -> None:
        self._exchange = exchange
        self._limits = limits
        self._left = calls
        self._answers: list[BatchedAnswer] = []
        self._number = 0
        self._news: asyncio.Future[None] | None = None
        self.ended = False

    def collector(self, number: int) -> Any:
        """What takes the answer of one call."""

        def collect(answer: Recorded) -> None:
            body = _recode(answer, self._exchange.codec)
            self._answers.append(BatchedAnswer(number, answer.status, msgspec.Raw(body)))
            self._left -= 1
            self._wake()

        return collect

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def wait(self, longest: float) -> None:
        """Until there is an answer, or for `longest` seconds."""
        if self._answers or not self._left:
            return
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        timer = loop.call_later(longest, self._wake)
        await self._news
        timer.cancel()

    def frames(self) -> list[bytes]:
        """The answers there are, in frames of a bounded size; none yet: one empty frame."""
        answers, self._answers = self._answers, []
        groups: list[list[BatchedAnswer]] = [[]]
        size = 0
        for answer in answers:
            length = len(memoryview(answer.body))
            if groups[-1] and size + length > FRAME_ROOM:
                groups.append([])
                size = 0
            groups[-1].append(answer)
            size += length
        self.ended = not self._left
        return [self._frame(group, last=self.ended and group is groups[-1]) for group in groups]

    def _frame(self, answers: list[BatchedAnswer], *, last: bool) -> bytes:
        exchange, limits = self._exchange, self._limits
        payload = encode_answers(exchange.codec.media_type, answers)
        assert exchange.verified is not None
        frame = write_frame(
            exchange.key,
            exchange.verified.signature,
            self._number,
            payload,
            last=last,
            threshold=limits.compression_threshold,
            level=limits.compression_level,
        )
        self._number += 1
        return frame


def _recode(answer: Recorded, codec: Codec) -> bytes:
    """An answer's body for `codec`; one that was recorded for a request in another media type is encoded again."""
    if answer.media_type in (codec.media_type, PROBLEM_MEDIA_TYPES[codec.media_type]):
        return answer.body
    recorded = codec_for(PROBLEM_VALUES.get(answer.media_type, answer.media_type), unsafe=True) or JSON
    return codec.encode(recorded.decode(answer.body))


class HealthHandler(_Handler):
    """`/healthz`: 204 while serving, 503 while shutting down; no content, no key needed."""

    def initialize(self, service: Service) -> None:
        """Tornado hands over what the route was given."""
        self.service = service

    def get(self) -> None:
        """Answer the probe."""
        self.send(503 if self.service.draining else 204, {}, b"")

    head = get


class NotFoundHandler(_Handler):
    """Any other path of an application of ours."""

    def initialize(self, service: Service) -> None:
        """Tornado hands over what the route was given."""
        self.service = service

    def prepare(self) -> None:
        """Refuse, before any body is read."""
        exchange = Exchange(RequestHead(self.request.method or "", "", self.request.path, "", {}), time.time())
        error = PathNotFound("calls are made at /backwater/2/MODULE/FUNCTION")
        response = self.service.serving.refuse(exchange, error, time.time())
        self.send(response.status, response.fields, response.body)


def routes(secret: object, exposed: object, *, prefix: str = "", **options: Any) -> list[tuple[Any, ...]]:
    """Routes for a Tornado application of yours: `Application([(r"/mine", Mine), *backwater.routes(secret, [tasks])])`.

    Args:
        secret: the secret, a `Key`, several keys from oldest to newest, or a `KeyRing`.
        exposed: what may be called, see `Exposure.of`.
        prefix: path in front of `/backwater/2`.
        options: fields of `ServerOptions` and `Limits`, and `state`, see `start_clear_server`.
    """
    return _routes(make_service(secret, exposed, options), prefix)


def _routes(service: Service, prefix: str = "") -> list[tuple[Any, ...]]:
    pattern = rf"{prefix}/backwater/[^/]*(?:/.*)?"
    return [(pattern, CallHandler, {"service": service})]


def application(secret: object, exposed: object, **options: Any) -> Application:
    """A Tornado application that serves calls and `/healthz`, and nothing else; arguments as `routes`."""
    return _application(make_service(secret, exposed, options))


def _application(service: Service) -> Application:
    return Application(
        [(r"/healthz", HealthHandler, {"service": service}), *_routes(service)],
        default_handler_class=NotFoundHandler,
        default_handler_args={"service": service},
        log_function=_log_nothing,
    )


def _log_nothing(handler: RequestHandler) -> None:
    """In place of Tornado's access log: see `CallHandler.on_finish`."""


def make_service(secret: object, exposed: object, options: dict[str, Any]) -> Service:
    """A `Service` from flat options; `options` is left with what was not used."""
    limits = make_options(Limits, _take(options, Limits))
    server_options = make_options(ServerOptions, {**_take(options, ServerOptions), "limits": limits})
    state, memory = options.pop("state", None), options.pop("memory", None)
    if options:
        known = sorted({*Limits.__slots__, *ServerOptions.__slots__, *ListenerOptions.__slots__, "state"} - {"limits"})
        raise InvalidOption(f"unknown option {min(options)!r}; there are: {', '.join(known)}")
    if state is not None:
        memory = SqliteMemory(state, time.time())
    return Service(secret, exposed, server_options, memory)


def _take(options: dict[str, Any], kind: type) -> dict[str, Any]:
    return {name: options.pop(name) for name in list(options) if name in kind.__slots__ and name != "limits"}  # type: ignore[attr-defined]


class Server:
    """A server that listens, as `start_clear_server` and `start_tls_server` give it."""

    def __init__(self, ref: str, service: Service, listener: Listener, port: int) -> None:
        self.ref = ref
        self.service = service
        self.listener = listener
        #: The port it listens on; the one that was given by the system when 0 was asked for.
        self.port = port

    def reload_keys(self, secret: object) -> None:
        """Serve with another ring of keys from now on; requests in flight are not disturbed."""
        self.service.replace_keys(secret)

    async def stop(self, grace: float = GRACE) -> bool:
        """Take no more connections, let calls in flight end, then close; False when some were cut after `grace` s."""
        self.listener.begin_drain()
        complete = await self.service.drain(grace)
        await self.listener.idle(LAST_ANSWERS)
        self.listener.close_all()
        self.service.close()
        _SERVERS.pop(self.ref, None)
        return complete


_SERVERS: dict[str, Server] = {}


def start_clear_server(
    secret: object, exposed: object, *, ref: str = "clear", port: int = CLEAR_PORT, **options: Any
) -> Server:
    """Serve calls over HTTP on Tornado's loop.

    Args:
        secret: the secret (16 bytes or more), a `Key`, several keys from oldest to newest, or a `KeyRing`.
        exposed: what may be called: modules, `(module, ["function", …])`, names of modules, `Exposed(name=object)`.
        ref: a name of this server for `stop_server`; two servers need two names.
        port: 0 lets the system choose; see `Server.port`.
        options: fields of `ServerOptions`, `ListenerOptions` and `Limits`; `state`: path of a file that remembers
            calls and nonces across restarts and between processes on the same port.

    Raises:
        ConfigurationError: a key, an exposed object or an option is wrong.
        OSError: the port cannot be used.
    """
    return _start(secret, exposed, ref, port, options, None)


def start_tls_server(
    secret: object,
    exposed: object,
    *,
    certfile: str,
    keyfile: str,
    client_ca: str | None = None,
    ref: str = "tls",
    **options: Any,
) -> Server:
    """Serve calls over HTTPS, port 8443 unless `port` says otherwise; TLS 1.2 or later.

    Args:
        certfile: the server's certificate with its chain, PEM.
        keyfile: its key, PEM.
        client_ca: ask every client for a certificate of this authority.

    The rest as `start_clear_server`.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidOption(f"the authority {client_ca!r} cannot be used: {error}") from error
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise InvalidOption(f"the certificate {certfile!r} with the key {keyfile!r} cannot be used: {error}") from error
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return _start(secret, exposed, ref, options.pop("port", TLS_PORT), options, context)


def _start(
    secret: object, exposed: object, ref: str, port: int, options: dict[str, Any], context: ssl.SSLContext | None
) -> Server:
    if ref in _SERVERS:
        raise InvalidOption(f"a server with the ref {ref!r} is running already; give this one another ref")
    listener_options = make_options(ListenerOptions, _take(options, ListenerOptions))
    service = make_service(secret, exposed, options)
    sockets = bind_sockets(port, listener_options.address or "", reuse_port=listener_options.reuse_port)
    listener = Listener(
        _application(service), listener_options, service.options.limits.max_encoded_args_size + 1, context
    )
    listener.listen_on(sockets)
    server = _SERVERS[ref] = Server(ref, service, listener, sockets[0].getsockname()[1])
    return server


async def stop_server(ref: str | None = None, *, grace: float = GRACE) -> bool:
    """Stop the server named `ref`, or all; see `Server.stop`. Stopping what does not run is not an error."""
    chosen = [server for name, server in _SERVERS.items() if ref in (None, name)]
    results = await asyncio.gather(*(server.stop(grace) for server in chosen))
    return all(results)
