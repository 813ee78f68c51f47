"""The client's half of version 1: calls sealed into signed requests, responses verified and read.

Rule: as `protocol.sealing`. A genuine server does not remember calls, so what may have arrived is not sent again unless
the caller says that the function may run twice (`idempotent`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import quote

from backwater_tornado.errors import (
    WIRE_ERRORS,
    AlreadySettled,
    BodyTooLarge,
    CallFailed,
    DeadlineExceeded,
    DigestMismatch,
    ErlangError,
    InternalError,
    InvalidArguments,
    MethodNotAllowed,
    NotAcceptable,
    NotExposed,
    Overloaded,
    PathNotFound,
    Refused,
    RequestMalformed,
    ResponseAltered,
    ResponseMismatched,
    ResponseUndecodable,
    ResponseUnsigned,
    SignatureInvalid,
    UnknownFunction,
    UnknownModule,
    UnsupportedMediaType,
)
from backwater_tornado.exposure import Readings
from backwater_tornado.options import ErlangTerms, Limits
from backwater_tornado.protocol.calling import Answer, Attempt, lost
from backwater_tornado.protocol.headers import read_retry_after
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.messages import HttpRequest, HttpResponse
from backwater_tornado.protocol.sealing import GATEWAY_STATUSES, Sealed, Stamp
from backwater_tornado.protocol.signatures import RequestHead

from .decoding import decode_term
from .encoding import encode_term
from .forms import EXCEPTION, RETURN, texts_of
from .http import MEDIA_TYPE, NotGzip, TooLarge, digest_of, gunzip, gzip
from .printing import format_term
from .serving import MAX_ARITY, SCHEME
from .signatures import (
    RESPONSE_STATUS,
    SIGNED_IF_PRESENT,
    Unsigned,
    check_names,
    read_signature,
    request_pseudo,
    response_pseudo,
    sign,
    signing_text,
)

#: What a refusal is told as, by its word: the genuine server's, and those that only ours has.
BY_WORD: Final[Mapping[str, type[CallFailed]]] = {
    **WIRE_ERRORS,
    "module_not_found": UnknownModule,
    "wrong_arguments_digest": DigestMismatch,
    "already_answered": AlreadySettled,
}
#: And else by its status.
BY_STATUS: Final[Mapping[int, type[CallFailed]]] = {
    400: RequestMalformed,
    401: SignatureInvalid,
    403: NotExposed,
    404: UnknownFunction,
    405: MethodNotAllowed,
    406: NotAcceptable,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
    500: InternalError,
    503: Overloaded,
    504: DeadlineExceeded,
}
#: Characters of a word that a refusal repeats.
_SHOWN: Final = 200


class ErlangSealer:
    """See `protocol.sealing.Sealer`."""

    calls_per_request = 1
    remembered = False
    media_type = MEDIA_TYPE

    def __init__(self, limits: Limits, terms: ErlangTerms) -> None:
        self._limits = limits
        self._none = terms.none
        self._known = terms.known_atoms((RETURN, EXCEPTION, "error", "exit", "throw"))

    @property
    def readings(self) -> Readings:
        """A binary or a charlist is a text where one is wanted."""
        return texts_of

    def encode_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The list of arguments as a term; raises `Unserializable`, `InvalidArguments`."""
        if kwargs:
            raise InvalidArguments(f"Erlang's functions have no named arguments: {', '.join(kwargs)}")
        if len(args) > MAX_ARITY:
            raise InvalidArguments(f"Erlang's functions have at most {MAX_ARITY} arguments, not {len(args)}")
        return encode_term(list(args), none=self._none)

    def seal(self, key: Key, attempts: Sequence[Attempt], stamp: Stamp) -> Sealed:
        """A signed request for the one call."""
        (attempt,) = attempts
        call, endpoint = attempt.call, attempt.target.endpoint
        path = f"{endpoint.base}/backwater/1/{_quoted(call.module)}/{_quoted(call.function)}/{call.arity}"
        packed = gzip(call.arguments, self._limits.compression_threshold)
        body = call.arguments if packed is None else packed
        fields = {"accept": MEDIA_TYPE, "accept-encoding": "gzip", "content-type": MEDIA_TYPE}
        if packed is not None:
            fields["content-encoding"] = "gzip"
        fields["content-length"] = str(len(body))
        fields["digest"] = digest_of(body)
        fields["x-request-id"] = stamp.nonce
        parameters, mac = sign(key, request_pseudo("POST", path), fields)
        fields["authorization"] = SCHEME + parameters
        head = RequestHead("POST", endpoint.authority, path, "", fields)
        request = HttpRequest(f"{endpoint.scheme}://{endpoint.authority}{path}", list(fields.items()), body)
        return Sealed(request, head, key, stamp.nonce, mac)

    def open(self, sealed: Sealed, response: HttpResponse) -> tuple[Answer, None]:
        """The verified answer; raises `Unverified`, or `OutcomeUnknown` where a proxy answered."""
        covered = _verify(sealed, response)
        body = response.body
        if response.status == 200:
            body = self._inflated(response)
        # Of one that is not covered nobody knows who says so.
        retry_after = read_retry_after(response.fields["retry-after"] if "retry-after" in covered else None)
        return Answer(response.status, response.fields.get("content-type", ""), body, retry_after), None

    def _inflated(self, response: HttpResponse) -> bytes:
        limit = self._limits.max_encoded_result_size
        media_type = response.fields.get("content-type", "").partition(";")[0].strip()
        if media_type != MEDIA_TYPE:
            raise ResponseUndecodable(f"the answer has the media type {media_type[:_SHOWN]!r}")
        encoding = response.fields.get("content-encoding", "identity")
        if encoding == "identity":
            if len(response.body) > limit:
                text = f"the answer has {len(response.body)} bytes; max_encoded_result_size is {limit}"
                raise ResponseUndecodable(text)
            return response.body
        if encoding != "gzip":
            raise ResponseUndecodable(f"the answer has the content encoding {encoding[:_SHOWN]!r}")
        try:
            return gunzip(response.body, limit)
        except TooLarge as error:
            raise ResponseUndecodable(f"the answer is larger than max_encoded_result_size, {limit} bytes") from error
        except NotGzip as error:
            raise ResponseUndecodable(f"the answer is no gzip stream: {error}") from error

    def decode(self, answer: Answer) -> Any:
        """The value of `{return, Value}`; raises `ErlangError` for `{exception, …}`, or `ResponseUndecodable`."""
        try:
            term = decode_term(answer.body, none=self._none, known_atoms=self._known)
        except CallFailed as error:
            raise ResponseUndecodable(f"the answer cannot be decoded: {error.detail}") from error
        match term:  # a sequence would also be a list
            case tuple(("return", value)):
                return value
            case tuple(("exception", tuple(("error" | "exit" | "throw" as error_class, reason, list() as stack)))):
                raise _rebuild(error_class, reason, stack)
        raise ResponseUndecodable("the answer is neither {return, Value} nor {exception, {Class, Reason, Stack}}")

    def problem(self, answer: Answer) -> CallFailed:
        """A verified answer with another status than 200."""
        word = answer.body[:_SHOWN].decode("ascii", "replace")
        kind = BY_WORD.get(word) or BY_STATUS.get(answer.status, Refused)
        error = kind(f"the server answered {answer.status}" + (f": {word}" if word else ""))
        error.retry_after = answer.retry_after
        return error


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _verify(sealed: Sealed, response: HttpResponse) -> tuple[str, ...]:
    """Check that a response is the server's, answers this request, and has the body that was signed.

    Gives what the signature covers.
    """
    fields = response.fields
    request_id = fields.get("x-request-id")
    if request_id is None:
        raise _explain_unsigned(response, "missing_request_id")
    if request_id != sealed.nonce:
        raise ResponseMismatched("the answer belongs to another request: mismatched_request_id")
    if "signature" not in fields:
        raise _explain_unsigned(response, "missing_signature_header")
    try:
        signature = read_signature(fields["signature"])
        check_names(signature.names, RESPONSE_STATUS, fields, SIGNED_IF_PRESENT)
    except Unsigned as error:
        raise ResponseAltered(f"the answer's signature does not cover what it has to: {error.word}") from error
    text = signing_text(signature.names, response_pseudo(response.status), fields)
    if not compare_digest(sealed.key.mac_plain(text), signature.mac):
        raise ResponseAltered("the answer's signature does not fit: invalid_signature")
    if fields["digest"] != digest_of(response.body):
        raise ResponseAltered("the body of the answer is not the one that was signed: wrong_body_digest")
    return signature.names


def _explain_unsigned(response: HttpResponse, word: str) -> CallFailed:
    """A gateway's trouble may pass; a refusal without a signature is a hint, mostly that the secrets differ."""
    if response.status in GATEWAY_STATUSES:
        passing = lost(f"a proxy on the way, or the server, answered {response.status} without a signature")
        passing.retry_after = read_retry_after(response.fields.get("retry-after"))
        return passing
    claim = response.body[:_SHOWN].decode("ascii", "replace")
    error = ResponseUnsigned(f"the answer is not signed ({word}); it claims status {response.status} {claim}".rstrip())
    error.retryable = False
    # A genuine server signs what it says of functions; an unsigned 404 is about the path.
    kind = PathNotFound if response.status == 404 else BY_STATUS.get(response.status, Refused)
    hint = kind(claim or f"status {response.status}")
    error.hint = hint if isinstance(hint, Refused) else None
    return error


def _rebuild(error_class: str, reason: Any, stack: list[Any]) -> ErlangError:
    """The exception; one of a Python server, `{'Name', <<"message">>}`, with its name and message."""
    kind, message, arguments = str(error_class), format_term(reason), None
    match reason:
        case tuple((str() as name, bytes() as text)) if error_class == "error":
            kind, message = str(name), text.decode("utf-8", "replace")
            arguments = (message,)
    frames = "\n".join(f"  {format_term(frame)}" for frame in stack)
    return ErlangError(
        f"{error_class}: {format_term(reason)}",
        reason=reason,
        error_class=error_class,
        stack=stack,
        type=kind,
        message=message,
        exception_args=arguments,
        traceback=frames or None,
    )
