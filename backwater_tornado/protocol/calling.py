"""The life of one call on the client's side: what is tried, in what order, and what is safe to repeat.

`call_flow` is the life of one call, a generator: it yields an `Attempt` or a `Pause` and is sent the answer, or thrown
what went wrong. It says what is safe to repeat:

* nothing was sent: any endpoint, again;
* sent, and no verified answer: the same endpoint again, under the same idempotency key, so that the function runs at
  most once. Another endpoint has another memory; it is asked only when the call is idempotent;
* refused, and the refusal is one that passes (busy, shutting down, clocks apart): again;
* anything else is final.

Where there is a choice, endpoints that fail are left alone for a while (`breakers`).

Rule: no clock, no dice, no socket: `clock` and `dice` are given.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from backwater_tornado.errors import (
    CallFailed,
    DeadlineExceeded,
    OutcomeUnknown,
    Refused,
    Replayed,
    ResponseUndecodable,
    SignatureFromFuture,
    SignatureStale,
    Unreachable,
    Unverified,
)
from backwater_tornado.options import ClientOptions, Endpoint

from .breakers import Breaker
from .codec import codec_for
from .patience import Patience
from .problems import PROBLEM_VALUES, rebuild


def lost(text: str, *, silent: bool = False) -> OutcomeUnknown:
    """The failure of an attempt that was sent and got no verified answer; the same call may be sent again."""
    error = OutcomeUnknown(text)
    error.retryable = True
    error.silent = silent
    return error


@dataclass(slots=True)
class Target:
    """An endpoint and what was learned about it."""

    endpoint: Endpoint
    #: Seconds to add to our clock to get the server's.
    offset: float = 0.0
    #: Whether it is asked while there are others.
    breaker: Breaker = field(default_factory=Breaker)
    #: How long polls may wait there.
    patience: Patience = field(default_factory=Patience)


@dataclass(slots=True, eq=False)
class Outgoing:
    """One call from its caller to its answer; moments are those of `clock`."""

    number: int
    module: str
    function: str
    #: `[args, kwargs]`, encoded.
    arguments: bytes
    deadline: float
    idempotent: bool = False
    traceparent: str | None = None
    #: The function may wait so long before it answers, seconds: it is a poll.
    waits: float = 0.0
    #: Since when an attempt may have reached the server.
    sent_since: float | None = None
    #: The key that signed the first attempt, and signs the others: the server remembers calls by key.
    key_id: str | None = None
    #: How many arguments there are; version 1 wants to know.
    arity: int = 0
    #: It may be sent again after it may have arrived: the server remembers calls, or the function may run twice.
    repeatable: bool = True


class Attempt(msgspec.Struct, frozen=True):
    """Send the call to the target; `fresh`: on a new connection."""

    call: Outgoing
    target: Target
    fresh: bool


class Pause(msgspec.Struct, frozen=True):
    """Wait before the next attempt, seconds."""

    seconds: float


class Answer(msgspec.Struct, frozen=True):
    """A verified answer, not yet decoded."""

    status: int
    media_type: str
    body: bytes
    #: Seconds that the response asks to wait before another attempt.
    retry_after: float | None = None


# The life of a call --------------------------------------------------------------------------------------------------


def call_flow(
    call: Outgoing,
    targets: Sequence[Target],
    options: ClientOptions,
    clock: Callable[[], float],
    dice: Callable[[], float],
    problem: Callable[[Answer], CallFailed] | None = None,
) -> Generator[Attempt | Pause, Any, Answer]:
    """Try until there is an answer; raises the error that ended it. `problem` reads an answer that is no 200."""
    course = _Course(call, targets, options, clock, dice)
    while True:
        attempt = course.begin()
        try:
            answer: Answer = yield attempt
            course.note_answer(answer)
            if answer.status == 200:
                return answer
            failure = (problem or decode_problem)(answer)
        except CallFailed as error:
            failure = error
        pause = course.go_on(failure)
        if pause:
            yield Pause(pause)


class _Course:
    """Where a call stands: how often it was tried, and where it is tried next."""

    def __init__(
        self,
        call: Outgoing,
        targets: Sequence[Target],
        options: ClientOptions,
        clock: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self._call = call
        self._targets = targets
        self._options = options
        self._clock = clock
        self._dice = dice
        self._attempts = 0
        #: Attempts that heard nothing, while the function may just take long.
        self._silent = 0
        self._skewed = 0
        self._began = 0.0
        self._failure: CallFailed | None = None
        self._at = self._next_up(int(dice() * len(targets)) if options.spread else 0, clock())

    def begin(self) -> Attempt:
        """The next attempt; raises what the caller is told when the time is over."""
        self._began = self._clock()
        if self._began >= self._call.deadline:
            if self._failure is not None:
                raise _timed_out(self._failure, self._call, self._attempts)
            raise DeadlineExceeded("the time for the call was over before it was sent")
        self._attempts += 1
        return Attempt(self._call, self._targets[self._at], fresh=self._attempts > 1)

    def go_on(self, failure: CallFailed) -> float:
        """How long to wait before the next attempt; raises what the caller is told when there is none."""
        call, options = self._call, self._options
        self._failure = failure
        self._note_failure(failure)
        # Replayed: the network delivered the request twice, and the other copy may run.
        if isinstance(failure, OutcomeUnknown | Unverified | Replayed) and call.sent_since is None:
            call.sent_since = self._began
        self._skewed += isinstance(failure, SignatureStale | SignatureFromFuture)
        if call.sent_since is not None and not call.repeatable:
            raise failure
        silent = isinstance(failure, OutcomeUnknown) and failure.silent
        self._silent += silent
        if not failure.retryable or self._skewed > 1 or self._attempts - self._silent >= options.max_attempts:
            raise _ended(failure, call)
        pause = 0.0 if silent else _pause(failure, self._attempts - self._silent, options, self._dice)
        now = self._clock()
        if (call.sent_since is None or call.idempotent) and _elsewhere(failure):
            another = self._next_up((self._at + 1) % len(self._targets), now)
            # Each endpoint is tried once without a pause; after that the trouble is more than one endpoint's.
            if another != self._at and self._attempts < len(self._targets):
                pause = 0.0
            self._at = another
        if now + pause >= call.deadline:
            raise _timed_out(failure, call, self._attempts)
        return pause

    def note_answer(self, answer: Answer) -> None:
        """What a verified answer tells of its endpoint; one that has no time for us has not answered, really."""
        target = self._targets[self._at]
        if answer.status != 503:
            target.breaker.note_answer()
            if self._call.waits:
                target.patience.note_life(self._clock() - self._began)

    def _note_failure(self, failure: CallFailed) -> None:
        """What a failure tells of the endpoint. Silence tells something of polls only: other functions take long."""
        silent = isinstance(failure, OutcomeUnknown) and failure.silent
        if not failure.retryable or not _elsewhere(failure) or isinstance(failure, Unverified):
            return
        call, target, now, options = self._call, self._targets[self._at], self._clock(), self._options
        if call.waits or not silent:
            rest = options.endpoint_rest, options.max_endpoint_rest
            unreachable = isinstance(failure, Unreachable)
            target.breaker.note_failure(self._began, now, rest, self._dice(), unreachable=unreachable)
        if call.waits and isinstance(failure, OutcomeUnknown) and not silent:
            target.patience.note_death(self._began, call.waits, now)

    def _next_up(self, at: int, now: float) -> int:
        """The first target from `at` on that its breaker lets us ask; when none does, the one that comes next."""
        if len(self._targets) == 1:
            return 0
        order = [(at + step) % len(self._targets) for step in range(len(self._targets))]
        longest = self._options.connect_timeout + self._options.recv_timeout
        for candidate in order:
            if self._targets[candidate].breaker.admit(now, longest):
                return candidate
        return min(order, key=lambda candidate: self._targets[candidate].breaker.retry_at)


def _elsewhere(failure: CallFailed) -> bool:
    """Whether another endpoint may do better; clocks and nonces are a matter between the two."""
    return not isinstance(failure, Refused) or failure.status == 503


def _pause(failure: CallFailed, attempt: int, options: ClientOptions, dice: Callable[[], float]) -> float:
    if failure.retry_after is None and isinstance(failure, Refused) and failure.status != 503:
        return 0.0
    # The exponent is bounded: 2.0**1024 would overflow.
    longest = min(options.max_backoff, options.backoff * 2.0 ** min(attempt - 1, 30))
    return max(failure.retry_after or 0.0, longest * dice())


def _ended(failure: CallFailed, call: Outgoing) -> CallFailed:
    """What the caller is told: that nothing ran only where that holds for every attempt, not just for the last one."""
    passing = isinstance(failure, Unreachable) or (isinstance(failure, Refused) and failure.retryable)
    if call.sent_since is None or not passing:
        return failure
    error = OutcomeUnknown(f"an earlier attempt may have run; the last one failed: {failure.detail}")
    error.__cause__ = failure
    return error


def _timed_out(failure: CallFailed, call: Outgoing, attempts: int) -> CallFailed:
    if call.sent_since is None:
        return failure
    text = f"no answer in time after {attempts} attempts; the function may have run; last failure: {failure.detail}"
    error = DeadlineExceeded(text)
    error.__cause__ = failure
    return error


# Answers -------------------------------------------------------------------------------------------------------------


def decode_problem(answer: Answer) -> CallFailed:
    """The error that an answer carries; raises `ResponseUndecodable`."""
    error = rebuild(decode_answer(answer, unsafe=False), answer.status)
    if error.retry_after is None:
        error.retry_after = answer.retry_after
    return error


def decode_answer(answer: Answer, *, unsafe: bool) -> Any:
    """The value of an answer, or its problem details; raises `ResponseUndecodable`."""
    values = PROBLEM_VALUES.get(answer.media_type, answer.media_type)
    codec = codec_for(values, unsafe=unsafe)
    if codec is None:
        raise ResponseUndecodable(f"the answer has the media type {answer.media_type!r}")
    try:
        return codec.decode(answer.body)
    except CallFailed as error:
        raise ResponseUndecodable(f"the answer cannot be decoded: {error.detail}") from error
