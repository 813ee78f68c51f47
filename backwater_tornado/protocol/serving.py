"""The server's half of the protocol: from a request's head and body to calls, and from outcomes to a response.

A request passes the steps in `HEAD_STEPS` on its head alone, before a byte of its body is read; then its body passes
`BODY_STEPS`. Each step reads and fills the `Exchange` or raises the error that the caller gets. Once the signature was
good, every answer is signed.

Rule: no clock, no socket, no dice; `now` is given. Running the functions is the edge's part (`dispatch`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from backwater_tornado.errors import (
    BodyTooLarge,
    CallFailed,
    DeadlineExceeded,
    DigestMismatch,
    LengthRequired,
    MethodNotAllowed,
    NotAcceptable,
    PathNotFound,
    RequestMalformed,
    SignatureStale,
    UnsupportedEncoding,
    UnsupportedMediaType,
    WrongAuthority,
)
from backwater_tornado.exposure import Exposure
from backwater_tornado.options import ServerOptions

from .batches import ANSWERS_MEDIA_TYPES, decode_envelope
from .codec import JSON, Codec, codec_for
from .compression import compress, decompress
from .forms import CodecForm, Form, encode_problem
from .headers import (
    accepted_media_types,
    encode_bytes,
    media_type_of,
    parse_call_key,
    parse_timeout,
    parse_traceparent,
    read_digest,
)
from .keys import Key, KeyRing
from .memory import CallId, CallMemory, Recorded
from .messages import Batch, Call, HttpResponse
from .signatures import CLOCK_SLACK, RequestHead, Verified, check_freshness, sign_response, verify_request

RETRY_AFTER = 1.0
#: hashlib lets go of the GIL for more bytes than this.
_HELD = 2047


@dataclass(slots=True)
class Exchange:
    """One request on its way through the steps."""

    head: RequestHead
    now: float
    #: SHA-256 of the body as received; the edge fills it in with the body.
    digest: bytes = b""
    body: bytes = b""
    verified: Verified | None = None
    #: (module, function) of the path, or None for many calls in one request.
    target: tuple[str, str] | None = None
    #: Of the path of version 1.
    arity: int = 0
    codec: Codec = JSON
    answer_codec: Codec = JSON
    batch: Batch | None = None

    @property
    def key(self) -> Key:
        """The key that signed the request; only after `check_signature`."""
        assert self.verified is not None
        return self.verified.key

    def field(self, name: str) -> str | None:
        """A covered field; only after `check_signature`."""
        assert self.verified is not None
        return self.verified.fields.get(name)


class Wire(Protocol):
    """The server's half of one version of the protocol."""

    def accept_head(self, exchange: Exchange) -> None:
        """Let a request's head pass; raises `CallFailed`."""
        ...

    def accept_body(self, exchange: Exchange) -> Batch:
        """Let its body pass; gives the calls, or raises `CallFailed`."""
        ...

    def form(self, exchange: Exchange) -> Form:
        """How the request's calls are read and answered; only after `accept_body`."""
        ...

    def respond(self, exchange: Exchange, answer: Recorded, now: float, extra: Mapping[str, str]) -> HttpResponse:
        """The response that carries one answer, signed if the request's signature was good."""
        ...

    def refuse(self, exchange: Exchange, error: CallFailed, now: float) -> HttpResponse:
        """The response that tells an error."""
        ...


@dataclass(slots=True)
class Serving:
    """What every request is served with, and the `Wire` of version 2; `keys` may be replaced at any time."""

    keys: KeyRing
    exposure: Exposure
    options: ServerOptions
    memory: CallMemory

    def accept_head(self, exchange: Exchange) -> None:
        """Let a request's head pass `HEAD_STEPS`; raises what the first failing step raises."""
        for step in HEAD_STEPS:
            step(self, exchange)

    def accept_body(self, exchange: Exchange) -> Batch:
        """Let a request's body pass `BODY_STEPS`; gives the calls."""
        for step in BODY_STEPS:
            step(self, exchange)
        assert exchange.batch is not None
        return exchange.batch

    def form(self, exchange: Exchange) -> Form:
        """How the request's calls are read and answered; only after `accept_body`."""
        return CodecForm(self.exposure, self.options, exchange.codec, exchange.answer_codec)

    def respond(self, exchange: Exchange, answer: Recorded, now: float, extra: Mapping[str, str]) -> HttpResponse:
        """The response that carries one answer: compressed, digested, and signed if the request's signature was."""
        limits = self.options.limits
        fields = {"content-type": answer.media_type}
        body = answer.body
        if takes_zstd(exchange):
            packed = compress(body, limits.compression_threshold, limits.compression_level)
            if packed is not None:
                fields["content-encoding"] = "zstd"
                body = packed
        fields["content-length"] = str(len(body))
        fields.update(extra)
        if exchange.verified is not None:
            fields["content-digest"] = f"sha-256={encode_bytes(hashlib.sha256(body).digest())}"
            self.sign(exchange, answer.status, fields, now)
        return HttpResponse(answer.status, fields, body)

    def begin_stream(self, exchange: Exchange, now: float) -> HttpResponse:
        """The head of a response whose answers follow in frames (`batches`)."""
        fields = {"content-type": ANSWERS_MEDIA_TYPES[exchange.codec.media_type]}
        self.sign(exchange, 200, fields, now)
        return HttpResponse(200, fields, b"")

    @staticmethod
    def sign(exchange: Exchange, status: int, fields: dict[str, str], now: float) -> None:
        """Add the signature over all fields and over the request."""
        nonce = exchange.verified.parameters.nonce if exchange.verified is not None else None
        head = exchange.head
        fields["signature-input"], fields["signature"] = sign_response(
            exchange.key, head, status, fields, created=int(now), nonce=nonce or ""
        )

    def refuse(self, exchange: Exchange, error: CallFailed, now: float) -> HttpResponse:
        """The response that tells an error."""
        extra: dict[str, str] = {}
        if error.status == 503 or error.retry_after is not None:
            extra["retry-after"] = str(int(error.retry_after or RETRY_AFTER))
        if error.status == 405:
            extra["allow"] = "POST"
        codec = exchange.answer_codec if exchange.verified is not None else JSON
        return self.respond(exchange, encode_problem(codec, error), now, extra)


def takes_zstd(exchange: Exchange) -> bool:
    """Whether the caller takes zstd; one that does not say takes it, unless it speaks JSON (as plain curl does)."""
    if exchange.verified is None:
        return False
    accepted = exchange.field("accept-encoding")
    if accepted is None:
        return exchange.codec is not JSON
    return "zstd" in accepted_media_types(accepted)


# The steps -----------------------------------------------------------------------------------------------------------


def check_method(serving: Serving, exchange: Exchange) -> None:
    """POST, as everything here changes or may change something."""
    if exchange.head.method != "POST":
        raise MethodNotAllowed(f"calls are made with POST, not {exchange.head.method}")


def read_target(serving: Serving, exchange: Exchange) -> None:
    """`{base}/backwater/2/{module}/{function}`, or `{base}/backwater/2` for many calls."""
    # Read from its end: a base, a module or a function may be called "backwater" too.
    match exchange.head.path.split("/"):
        case [*_, "backwater", "2", module, function] if module and function:
            names = module, function
        case [*_, "backwater", "2"] | [*_, "backwater", "2", ""]:
            return
        case _:
            raise PathNotFound("calls are made at /backwater/2/MODULE/FUNCTION")
    try:
        exchange.target = unquote(names[0], errors="strict"), unquote(names[1], errors="strict")
    except UnicodeDecodeError as error:
        raise PathNotFound("the path is not percent-encoded UTF-8") from error


def check_length(serving: Serving, exchange: Exchange) -> None:
    """A stated length within the limit; so nothing unbounded is ever read."""
    fields = exchange.head.fields
    stated = fields.get("content-length")
    if stated is None or "transfer-encoding" in fields:
        raise LengthRequired("the request needs a Content-Length and no Transfer-Encoding")
    if not stated.isascii() or not stated.isdigit() or len(stated) > 15:
        raise RequestMalformed("Content-Length is not a number")
    limit = serving.options.limits.max_encoded_args_size
    if int(stated) > limit:
        raise BodyTooLarge(f"the body has {stated} bytes; max_encoded_args_size is {limit}")


def check_signature(serving: Serving, exchange: Exchange) -> None:
    """Key, coverage and MAC; from here on the request is the key holder's, and answers are signed."""
    exchange.verified = verify_request(exchange.head, serving.keys, exchange.now, serving.options.clock_tolerance)


def check_authority(serving: Serving, exchange: Exchange) -> None:
    """The request was signed for this server, where the server knows its names."""
    names = serving.options.authorities
    host, _, port = exchange.head.authority.rpartition(":")
    # A name without a port stands for the host on any port; "[::1]" has none.
    if names and exchange.head.authority not in names and not (port.isdigit() and host in names):
        raise WrongAuthority(
            f"the request was signed for {exchange.head.authority!r}, which is not a name of this server"
        )


def check_clock(serving: Serving, exchange: Exchange) -> None:
    """Signed neither too long ago nor in the future, and not before the memory of nonces begins.

    What was signed before a restart may have been received before it. A client whose clock is behind learns that from
    the refusal, and signs again.
    """
    assert exchange.verified is not None
    parameters = exchange.verified.parameters
    check_freshness(parameters, exchange.now, serving.options.clock_tolerance)
    if parameters.created < serving.memory.started - CLOCK_SLACK:
        raise SignatureStale("signed before this server began to remember requests: sign again")


def check_replay(serving: Serving, exchange: Exchange) -> None:
    """The nonce is new. It is remembered for as long as `check_clock` lets its signature pass."""
    assert exchange.verified is not None
    parameters = exchange.verified.parameters
    assert parameters.nonce is not None
    expires = parameters.created + serving.options.clock_tolerance + 1
    serving.memory.admit(exchange.key.id, parameters.nonce, expires, exchange.now)


def choose_codecs(serving: Serving, exchange: Exchange) -> None:
    """The codec of the body by Content-Type, that of the answer by Accept; by default the same."""
    unsafe = serving.options.limits.decode_unsafe_terms
    media_type = media_type_of(exchange.field("content-type") or "")
    codec = codec_for(media_type, unsafe=unsafe)
    if codec is None:
        raise UnsupportedMediaType(
            f"{media_type or 'no media type'} is not served here; application/msgpack is, and JSON"
        )
    exchange.codec = exchange.answer_codec = codec
    accept = exchange.field("accept")
    if accept is None:
        return
    for name in accepted_media_types(accept):
        found = codec if name in ("*/*", "application/*") else codec_for(name, unsafe=unsafe)
        if found is not None:
            exchange.answer_codec = found
            return
    raise NotAcceptable(f"none of the accepted media types ({accept[:100]}) is served here")


def check_encoding(serving: Serving, exchange: Exchange) -> None:
    """zstd, or nothing."""
    encoding = exchange.field("content-encoding")
    if encoding not in (None, "zstd"):
        raise UnsupportedEncoding(f"content encoding {encoding!r} is not served here; zstd is")


def check_digest(serving: Serving, exchange: Exchange) -> None:
    """The body, as received, is the one that was signed for."""
    stated = read_digest(exchange.field("content-digest") or "")
    if stated is None:
        raise RequestMalformed("Content-Digest has no sha-256")
    if stated != exchange.digest:
        raise DigestMismatch("the body is not the one that Content-Digest was made of: it changed on its way")


def decompress_body(serving: Serving, exchange: Exchange) -> None:
    """Undo zstd, never beyond the limit."""
    if exchange.field("content-encoding") == "zstd":
        exchange.body = decompress(exchange.body, serving.options.limits.max_encoded_args_size)


def read_calls(serving: Serving, exchange: Exchange) -> None:
    """The calls with their ids and bounds; arguments stay encoded until a call is looked up."""
    if exchange.target is None:
        _read_batch(serving, exchange)
        return
    stated, call_key = exchange.field("backwater-timeout"), exchange.field("idempotency-key")
    timeout = None if stated is None else parse_timeout(stated)
    if timeout == 0:
        raise DeadlineExceeded("the time for the call was over before it came")
    call = Call(
        module=exchange.target[0],
        function=exchange.target[1],
        arguments=exchange.body,
        timeout=timeout,
        call_id=None if call_key is None else _call_id(exchange, *parse_call_key(call_key)),
        traceparent=parse_traceparent(exchange.field("traceparent")),
    )
    exchange.batch = Batch([call])


def _read_batch(serving: Serving, exchange: Exchange) -> None:
    if exchange.codec.media_type not in ANSWERS_MEDIA_TYPES:
        raise UnsupportedMediaType("many calls in one request travel as msgpack or JSON")
    envelope = decode_envelope(exchange.codec.media_type, exchange.body)
    most = serving.options.max_calls_per_request
    if len(envelope.calls) > most:
        raise BodyTooLarge(f"the request has {len(envelope.calls)} calls; max_calls_per_request is {most}")
    exchange.answer_codec = exchange.codec
    exchange.batch = Batch(
        [
            Call(
                module=each.module,
                function=each.function,
                arguments=bytes(each.arguments),
                timeout=each.timeout,
                call_id=_call_id(exchange, envelope.stream, each.number, envelope.settled, each.age),
                traceparent=parse_traceparent(each.traceparent),
            )
            for each in envelope.calls
        ],
        streamed=True,
    )


def _call_id(exchange: Exchange, stream: str, number: int, settled: int, age: float | None) -> CallId:
    """The call's id; to its age comes the time that the request may have spent on its way."""
    if age is not None:
        assert exchange.verified is not None
        # `created` is in whole seconds: up to one of them is not the way's.
        age += max(0.0, exchange.now - exchange.verified.parameters.created - 1)
    return CallId(stream, number, settled, age)


def call_digest(call: Call) -> bytes:
    """What tells two calls with the same idempotency key apart: names and arguments."""
    digest = hashlib.blake2b(f"{call.module}\0{call.function}\0".encode(), digest_size=16)
    # In pieces too small for hashlib to let go of the GIL: getting it back from a busy thread takes up to 5 ms.
    for start in range(0, len(call.arguments), _HELD):
        digest.update(call.arguments[start : start + _HELD])
    return digest.digest()


Step = Callable[[Serving, Exchange], None]
#: Sizes, key, signature, freshness, replay: all on the head alone, before the body is read.
HEAD_STEPS: tuple[Step, ...] = (
    check_method,
    read_target,
    check_length,
    check_signature,
    check_authority,
    check_clock,
    check_replay,
    choose_codecs,
    check_encoding,
)
#: On the body as received.
BODY_STEPS: tuple[Step, ...] = (check_digest, decompress_body, read_calls)
