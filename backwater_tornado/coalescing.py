"""Concurrent calls to one endpoint travel together.

A call that finds nothing in flight goes out at once (at the end of this turn of the loop, so that calls started
together share a request). What arrives while a request is in flight waits for it, `coalesce_delay` at most, and goes
out as one request. Answers come back as each call ends.

Rule: knows requests and futures; what to do about a failure is `protocol.calling`'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .errors import CallFailed
from .protocol.batches import FrameReader
from .protocol.calling import Answer, Attempt, Target, lost
from .protocol.messages import HttpRequest, HttpResponse
from .protocol.sealing import Sealed, answers_reader, verify_head
from .session import Session

#: Room in a request for what is not arguments, for each call, bytes.
_ENVELOPE_ROOM = 600


class Incoming(Protocol):
    """A response on its way."""

    @property
    def received(self) -> int:
        """Bytes of the body so far."""
        ...

    def head(self) -> HttpResponse:
        """Status and fields."""
        ...

    def response(self) -> HttpResponse:
        """The whole response."""
        ...


class Engine(Protocol):
    """What sends requests on a loop (`curl.MultiEngine`, or `tornado_engine`)."""

    def send(
        self,
        request: HttpRequest,
        timeout: float,
        done: Callable[[Any, CallFailed | None], None],
        *,
        fresh: bool = False,
        on_data: Callable[[Any, bytes], None] | None = None,
    ) -> Any:
        """Start a request; `done` gets the response, or what went wrong."""
        ...

    def close(self) -> None:
        """End everything."""
        ...

    def abandon(self) -> None:
        """Leave everything to the parent process."""
        ...


Pending = tuple[Attempt, "asyncio.Future[Answer]"]


class Lane:
    """The calls to one endpoint, on one loop."""

    def __init__(self, session: Session, engine: Engine, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._engine = engine
        self._target = target
        self._loop = loop
        self._waiting: deque[Pending] = deque()
        self._in_flight = 0
        self._flush: asyncio.Handle | None = None
        #: Whether `_flush` is for this very turn.
        self._now = False

    def submit(self, attempt: Attempt) -> asyncio.Future[Answer]:
        """Send a call; the future has its verified answer."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting.append((attempt, future))
        options = self._session.options
        if not self._in_flight or len(self._waiting) >= options.max_calls_per_request:
            self._flush_soon()
        elif self._flush is None:
            self._flush = self._loop.call_later(options.coalesce_delay, self._send_waiting)
        return future

    def _flush_soon(self) -> None:
        if self._now:
            return
        if self._flush is not None:
            self._flush.cancel()
        self._now = True
        self._flush = self._loop.call_soon(self._send_waiting)

    def _send_waiting(self) -> None:
        self._flush, self._now = None, False
        full = self._in_flight >= self._session.options.max_connections
        while self._waiting and not full:
            group = self._take_group()
            if group:
                self._send(group)
            full = self._in_flight >= self._session.options.max_connections

    def _take_group(self) -> list[Pending]:
        """The next calls that fit into one request; those that were cancelled meanwhile are left out."""
        options = self._session.options
        room = options.limits.max_encoded_args_size
        group: list[Pending] = []
        while self._waiting and len(group) < options.max_calls_per_request:
            attempt, future = self._waiting[0]
            size = len(attempt.call.arguments) + _ENVELOPE_ROOM
            if group and size > room:
                break
            self._waiting.popleft()
            if not future.done():
                group.append((attempt, future))
                room -= size
        return group

    def _send(self, group: list[Pending]) -> None:
        attempts = [attempt for attempt, _ in group]
        try:
            sealed = self._session.seal(attempts)
        except Exception as error:  # noqa: BLE001 - e.g. no key is valid: every caller gets it, none waits for ever
            _fail(group, error)
            return
        exchange = _Exchange(self, sealed, group)
        timeout = max(attempt.call.deadline for attempt in attempts) - time.monotonic()
        self._in_flight += 1
        try:
            self._engine.send(
                sealed.request,
                timeout,
                exchange.end,
                fresh=any(attempt.fresh for attempt in attempts),
                on_data=exchange.read if len(group) > 1 else None,
            )
        except CallFailed as error:
            exchange.end(None, error)

    def ended(self, received: int) -> None:
        """A request has ended: what has waited for it goes out."""
        self._in_flight -= 1
        self._session.count_response(received)
        if self._waiting:
            self._flush_soon()


class _Exchange:
    """One request in flight and the calls in it."""

    __slots__ = ("_body", "_futures", "_group", "_lane", "_reader", "_sealed")

    def __init__(self, lane: Lane, sealed: Sealed, group: list[Pending]) -> None:
        self._lane = lane
        self._sealed = sealed
        self._group = group
        self._futures = {attempt.call.number: future for attempt, future in group}
        self._reader: FrameReader | None = None
        #: The body so far of an answer that is no stream.
        self._body: list[bytes] | None = None

    def read(self, incoming: Incoming, data: bytes) -> None:
        """Bytes of an answer to many calls: frames, or the refusal of all of them."""
        if self._reader is None and self._body is None:
            self._begin(incoming.head())
        if self._reader is None:
            assert self._body is not None
            self._body.append(data)
            return
        for answer in self._reader.feed(data):
            future = self._futures.get(answer.number)
            if future is not None and not future.done():
                media_type = self._lane._session.codec.media_type
                future.set_result(Answer(answer.status, media_type, bytes(answer.body)))

    def _begin(self, head: HttpResponse) -> None:
        session = self._lane._session
        limit = session.options.limits.max_encoded_result_size
        reader = answers_reader(self._sealed, head, limit)
        if reader is None:
            self._body = []
            return
        parameters = verify_head(self._sealed, head)
        session.note_clock(self._lane._target, parameters)
        self._reader = reader

    def end(self, incoming: Incoming | None, error: CallFailed | None) -> None:
        """The request has ended; a call that has no answer yet gets the error."""
        self._lane.ended(incoming.received if incoming is not None else 0)
        if error is None and incoming is not None:
            try:
                error = self._finish(incoming)
            except CallFailed as failure:
                error = failure
        _fail(self._group, error or lost("the answer ended too soon"))

    def _finish(self, incoming: Incoming) -> CallFailed | None:
        if self._reader is not None:
            return lost("the answer ended too soon")
        response = incoming.response()
        if self._body is not None:
            response = HttpResponse(response.status, response.fields, b"".join(self._body))
        answer = self._lane._session.open(self._sealed, self._lane._target, response)
        for _, future in self._group:
            if not future.done():
                future.set_result(answer)
        return None


def _fail(group: list[Pending], error: Exception) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
