"""The server's half of version 1: the same calls, in the words of Erlang's backwater.

A request passes `HEAD_STEPS` on its head and `BODY_STEPS` with its body, in the order in which a genuine server looks
at things, so that a peer gets the answer it knows. Where this server is stricter than a genuine one:

* what is signed is what is served: a query is refused, for the signed text would not show where it begins;
* `q=0` means no; a result that gzip makes larger is sent as it is; an improper list is no list of arguments;
* nothing that a peer sends is answered with 500, and every answer to a good signature is signed;
* the very same message, sent again within `replay_window`, gets the answer it got, and nothing runs again.

Rule: as `protocol.serving`: no clock, no socket, no dice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from backwater_tornado.errors import CallFailed, NotExposed, NotInScope, Refused, UnknownFunction, UnknownModule
from backwater_tornado.exposure import Exposure
from backwater_tornado.options import ErlangOptions
from backwater_tornado.protocol.keys import Key, KeyRing
from backwater_tornado.protocol.memory import CallId, Recorded
from backwater_tornado.protocol.messages import Batch, Call, HttpResponse
from backwater_tornado.protocol.serving import Exchange, Serving
from backwater_tornado.protocol.signatures import Parameters, Verified

from .forms import ErlangForm
from .http import (
    MEDIA_TYPE,
    TEXT,
    NotGzip,
    TooLarge,
    chosen,
    digest_of,
    format_digest,
    gunzip,
    gzip,
    media_type_of,
    preferred_codings,
    preferred_types,
)
from .signatures import (
    MANDATORY,
    REQUEST_TARGET,
    SIGNED_IF_PRESENT,
    Unsigned,
    check_names,
    read_signature,
    request_pseudo,
    response_pseudo,
    sign,
    signing_text,
    trimmed,
)

SCHEME: Final = "Signature "
MAX_ARITY: Final = 255
#: The stream that all calls of version 1 are remembered in; their numbers are taken from their signatures.
STREAM: Final = "erlang"
#: Their part of the memory; no key's id has a quote. Version 2 settles its calls and version 1 cannot: in one part,
#: what is forgotten of the one would be held against late attempts of the other, which could also settle its calls.
PART: Final = '"1"'
_NUMBER_MASK: Final = 2**63 - 1
_NEVER_CACHED: Final = {
    "cache-control": "private, no-cache, no-store, must-revalidate",
    "expires": "0",
    "pragma": "no-cache",
}
#: In a request, beside what either direction has to sign.
_REQUEST_SIGNED: Final = (*SIGNED_IF_PRESENT, "accept-encoding")


class Rejected(Refused):
    """A refusal with the status and the word that version 1 has for it."""

    def __init__(self, status: int, word: str = "") -> None:
        super().__init__(word or f"status {status}")
        self.status = status  # type: ignore[misc]  # of this very refusal
        self.word = word


#: The words for refusals of the rest of the server; any other is told by its own status and code.
WORDS: Final[Mapping[type[CallFailed], tuple[int, str]]] = {
    UnknownModule: (403, ""),
    NotInScope: (403, ""),
    UnknownFunction: (404, "function_not_found"),
    NotExposed: (404, "function_not_found"),
}


@dataclass(slots=True)
class ErlangServing:
    """What version 1 is served with; options and memory are those of version 2's `serving`."""

    serving: Serving
    options: ErlangOptions
    #: None: the same functions as version 2.
    exposure: Exposure | None = None
    #: None: the same keys.
    keys: KeyRing | None = None
    #: The atoms that are taken; None: any.
    known_atoms: frozenset[str] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        names = (name for function in self.exposed.functions() for name in (function.module, function.name))
        self.known_atoms = self.options.known_atoms(names)

    @property
    def exposed(self) -> Exposure:
        """What may be called."""
        return self.serving.exposure if self.exposure is None else self.exposure

    def valid_keys(self, now: float) -> list[Key]:
        """The keys that a message may be signed with now, newest first: version 1 does not say which."""
        ring = self.serving.keys if self.keys is None else self.keys
        tolerance = self.serving.options.clock_tolerance
        return [key for key in reversed(list(ring)) if not key.starts_after(now + tolerance) and not key.retired(now)]

    def accept_head(self, exchange: Exchange) -> None:
        """See `Wire`."""
        for step in HEAD_STEPS:
            step(self, exchange)

    def accept_body(self, exchange: Exchange) -> Batch:
        """See `Wire`."""
        for step in BODY_STEPS:
            step(self, exchange)
        assert exchange.batch is not None
        return exchange.batch

    def form(self, exchange: Exchange) -> ErlangForm:
        """See `Wire`."""
        return ErlangForm(self.exposed, self.serving.options, self.options.none, self.known_atoms, exchange.arity)

    def respond(self, exchange: Exchange, answer: Recorded, now: float, extra: Mapping[str, str]) -> HttpResponse:
        """See `Wire`."""
        fields = {"content-type": answer.media_type, **extra}
        body = answer.body
        if answer.status == 200:
            fields.update(_NEVER_CACHED)
            packed = gzip(body, self.serving.options.limits.compression_threshold) if takes_gzip(exchange) else None
            if packed is not None:
                fields["content-encoding"] = "gzip"
                body = packed
        elif answer.status == 401:
            fields["www-authenticate"] = challenge(exchange.head.fields)
        fields["content-length"] = str(len(body))
        if exchange.verified is not None:
            fields["digest"] = digest_of(body)
            fields["x-request-id"] = exchange.verified.fields["x-request-id"]
            fields["signature"], _ = sign(exchange.key, response_pseudo(answer.status), fields)
        return HttpResponse(answer.status, fields, body)

    def refuse(self, exchange: Exchange, error: CallFailed, now: float) -> HttpResponse:
        """See `Wire`."""
        extra = {"retry-after": "1"} if error.status == 503 else {}
        return self.respond(exchange, tell(error), now, extra)


def tell(error: CallFailed) -> Recorded:
    """A refusal as version 1 tells it: a status and a word."""
    if isinstance(error, Rejected):
        status, word = error.status, error.word
    else:
        status, word = WORDS.get(type(error), (error.status, error.code))
    return Recorded(False, status, TEXT, word.encode())


def challenge(fields: Mapping[str, str]) -> str:
    """What a 401 says should have been signed."""
    names = [name for name in (*MANDATORY, *SIGNED_IF_PRESENT) if name in fields]
    return f'Signature headers="{" ".join(sorted((REQUEST_TARGET, *names)))}",realm="backwater"'


def takes_gzip(exchange: Exchange) -> bool:
    """Whether the caller would rather have a result gzipped."""
    accepted = exchange.field("accept-encoding") if exchange.verified is not None else None
    return chosen(preferred_codings(accepted or "") or (), ("gzip", "identity")) == "gzip"


# The steps -----------------------------------------------------------------------------------------------------------


def check_signature(serving: ErlangServing, exchange: Exchange) -> None:
    """Coverage and MAC; from here on the request is the key holder's, and answers are signed."""
    head = exchange.head
    authorization = head.fields.get("authorization")
    if authorization is None:
        raise Rejected(401, "missing_authorization_header")
    if not authorization.startswith(SCHEME):
        raise Rejected(401, "invalid_auth_type")
    try:
        parameters = authorization.removeprefix(SCHEME)
        signature = read_signature(parameters)
        check_names(signature.names, REQUEST_TARGET, head.fields, _REQUEST_SIGNED)
    except Unsigned as error:
        raise Rejected(401, error.word) from error
    # Where a query begins is not in the signed text: of the two readings only the one without any is served.
    target = head.path + head.query
    text = signing_text(signature.names, request_pseudo(head.method, target), head.fields)
    # Every key is tried, so that the time taken tells nothing of which fits.
    fitting = [key for key in serving.valid_keys(exchange.now) if key.verify(key.mac_plain(text), signature.mac)]
    if not fitting:
        raise Rejected(401, "invalid_signature")
    covered = {name: trimmed(head.fields[name]) for name in signature.names if name != REQUEST_TARGET}
    described = Parameters(" ".join(signature.names), parameters, int(exchange.now), "default")
    exchange.verified = Verified(fitting[0], described, signature.mac, covered)


def check_method(serving: ErlangServing, exchange: Exchange) -> None:
    """POST, as everything here changes or may change something."""
    if exchange.head.method != "POST":
        raise Rejected(405)


def read_target(serving: ErlangServing, exchange: Exchange) -> None:
    """`…/backwater/1/module/function/arity`, percent-encoded; empty and dot segments are resolved."""
    if exchange.head.query:
        raise Rejected(400, "invalid_path")
    segments: list[str] = []
    for segment in exchange.head.path.partition("/backwater/1")[2].split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    if len(segments) != 3:
        raise Rejected(400, "invalid_path")
    try:
        module, function, arity = (unquote(segment, errors="strict") for segment in segments)
    except UnicodeDecodeError as error:
        raise Rejected(400, "invalid_path") from error
    digits = arity.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) <= MAX_ARITY):
        raise Rejected(400, "invalid_arity")
    exchange.target = module, function
    exchange.arity = int(digits)


def check_exposed(serving: ErlangServing, exchange: Exchange) -> None:
    """An exposed function that takes so many arguments, and that the key may call."""
    assert exchange.target is not None
    function = serving.exposed.find(*exchange.target)
    if not function.accepts(exchange.arity):
        raise Rejected(404, "function_not_found")
    if not exchange.key.scopes.allows_call(*exchange.target):
        raise Rejected(403)


def check_negotiation(serving: ErlangServing, exchange: Exchange) -> None:
    """A term comes in, plain or gzipped, and a term is wanted."""
    stated = exchange.field("content-type")
    media_type = None if stated is None else media_type_of(stated)
    if media_type is None:
        raise Rejected(400, "bad_content_type")
    types = preferred_types(exchange.field("accept") or "")
    if types is None:
        raise Rejected(400, "bad_accept")
    if preferred_codings(exchange.field("accept-encoding") or "") is None:
        raise Rejected(400, "bad_accept_encoding")
    if media_type != MEDIA_TYPE:
        raise Rejected(415, "unsupported_content_type")
    if exchange.field("content-encoding") not in (None, "gzip", "identity"):
        raise Rejected(415, "unsupported_content_encoding")
    if MEDIA_TYPE not in types:
        raise Rejected(406)


def check_length(serving: ErlangServing, exchange: Exchange) -> None:
    """A stated length within the limit, or no body at all; so nothing unbounded is ever read."""
    stated = exchange.head.fields.get("content-length", "0")
    if "transfer-encoding" in exchange.head.fields or not (stated.isascii() and stated.isdigit() and len(stated) < 16):
        raise Rejected(413)
    if int(stated) > serving.serving.options.limits.max_encoded_args_size:
        raise Rejected(413)


def check_digest(serving: ErlangServing, exchange: Exchange) -> None:
    """The body, as received, is the one that was signed for."""
    if exchange.field("digest") != format_digest(exchange.digest):
        raise Rejected(401, "wrong_arguments_digest")


def inflate_body(serving: ErlangServing, exchange: Exchange) -> None:
    """Undo gzip, never beyond the limit."""
    if exchange.field("content-encoding") != "gzip":
        return
    try:
        exchange.body = gunzip(exchange.body, serving.serving.options.limits.max_encoded_args_size)
    except NotGzip as error:
        raise Rejected(400, "unable_to_uncompress_arguments") from error
    except TooLarge as error:
        raise Rejected(413) from error


def read_call(serving: ErlangServing, exchange: Exchange) -> None:
    """The one call; arguments stay encoded until it is looked up. Its signature is what a repetition is known by."""
    assert exchange.target is not None
    assert exchange.verified is not None
    window = serving.options.replay_window
    number = int.from_bytes(exchange.verified.signature[:8]) & _NUMBER_MASK
    call_id = CallId(STREAM, number) if window else None
    exchange.batch = Batch([Call(*exchange.target, exchange.body, call_id=call_id, kept=window, part=PART)])


Step = Callable[[ErlangServing, Exchange], None]
HEAD_STEPS: tuple[Step, ...] = (
    check_signature,
    check_method,
    read_target,
    check_exposed,
    check_negotiation,
    check_length,
)
BODY_STEPS: tuple[Step, ...] = (check_digest, inflate_body, read_call)
