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

from .deadlines import Deadlines
from .errors import CallFailed, DeadlineExceeded, Unreachable
from .protocol.batches import FrameReader
from .protocol.calling import Answer, Attempt, Target, lost
from .protocol.messages import HttpRequest, HttpResponse
from .protocol.sealing import Sealed, answers_reader, verify_head
from .session import Session

#: Room in a request for what is not arguments, for each call, bytes.
_ENVELOPE_ROOM = 600
#: A call is given up this long after its deadline, seconds.
_LAST_WORD = 0.2


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

    #: A request on a kept connection may be sent again without anybody asking.
    resends: bool

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


class Pending:
    """One call from `submit` to its answer."""

    __slots__ = ("attempt", "deadline", "future", "sent")

    def __init__(self, attempt: Attempt, future: asyncio.Future[Answer]) -> None:
        self.attempt = attempt
        self.future = future
        #: When it is given up here. The server's own word on the deadline is better, and may still come.
        self.deadline = attempt.call.deadline + _LAST_WORD
        self.sent = False


class Lane:
    """The calls to one endpoint, on one loop."""

    def __init__(self, session: Session, engine: Engine, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self.session = session
        self.target = target
        self._engine = engine
        self._loop = loop
        self._waiting: deque[Pending] = deque()
        self._in_flight: set[_Exchange] = set()
        self._deadlines: Deadlines[Pending] = Deadlines(loop, self._expire)
        self._flush: asyncio.Handle | None = None
        #: Whether `_flush` is for this very turn.
        self._now = False

    def submit(self, attempt: Attempt) -> asyncio.Future[Answer]:
        """Send a call; the future has its verified answer."""
        pending = Pending(attempt, self._loop.create_future())
        self._waiting.append(pending)
        self._deadlines.add(pending)
        if not self._in_flight or len(self._waiting) >= self.session.calls_per_request:
            self._flush_soon()
        elif self._flush is None:
            self._flush = self._loop.call_later(self.session.options.coalesce_delay, self._send_waiting)
        return pending.future

    def settle(self, pending: Pending, outcome: Answer | Exception) -> None:
        """A call has its answer, or failed; only the first outcome counts."""
        self._deadlines.remove(pending)
        if pending.future.done():
            return
        if isinstance(outcome, Answer):
            pending.future.set_result(outcome)
        else:
            pending.future.set_exception(outcome)

    def close(self) -> None:
        """Every call fails now."""
        waiting, self._waiting = self._waiting, deque()
        for pending in waiting:
            self.settle(pending, Unreachable("the client was closed"))
        for exchange in list(self._in_flight):
            exchange.end(None, lost("the client was closed"))
        self._deadlines.close()

    def _expire(self, pending: Pending) -> None:
        """Requests are shared, and may wait for one another: a call's own deadline holds all the same."""
        if pending.sent:
            self.settle(pending, lost("no answer came"))
        else:
            self.settle(pending, DeadlineExceeded("the time for the call was over before it was sent"))

    def _flush_soon(self) -> None:
        if self._now:
            return
        if self._flush is not None:
            self._flush.cancel()
        self._now = True
        self._flush = self._loop.call_soon(self._send_waiting)

    def _send_waiting(self) -> None:
        self._flush, self._now = None, False
        while self._waiting and len(self._in_flight) < self.session.options.max_connections:
            group = self._take_group()
            if group:
                self._send(group)

    def _take_group(self) -> list[Pending]:
        """The next calls that fit into one request; those that were cancelled meanwhile are left out."""
        room = min(self.session.options.coalesce_size, self.session.options.limits.max_encoded_args_size)
        group: list[Pending] = []
        while self._waiting and len(group) < self.session.calls_per_request:
            pending = self._waiting[0]
            size = len(pending.attempt.call.arguments) + _ENVELOPE_ROOM
            # Calls that were sent before keep their key, see `Session.seal`.
            if group and (size > room or pending.attempt.call.key_id != group[0].attempt.call.key_id):
                break
            self._waiting.popleft()
            if not pending.future.done():
                group.append(pending)
                room -= size
        return group

    def _send(self, group: list[Pending]) -> None:
        attempts = [pending.attempt for pending in group]
        try:
            sealed = self.session.seal(attempts)
        except Exception as error:  # noqa: BLE001 - e.g. no key is valid: every caller gets it, none waits for ever
            for pending in group:
                self.settle(pending, error)
            return
        exchange = _Exchange(self, sealed, group)
        timeout = max(attempt.call.deadline for attempt in attempts) - time.monotonic()
        self._in_flight.add(exchange)
        for pending in group:
            pending.sent = True
        try:
            self._engine.send(
                sealed.request,
                max(timeout, 0.001),
                exchange.end,
                fresh=any(attempt.fresh for attempt in attempts) or self._must_be_fresh(attempts),
                on_data=exchange.read if len(group) > 1 else None,
            )
        except CallFailed as error:
            exchange.end(None, error)

    def _must_be_fresh(self, attempts: list[Attempt]) -> bool:
        """Whether a kept connection might have a call arrive twice that must not."""
        return self._engine.resends and not all(attempt.call.repeatable for attempt in attempts)

    def ended(self, exchange: _Exchange, received: int) -> bool:
        """A request has ended: what has waited for it goes out. False when that was known."""
        if exchange not in self._in_flight:
            return False
        self._in_flight.discard(exchange)
        self.session.count_response(received)
        if self._waiting:
            self._flush_soon()
        return True


class _Exchange:
    """One request in flight and the calls in it."""

    __slots__ = ("_body", "_group", "_lane", "_reader", "_sealed")

    def __init__(self, lane: Lane, sealed: Sealed, group: list[Pending]) -> None:
        self._lane = lane
        self._sealed = sealed
        #: The calls without an answer, by their numbers.
        self._group = {pending.attempt.call.number: pending for pending in group}
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
            pending = self._group.pop(answer.number, None)
            if pending is not None:
                media_type = self._lane.session.sealer.media_type
                self._lane.settle(pending, Answer(answer.status, media_type, bytes(answer.body)))

    def _begin(self, head: HttpResponse) -> None:
        session = self._lane.session
        limit = session.options.limits.max_encoded_result_size
        reader = answers_reader(self._sealed, head, limit)
        if reader is None:
            self._body = []
            return
        parameters = verify_head(self._sealed, head)
        session.note_clock(self._lane.target, parameters)
        self._reader = reader

    def end(self, incoming: Incoming | None, error: CallFailed | None) -> None:
        """The request has ended; a call that has no answer yet gets the error."""
        if not self._lane.ended(self, incoming.received if incoming is not None else 0):
            return
        outcome: Answer | CallFailed = error or lost("the answer ended too soon")
        if error is None and incoming is not None and self._reader is None:
            try:
                outcome = self._open(incoming.response())
            except CallFailed as failure:
                outcome = failure
        for pending in self._group.values():
            self._lane.settle(pending, outcome)

    def _open(self, response: HttpResponse) -> Answer:
        """The answer to a request for one call, or the refusal of all."""
        if self._body is not None:
            response = HttpResponse(response.status, response.fields, b"".join(self._body))
        return self._lane.session.open(self._sealed, self._lane.target, response)
