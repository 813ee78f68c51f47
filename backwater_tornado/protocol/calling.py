"""The client's half of the protocol: sealing calls into requests, opening responses, and what to do when one fails.

`call_flow` is the life of one call, a generator: it yields an `Attempt` or a `Pause` and is sent the answer, or thrown
what went wrong. It says what is safe to repeat:

* nothing was sent: any endpoint, again;
* sent, and no verified answer: the same endpoint again, under the same idempotency key, so that the function runs at
  most once. Another endpoint has another memory; it is asked only when the call is idempotent;
* refused, and the refusal is one that passes (busy, shutting down, clocks apart): again;
* anything else is final.

Rule: no clock, no dice, no socket: `clock` and `dice` are given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from backwater_tornado.errors import (
    CallFailed,
    DeadlineExceeded,
    OutcomeUnknown,
    Refused,
    ResponseAltered,
    ResponseUndecodable,
    ResponseUnsigned,
    SignatureFromFuture,
    SignatureStale,
    Unreachable,
    Unverified,
)
from backwater_tornado.options import ClientOptions, Endpoint, Limits

from .batches import VALUES_MEDIA_TYPES, BatchedCall, Envelope, FrameReader, encode_envelope
from .codec import JSON, Codec, codec_for
from .compression import compress, decompress
from .headers import decode_bytes, dictionary_members, encode_bytes, format_call_key, format_timeout
from .keys import Key
from .messages import HttpRequest, HttpResponse
from .problems import PROBLEM_VALUES, rebuild
from .signatures import Parameters, RequestHead, sign_request, verify_response

#: A signature is valid for this long at least, seconds; the call's own time is added.
SIGNATURE_LIFE = 60
#: Answers of a proxy on the way, not of the server: worth another try.
GATEWAY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Clocks may differ by this much before it counts, seconds.
CLOCK_SLACK = 5.0


def lost(text: str) -> OutcomeUnknown:
    """The failure of an attempt that was sent and got no verified answer; the same call may be sent again."""
    error = OutcomeUnknown(text)
    error.retryable = True
    return error


@dataclass(slots=True)
class Target:
    """An endpoint and what was learned about it."""

    endpoint: Endpoint
    #: Seconds to add to our clock to get the server's.
    offset: float = 0.0
    #: Not to be tried before this moment of `clock`, while there are others.
    down_until: float = 0.0


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
    #: Since when an attempt may have reached the server.
    sent_since: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the call to the target; `fresh`: on a new connection."""

    call: Outgoing
    target: Target
    fresh: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt, seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A verified answer, not yet decoded."""

    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A signed request and what is needed to open its response."""

    request: HttpRequest
    head: RequestHead
    key: Key
    nonce: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """What requests are sealed with: one for each client."""

    stream: str
    codec: Codec
    limits: Limits


# The life of a call --------------------------------------------------------------------------------------------------


def call_flow(
    call: Outgoing,
    targets: Sequence[Target],
    options: ClientOptions,
    clock: Callable[[], float],
    dice: Callable[[], float],
) -> Generator[Attempt | Pause, Any, Answer]:
    """Try until there is an answer; raises the error that ended it."""
    at = int(dice() * len(targets)) if options.spread else 0
    at = _next_up(targets, at, clock())
    attempt, skewed = 0, 0
    while True:
        attempt += 1
        target = targets[at]
        began = clock()
        if began >= call.deadline:
            raise DeadlineExceeded("the time for the call was over before it was sent")
        try:
            answer: Answer = yield Attempt(call, target, fresh=attempt > 1)
            if answer.status == 200:
                return answer
            failure = decode_problem(answer)
        except CallFailed as error:
            failure = error
        if isinstance(failure, OutcomeUnknown | Unverified) and call.sent_since is None:
            call.sent_since = began
        skewed += isinstance(failure, SignatureStale | SignatureFromFuture)
        if not failure.retryable or skewed > 1 or attempt >= options.max_attempts:
            raise failure
        pause = _pause(failure, attempt, options, dice)
        if clock() + pause >= call.deadline:
            raise _timed_out(failure, call, attempt)
        if isinstance(failure, Unreachable):
            target.down_until = clock() + options.max_backoff
        if call.sent_since is None or call.idempotent:
            another = _next_up(targets, (at + 1) % len(targets), clock()) if _elsewhere(failure) else at
            pause = pause if another == at else 0.0
            at = another
        if pause:
            yield Pause(pause)


def _next_up(targets: Sequence[Target], at: int, now: float) -> int:
    """The first target from `at` on that is not known to be down; `at` when all are."""
    for step in range(len(targets)):
        candidate = (at + step) % len(targets)
        if targets[candidate].down_until <= now:
            return candidate
    return at


def _elsewhere(failure: CallFailed) -> bool:
    """Whether another endpoint may do better; clocks and nonces are a matter between the two."""
    return not isinstance(failure, Refused) or failure.status == 503


def _pause(failure: CallFailed, attempt: int, options: ClientOptions, dice: Callable[[], float]) -> float:
    if failure.retry_after is None and isinstance(failure, Refused) and failure.status != 503:
        return 0.0
    # The exponent is bounded: 2.0**1024 would overflow.
    longest = min(options.max_backoff, options.backoff * 2.0 ** min(attempt - 1, 30))
    return max(failure.retry_after or 0.0, longest * dice())


def _timed_out(failure: CallFailed, call: Outgoing, attempts: int) -> CallFailed:
    if isinstance(failure, Unreachable) and call.sent_since is None:
        return failure
    ran = "it did not run" if call.sent_since is None else "the function may have run"
    error = DeadlineExceeded(f"no answer in time after {attempts} attempts; {ran}; last failure: {failure.detail}")
    error.__cause__ = failure
    return error


# Requests ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def call_path(module: str, function: str) -> str:
    """The path of one call, without the endpoint's base."""
    return f"/backwater/2/{quote(module, safe='')}/{quote(function, safe='')}"


def seal_one(seal: Seal, key: Key, attempt: Attempt, *, nonce: str, settled: int, clock: float, unix: float) -> Sealed:
    """A request for one call."""
    call = attempt.call
    age = None if call.sent_since is None else clock - call.sent_since
    fields = {
        "idempotency-key": format_call_key(seal.stream, call.number, settled, age),
        "backwater-timeout": format_timeout(call.deadline - clock),
    }
    if call.traceparent is not None:
        fields["traceparent"] = call.traceparent
    path = call_path(call.module, call.function)
    return _seal(seal, key, attempt.target, path, call.arguments, fields, nonce, unix)


def seal_many(
    seal: Seal,
    key: Key,
    target: Target,
    calls: Sequence[Outgoing],
    *,
    nonce: str,
    settled: int,
    clock: float,
    unix: float,
) -> Sealed:
    """A request for many calls."""
    envelope = Envelope(
        seal.stream,
        settled,
        [
            BatchedCall(
                call.number,
                call.module,
                call.function,
                msgspec.Raw(call.arguments),
                max(call.deadline - clock, 0.001),
                None if call.sent_since is None else clock - call.sent_since,
                call.traceparent,
            )
            for call in calls
        ],
    )
    body = encode_envelope(seal.codec.media_type, envelope)
    return _seal(seal, key, target, "/backwater/2", body, {}, nonce, unix)


def _seal(
    seal: Seal, key: Key, target: Target, path: str, body: bytes, own: dict[str, str], nonce: str, unix: float
) -> Sealed:
    endpoint = target.endpoint
    packed = compress(body, seal.limits.compression_threshold, seal.limits.compression_level)
    fields = {"content-type": seal.codec.media_type}
    if packed is not None:
        fields["content-encoding"] = "zstd"
        body = packed
    if seal.codec is JSON:
        fields["accept-encoding"] = "zstd"
    fields["content-length"] = str(len(body))
    fields["content-digest"] = f"sha-256={encode_bytes(hashlib.sha256(body).digest())}"
    fields.update(own)
    head = RequestHead("POST", endpoint.authority, endpoint.base + path, "", fields)
    created = int(unix + target.offset)
    signature_input, signature = sign_request(key, head, created=created, expires=created + SIGNATURE_LIFE, nonce=nonce)
    fields["signature-input"] = signature_input
    fields["signature"] = signature
    mac = decode_bytes(signature.partition("=")[2])
    assert mac is not None
    request = HttpRequest(f"{endpoint.scheme}://{endpoint.authority}{head.path}", list(fields.items()), body)
    return Sealed(request, head, key, nonce, mac)


# Responses -----------------------------------------------------------------------------------------------------------


def verify_head(sealed: Sealed, response: HttpResponse) -> Parameters:
    """Check that a response is the server's and answers this request.

    Raises:
        ResponseUnsigned: it is not signed; its `hint` has what it claims to be.
        ResponseAltered, ResponseMismatched: it is signed and does not fit.
    """
    try:
        return verify_response(sealed.key, sealed.head, sealed.nonce, response.status, response.fields)
    except ResponseUnsigned as error:
        raise explain_unsigned(response, error) from error


def explain_unsigned(response: HttpResponse, error: ResponseUnsigned) -> CallFailed:
    """What an unsigned answer is told as: a gateway's trouble may pass; a claim of the server's is final and a hint."""
    if "signature" not in response.fields and response.status in GATEWAY_STATUSES:
        passing = lost(f"a proxy on the way, or the server, answered {response.status} without a signature")
        retry_after = response.fields.get("retry-after", "")
        if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 5:
            passing.retry_after = float(retry_after)
        return passing
    hint: Refused | None = None
    if response.fields.get("content-type") == "application/problem+json" and len(response.body) < 65536:
        try:
            told = rebuild(JSON.decode(response.body), response.status)
        except CallFailed:
            told = None
        hint = told if isinstance(told, Refused) else None
    claim = f"{hint.code}: {hint.detail}" if hint is not None else f"status {response.status}"
    unsigned = ResponseUnsigned(f"{error.detail}; it claims {claim}")
    unsigned.hint = hint
    unsigned.retryable = False
    return unsigned


def open_body(fields: HttpResponse, limit: int) -> bytes:
    """The body of a verified response: digest, then bounded decompression."""
    digest = hashlib.sha256(fields.body).digest()
    for name, value in dictionary_members(fields.fields.get("content-digest", "")):
        if name == "sha-256" and decode_bytes(value) == digest:
            break
    else:
        raise ResponseAltered("the body of the answer is not the one that was signed")
    encoding = fields.fields.get("content-encoding")
    if encoding is None:
        return fields.body
    if encoding != "zstd":
        raise ResponseUndecodable(f"the answer has the content encoding {encoding!r}")
    try:
        return decompress(fields.body, limit)
    except CallFailed as error:
        raise ResponseUndecodable(f"the answer cannot be decompressed: {error.detail}") from error


def open_one(sealed: Sealed, response: HttpResponse, limit: int) -> tuple[Answer, Parameters]:
    """The verified answer to a request for one call (or a refusal of the whole request)."""
    parameters = verify_head(sealed, response)
    body = open_body(response, limit)
    return Answer(response.status, response.fields["content-type"], body), parameters


def answers_reader(sealed: Sealed, response: HttpResponse, limit: int) -> FrameReader | None:
    """A reader for the frames that follow a verified head, or None when it is an ordinary answer."""
    values = VALUES_MEDIA_TYPES.get(response.fields.get("content-type", ""))
    if values is None or response.status != 200:
        return None
    return FrameReader(sealed.key, sealed.mac, values, limit)


def clock_offset(parameters: Parameters, unix: float) -> float:
    """Seconds to add to our clock to get the server's; small differences are none."""
    offset = parameters.created - unix
    return offset if abs(offset) > CLOCK_SLACK else 0.0


def decode_problem(answer: Answer) -> CallFailed:
    """The error that an answer carries; raises `ResponseUndecodable`."""
    return rebuild(decode_answer(answer, unsafe=False), answer.status)


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
