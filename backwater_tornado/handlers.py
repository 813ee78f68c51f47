"""The handlers of a Tornado application: one for calls, one for probes, one for all other paths.

They are thin: `protocol.serving` decides, `dispatch` runs. A request's body is not read before its head has passed, and
every answer to a good signature is signed.

Rule: no decision about a call here; what a handler knows is how Tornado wants bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler, stream_request_body

from .dispatch import LARGE
from .errors import CallFailed, Draining, InternalError, PathNotFound
from .options import Limits
from .protocol.batches import FRAME_ROOM, BatchedAnswer, encode_answers, write_frame
from .protocol.codec import JSON, Codec, codec_for
from .protocol.memory import Recorded
from .protocol.messages import Batch, HttpResponse
from .protocol.problems import PROBLEM_MEDIA_TYPES, PROBLEM_VALUES
from .protocol.serving import Exchange
from .protocol.signatures import RequestHead, normal_authority
from .service import Service

access_log = logging.getLogger("backwater.access")

#: Beyond this a refused body is not read to its end; the connection is closed instead.
MAX_DISCARDED = 64 * 1024
#: A stream of answers without news gets an empty frame after this, seconds, so that a dead link shows.
HEARTBEAT = 2.0


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
        self.finish(body or None)


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
