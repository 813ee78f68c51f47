"""Calls sealed into signed requests, and responses opened: the client's mirror image of `serving`.

Rule: no clock, no dice, no socket; what depends on the moment is in the `Stamp`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from backwater_tornado.errors import (
    CallFailed,
    Refused,
    ResponseAltered,
    ResponseUndecodable,
    ResponseUnsigned,
    UnknownFunction,
    UnknownModule,
)
from backwater_tornado.exposure import Readings
from backwater_tornado.options import Limits

from .batches import (
    ANSWERS_MEDIA_TYPES,
    MAX_NAME,
    VALUES_MEDIA_TYPES,
    BatchedCall,
    Envelope,
    FrameReader,
    encode_envelope,
)
from .calling import Answer, Attempt, Outgoing, Target, decode_answer, decode_problem, lost
from .codec import JSON, Codec
from .compression import compress, decompress
from .headers import (
    bounded_timeout,
    decode_bytes,
    encode_bytes,
    format_call_key,
    format_timeout,
    parse_traceparent,
    read_digest,
    read_retry_after,
)
from .keys import Key
from .messages import HttpRequest, HttpResponse
from .problems import rebuild
from .signatures import CLOCK_SLACK, Parameters, RequestHead, sign_request, verify_response

#: A signature says that it is valid for this long, seconds; the server's tolerance is added.
SIGNATURE_LIFE = 60
#: Answers of a proxy on the way, not of the server: worth another try.
GATEWAY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class Sealed(msgspec.Struct, frozen=True):
    """A signed request and what is needed to open its response."""

    request: HttpRequest
    head: RequestHead
    key: Key
    nonce: str
    mac: bytes


class Seal(msgspec.Struct, frozen=True):
    """What requests are sealed with: one for each client."""

    stream: str
    codec: Codec
    limits: Limits


class Stamp(msgspec.Struct, frozen=True):
    """What one request has of its own: nonce, settled mark, and the moment on both clocks."""

    nonce: str
    #: Every call with a smaller number has been settled.
    settled: int
    #: The moment on the clock of `Outgoing.deadline`, and in Unix seconds.
    clock: float
    unix: float


class Sealer(Protocol):
    """The client's half of one version of the protocol."""

    @property
    def media_type(self) -> str:
        """Of what is sent."""
        ...

    @property
    def calls_per_request(self) -> int:
        """How many calls may travel in one request."""
        ...

    @property
    def remembered(self) -> bool:
        """Whether the server remembers calls, so that one may be sent again and runs once."""
        ...

    @property
    def readings(self) -> Readings | None:
        """What else a result that does not fit `returns` may stand for."""
        ...

    def encode_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The arguments of one call; raises `Unserializable`."""
        ...

    def seal(self, key: Key, attempts: Sequence[Attempt], stamp: Stamp) -> Sealed:
        """A signed request for these calls, all to the same target."""
        ...

    def open(self, sealed: Sealed, response: HttpResponse) -> tuple[Answer, Parameters | None]:
        """The verified answer, and what its signature says of the server's clock; raises `Unverified`."""
        ...

    def decode(self, answer: Answer) -> Any:
        """The value of an answer with status 200; raises what the function raised, or `ResponseUndecodable`."""
        ...

    def problem(self, answer: Answer) -> CallFailed:
        """The error that any other answer tells."""
        ...


class CodecSealer:
    """Version 2, see `Sealer`.

    Args:
        codec: of arguments and results.
        limits: of one message.
        most: how many calls may travel in one request, where the media type has a form for many.
    """

    remembered = True
    readings = None

    def __init__(self, codec: Codec, limits: Limits, most: int) -> None:
        self._codec = codec
        self._limits = limits
        self.media_type = codec.media_type
        self.calls_per_request = most if codec.media_type in ANSWERS_MEDIA_TYPES else 1

    def encode_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """See `Sealer`."""
        return self._codec.encode([list(args), kwargs])

    def seal(self, key: Key, attempts: Sequence[Attempt], stamp: Stamp) -> Sealed:
        """See `Sealer`."""
        # A child process has a stream of its own, so its name is asked for each time.
        seal = Seal(stamp.nonce.rpartition(".")[0], self._codec, self._limits)
        if len(attempts) == 1:
            return seal_one(seal, key, attempts[0], stamp)
        return seal_many(seal, key, attempts[0].target, [attempt.call for attempt in attempts], stamp)

    def open(self, sealed: Sealed, response: HttpResponse) -> tuple[Answer, Parameters]:
        """See `Sealer`."""
        return open_one(sealed, response, self._limits.max_encoded_result_size)

    def decode(self, answer: Answer) -> Any:
        """See `Sealer`."""
        return decode_answer(answer, unsafe=self._limits.decode_unsafe_terms)

    def problem(self, answer: Answer) -> CallFailed:
        """See `Sealer`."""
        return decode_problem(answer)


# Requests ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def check_names(module: str, function: str) -> None:
    """Refuse here what no server can have: in a request of many calls it would spoil the others.

    Raises:
        UnknownModule, UnknownFunction.
    """
    for name, error in ((module, UnknownModule), (function, UnknownFunction)):
        if not 0 < len(name) <= MAX_NAME or any("\ud800" <= char <= "\udfff" for char in name):
            raise error(f"a name has 1 to {MAX_NAME} characters, each of Unicode; {name[:MAX_NAME]!r} has not")


@lru_cache(maxsize=4096)
def call_path(module: str, function: str) -> str:
    """The path of one call, without the endpoint's base."""
    return f"/backwater/2/{quote(module, safe='')}/{quote(function, safe='')}"


def seal_one(seal: Seal, key: Key, attempt: Attempt, stamp: Stamp) -> Sealed:
    """A request for one call."""
    call = attempt.call
    age = None if call.sent_since is None else stamp.clock - call.sent_since
    fields = {
        "idempotency-key": format_call_key(seal.stream, call.number, stamp.settled, age),
        "backwater-timeout": format_timeout(call.deadline - stamp.clock),
    }
    traceparent = parse_traceparent(call.traceparent)
    if traceparent is not None:
        fields["traceparent"] = traceparent
    path = call_path(call.module, call.function)
    return _seal(seal, key, attempt.target, (path, call.arguments, fields), stamp)


def seal_many(seal: Seal, key: Key, target: Target, calls: Sequence[Outgoing], stamp: Stamp) -> Sealed:
    """A request for many calls."""
    envelope = Envelope(
        seal.stream,
        stamp.settled,
        [
            BatchedCall(
                call.number,
                call.module,
                call.function,
                msgspec.Raw(call.arguments),
                bounded_timeout(call.deadline - stamp.clock),
                None if call.sent_since is None else stamp.clock - call.sent_since,
                parse_traceparent(call.traceparent),
            )
            for call in calls
        ],
    )
    body = encode_envelope(seal.codec.media_type, envelope)
    return _seal(seal, key, target, ("/backwater/2", body, {}), stamp)


def _seal(seal: Seal, key: Key, target: Target, content: tuple[str, bytes, dict[str, str]], stamp: Stamp) -> Sealed:
    path, body, own = content
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
    created = int(stamp.unix + target.offset)
    signature_input, signature = sign_request(
        key, head, created=created, expires=created + SIGNATURE_LIFE, nonce=stamp.nonce
    )
    fields["signature-input"] = signature_input
    fields["signature"] = signature
    mac = decode_bytes(signature.partition("=")[2])
    assert mac is not None
    request = HttpRequest(f"{endpoint.scheme}://{endpoint.authority}{head.path}", list(fields.items()), body)
    return Sealed(request, head, key, stamp.nonce, mac)


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
        passing.retry_after = read_retry_after(response.fields.get("retry-after"))
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


def open_body(response: HttpResponse, limit: int) -> bytes:
    """The body of a verified response: digest, then bounded decompression."""
    if read_digest(response.fields.get("content-digest", "")) != hashlib.sha256(response.body).digest():
        raise ResponseAltered("the body of the answer is not the one that was signed")
    encoding = response.fields.get("content-encoding")
    if encoding is None:
        if len(response.body) > limit:
            raise ResponseUndecodable(f"the answer has {len(response.body)} bytes; max_encoded_result_size is {limit}")
        return response.body
    if encoding != "zstd":
        raise ResponseUndecodable(f"the answer has the content encoding {encoding!r}")
    try:
        return decompress(response.body, limit)
    except CallFailed as error:
        raise ResponseUndecodable(f"the answer cannot be decompressed: {error.detail}") from error


def open_one(sealed: Sealed, response: HttpResponse, limit: int) -> tuple[Answer, Parameters]:
    """The verified answer to a request for one call (or a refusal of the whole request)."""
    parameters = verify_head(sealed, response)
    body = open_body(response, limit)
    media_type = response.fields["content-type"]
    return Answer(response.status, media_type, body, read_retry_after(response.fields.get("retry-after"))), parameters


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
