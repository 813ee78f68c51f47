"""One request from its head to the last byte of its answer, whoever carries the bytes.

An edge (`handlers`) hands over the head, the body's chunks and its end, as they come, and gives an `Outlet` to answer
through. `protocol.serving` decides, `dispatch` runs. A small call costs no task and no future: it is answered from the
callback that ends it.

Rule: a body is not read before its head has passed; every answer to a good signature is signed; whatever happens, the
outlet is ended once. No HTTP library here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from .dispatch import LARGE
from .errors import CallFailed, Draining, InternalError, ResultUnserializable, Unserializable
from .options import Limits
from .protocol.batches import FRAME_ROOM, BatchedAnswer, encode_answers, write_frame
from .protocol.codec import JSON, Codec, codec_for
from .protocol.memory import Recorded
from .protocol.messages import Batch, HttpResponse
from .protocol.problems import PROBLEM_MEDIA_TYPES, PROBLEM_VALUES, describe
from .protocol.serving import Exchange, Wire
from .protocol.signatures import RequestHead
from .service import Service

log = logging.getLogger("backwater.server")
access_log = logging.getLogger("backwater.access")

#: Beyond this a refused body is not read to its end; the connection is closed instead, and with what was on its way the
#: answer may get lost. curl asks before it sends more than this (Expect: 100-continue).
MAX_DISCARDED = 1024 * 1024
#: A compressed body beyond this is opened in a thread, bytes.
MAX_COMPRESSED = 8 * 1024
#: A stream of answers without news gets an empty frame after this, seconds, so that a dead link shows.
HEARTBEAT = 2.0


class Outlet(Protocol):
    """What an edge lets a conversation answer through."""

    def answer(self, response: HttpResponse, *, close: bool) -> None:
        """Send a whole answer; `close` the connection after it. Nothing, when the peer is gone."""
        ...

    def begin(self, status: int, fields: Mapping[str, str]) -> None:
        """Send the head of an answer that comes in parts."""
        ...

    def write(self, data: bytes) -> Awaitable[None]:
        """Send a part; done when the connection can take more. Raises OSError when the peer is gone."""
        ...

    def end(self) -> None:
        """The answer is complete."""
        ...


class Conversation:
    """See the head of this module."""

    __slots__ = (
        "_batch",
        "_began",
        "_chunks",
        "_digest",
        "_exchange",
        "_outlet",
        "_refused",
        "_service",
        "_task",
        "_wire",
    )

    def __init__(self, service: Service, outlet: Outlet) -> None:
        self._service = service
        self._outlet = outlet
        self._began = time.perf_counter()
        self._chunks: list[bytes] = []
        self._digest = hashlib.sha256()
        self._refused: CallFailed | None = None
        self._batch: Batch | None = None
        self._task: asyncio.Task[None] | None = None
        self._exchange: Exchange
        self._wire: Wire

    def head(self, head: RequestHead) -> None:
        """The head has come: everything that can be refused before the body is read."""
        self._exchange = Exchange(head, time.time())
        self._wire = self._service.wire(head.path)
        try:
            self._wire.accept_head(self._exchange)
            if self._service.draining:
                raise Draining
        except CallFailed as error:
            self._refused = error
        except Exception:
            log.exception("reading the head of a request failed")
            self._refused = InternalError()
        if self._refused is not None and not _is_short(head.fields):
            self._refuse(self._refused, close=True)

    def data(self, chunk: bytes) -> None:
        """A part of the body; that of a refused request is dropped."""
        if self._refused is None:
            self._chunks.append(chunk)
            self._digest.update(chunk)

    def complete(self) -> None:
        """The body is complete."""
        if self._refused is not None:
            self._refuse(self._refused)
            return
        exchange = self._exchange
        exchange.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        exchange.digest = self._digest.digest()
        self._chunks.clear()
        size = len(exchange.body)
        if size > LARGE or (size > MAX_COMPRESSED and exchange.field("content-encoding") is not None):
            self._task = asyncio.get_running_loop().create_task(self._read_large())
        else:
            self._read(self._wire.accept_body)

    async def _read_large(self) -> None:
        """Opening a large body would hold up every other call: a thread does it."""
        loop = asyncio.get_running_loop()
        try:
            batch = await loop.run_in_executor(None, self._wire.accept_body, self._exchange)
        except Exception as error:  # noqa: BLE001 - told by what reads it
            self._read(_raising(error))
        else:
            self._read(lambda _: batch)

    def _read(self, accept: Callable[[Exchange], Batch]) -> None:
        exchange = self._exchange
        try:
            self._batch = accept(exchange)
            if self._service.draining:
                raise Draining
        except CallFailed as error:
            self._refuse(error)
        except Exception:
            log.exception("reading the body of a request failed")
            self._refuse(InternalError())
        else:
            if self._batch.streamed:
                self._task = asyncio.get_running_loop().create_task(self._answer_many(self._batch))
            else:
                call = self._batch.calls[0]
                form = self._wire.form(exchange)
                self._service.dispatcher.start(exchange.key, call, form, self._answer_one)

    def _answer_one(self, answer: Recorded) -> None:
        extra = {"retry-after": "1"} if answer.status == 503 else {}
        self._answer(self._wire.respond(self._exchange, answer, time.time(), extra), close=False)

    async def _answer_many(self, batch: Batch) -> None:
        exchange, service, outlet = self._exchange, self._service, self._outlet
        stream = AnswerStream(exchange, service.options.limits, len(batch.calls))
        start, key, form = service.dispatcher.start, exchange.key, self._wire.form(exchange)
        for call in batch.calls:
            assert call.call_id is not None
            start(key, call, form, stream.collector(call.call_id.number))
        response = service.serving.begin_stream(exchange, time.time())
        try:
            outlet.begin(response.status, response.fields)
            while not stream.ended:
                await stream.wait(HEARTBEAT)
                for frame in stream.frames():
                    await outlet.write(frame)
        except OSError:
            return  # the peer is gone; the calls run on, and the caller asks for their answers again
        outlet.end()
        self._log(response.status)

    def _refuse(self, error: CallFailed, *, close: bool = False) -> None:
        self._answer(self._wire.refuse(self._exchange, error, time.time()), close=close)

    def _answer(self, response: HttpResponse, *, close: bool) -> None:
        self._outlet.answer(response, close=close or self._service.draining)
        self._log(response.status)

    def _log(self, status: int) -> None:
        """The access log: who, what, how it ended and how long it took; no arguments, no secrets."""
        if self._service.options.access_log:
            exchange = self._exchange
            access_log.info(
                "%s %s %d calls=%d %.1fms key=%s",
                exchange.head.method,
                exchange.head.path,
                status,
                0 if self._batch is None else len(self._batch.calls),
                (time.perf_counter() - self._began) * 1000,
                "-" if exchange.verified is None else exchange.key.id,
            )


def _is_short(fields: Mapping[str, str]) -> bool:
    """Whether a body may be read just to be dropped, so that the connection can be kept."""
    length = fields.get("content-length", "0")
    # int() takes other digits than ASCII's to be digits or not, and refuses some thousand of them.
    plain = length.isascii() and length.isdigit() and len(length) < 10
    return plain and int(length) <= MAX_DISCARDED and "transfer-encoding" not in fields


def _raising(error: Exception) -> Callable[[Exchange], Batch]:
    def accept(exchange: Exchange) -> Batch:
        raise error

    return accept


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

    def collector(self, number: int) -> Callable[[Recorded], None]:
        """What takes the answer of one call."""

        def collect(answer: Recorded) -> None:
            self._left -= 1
            status, body = _recode(answer, self._exchange.codec)
            self._answers.append(BatchedAnswer(number, status, msgspec.Raw(body)))
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
        # The small ones first: one that is too large for the caller ends the stream there.
        for length, answer in sorted(((len(memoryview(answer.body)), answer) for answer in answers), key=_length):
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


def _length(answer: tuple[int, BatchedAnswer]) -> int:
    return answer[0]


def _recode(answer: Recorded, codec: Codec) -> tuple[int, bytes]:
    """An answer for `codec`; one that was recorded for a request in another media type is encoded again."""
    if answer.media_type in (codec.media_type, PROBLEM_MEDIA_TYPES[codec.media_type]):
        return answer.status, answer.body
    recorded = codec_for(PROBLEM_VALUES.get(answer.media_type, answer.media_type), unsafe=True) or JSON
    try:
        return answer.status, codec.encode(recorded.decode(answer.body))
    except (Unserializable, CallFailed) as error:
        told = ResultUnserializable(f"the result was recorded as {answer.media_type}: {error}")
        return told.status, codec.encode(describe(told))
