"""Every captured response, opened by our client: what it makes of genuine ones, and that it believes no altered one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backwater_tornado import errors
from backwater_tornado.options import ErlangTerms, Limits
from backwater_tornado.protocol.erlang.decoding import decode_term
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.http import gunzip
from backwater_tornado.protocol.erlang.notation import parse_term
from backwater_tornado.protocol.erlang.printing import format_term
from backwater_tornado.protocol.erlang.sealing import ErlangSealer
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.messages import HttpRequest, HttpResponse
from backwater_tornado.protocol.sealing import Sealed
from backwater_tornado.protocol.signatures import RequestHead
from tests.vectors.erlang import CAPTURED, Captured

ANSWERED = [name for name, captured in CAPTURED.items() if captured.response is not None]
SIGNED = [name for name in ANSWERED if CAPTURED[name].signed]
UNSIGNED = [name for name in ANSWERED if not CAPTURED[name].signed]
RETURNED = [name for name in SIGNED if CAPTURED[name].status == 200]
REFUSED = [name for name in SIGNED if CAPTURED[name].status != 200]

TOO_LARGE = {
    "client_gzip_result_too_big": "as the genuine client has it",
    "client_result_over_wire_limit": "as above",
    "client_result_too_big": "a genuine client forgets its limit where a result is not gzipped",
}

REFUSALS: dict[tuple[int, str], type[errors.CallFailed]] = {
    (401, "wrong_arguments_digest"): errors.DigestMismatch,
    (403, ""): errors.NotExposed,
    (404, "function_not_found"): errors.UnknownFunction,
    (404, "module_not_found"): errors.UnknownModule,
    (405, ""): errors.MethodNotAllowed,
    (406, ""): errors.NotAcceptable,
    (413, ""): errors.BodyTooLarge,
    (415, "unsupported_content_encoding"): errors.UnsupportedMediaType,
}
HINTS = {400: errors.RequestMalformed, 401: errors.Refused, 404: errors.PathNotFound}

#: Signed where they are present, and so refused where they were added on the way.
ADDED = {"accept": "text/plain", "content-encoding": "gzip", "content-length": "1", "content-type": "text/plain"}
#: Never signed.
IGNORED = {"date", "server"}


def sealed_for(captured: Captured, *, secret: bytes | None = None, request_id: str | None = None) -> Sealed:
    """The request, as if this client had sent it."""
    asked = captured.asked
    fields = {name.lower(): value for name, value in asked.headers}
    nonce = fields.get("x-request-id", "none was sent") if request_id is None else request_id
    head = RequestHead(asked.method, "127.0.0.1", asked.target, "", fields)
    request = HttpRequest(f"http://127.0.0.1{asked.target}", asked.headers, asked.body)
    return Sealed(request, head, Key(captured.client_secret if secret is None else secret), nonce, b"")


def response_of(captured: Captured) -> HttpResponse:
    answered = captured.answered
    fields = {name.lower(): value for name, value in answered.headers}
    assert len(fields) == len(answered.headers)
    return HttpResponse(answered.status, fields, answered.body)


def sealer_for(captured: Captured) -> ErlangSealer:
    limits = re.findall(r"max_encoded_result_size => (\d+)", captured.client_options)
    return ErlangSealer(Limits(max_encoded_result_size=int(limits[0])) if limits else Limits(), ErlangTerms())


# What it makes of them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RETURNED if name not in TOO_LARGE])
def test_a_result_is_the_one_that_the_genuine_client_gave(name: str) -> None:
    captured = CAPTURED[name]
    sealer = sealer_for(captured)
    answer, parameters = sealer.open(sealed_for(captured), response_of(captured))
    assert (answer.status, parameters) == (200, None)
    if told(captured).startswith("{exception,"):
        with pytest.raises(errors.ErlangError) as raised:
            sealer.decode(answer)
        error = raised.value
        stack = format_term(list(error.stack))
        assert f"{{exception,{{{error.error_class},{format_term(error.reason)},{stack}}}}}" == told(captured)
        assert str(error) == f"{error.error_class}: {format_term(error.reason)}"
    elif told(captured):
        value = sealer.decode(answer)
        # A list of letters beyond latin1 is one of numbers to the VM that printed this.
        shown = f"{{return,{format_term(value)}}}"
        assert shown == told(captured) or shown == format_term(parse_term(told(captured)))
    else:
        # Its text would be long: compared is what the server was asked to give.
        assert sealer.decode(answer) == decode_term(plain_body(captured))[1]


def told(captured: Captured) -> str:
    """The term that the response holds, as Erlang prints it; empty where nobody printed it."""
    result = captured.client_result or ""
    if result.startswith("{ok,"):
        return f"{{return,{result[4:-1]}}}"
    if result.startswith("{error,{exception,"):
        return result[7:-1]
    return captured.term or ""


def plain_body(captured: Captured) -> bytes:
    response = response_of(captured)
    return gunzip(response.body, 1 << 24) if "content-encoding" in response.fields else response.body


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_result_beyond_the_limit_is_not_read(name: str) -> None:
    captured = CAPTURED[name]
    with pytest.raises(errors.ResponseUndecodable, match="max_encoded_result_size"):
        sealer_for(captured).open(sealed_for(captured), response_of(captured))
    size = len(plain_body(captured))
    allowing = ErlangSealer(Limits(max_encoded_result_size=size), ErlangTerms())
    answer, _ = allowing.open(sealed_for(captured), response_of(captured))
    assert len(answer.body) == size
    forbidding = ErlangSealer(Limits(max_encoded_result_size=size - 1), ErlangTerms())
    with pytest.raises(errors.ResponseUndecodable, match="max_encoded_result_size"):
        forbidding.open(sealed_for(captured), response_of(captured))


def test_an_atom_that_nobody_named_is_taken_on_demand_only() -> None:
    captured = CAPTURED["exc_throw_nostack"]
    for atoms, taken in (((), False), (["thrown_value"], True)):
        sealer = ErlangSealer(Limits(), ErlangTerms(decode_unsafe_terms=False, atoms=atoms))
        answer, _ = sealer.open(sealed_for(captured), response_of(captured))
        with pytest.raises(errors.ErlangError if taken else errors.ResponseUndecodable, match="thrown_value"):
            sealer.decode(answer)


def signed_anew(captured: Captured, body: bytes, **changed: str) -> HttpResponse:
    """A response by the same secret with another body and other fields."""
    before = response_of(captured).fields
    own = {name.replace("_", "-"): value for name, value in changed.items()}
    fields = {name: value for name, value in before.items() if name not in {*IGNORED, "signature"}}
    fields |= {"content-length": str(len(body)), "digest": digest_of(body), **own}
    names = ["(response-status)", *sorted(fields)]
    text = "\n".join(f"{name}: {fields.get(name, '200')}" for name in names)
    mac = base64.b64encode(hmac.digest(captured.secret, text.encode(), "sha256")).decode()
    listed = f'algorithm="hmac-sha256",headers="{" ".join(names)}",keyId="default",signature="{mac}"'
    return HttpResponse(200, {**fields, "signature": listed}, body)


@pytest.mark.parametrize(
    ("term", "changed", "trouble"),
    [
        ("{return,1}", {}, None),
        ("{return,1}", {"content_type": "application/x-erlang-etf; charset=x"}, None),
        ("{return,1}", {"content_encoding": "identity"}, None),
        ("{return,1}", {"content_type": "text/plain"}, "the media type 'text/plain'"),
        ("{return,1}", {"content_encoding": "deflate"}, "the content encoding 'deflate'"),
        ("{return,1}", {"content_encoding": "gzip"}, "no gzip stream"),
        ("{returned,1}", {}, "neither {return, Value} nor"),
        ("{return,1,2}", {}, "neither {return, Value} nor"),
        ('{<<"return">>,1}', {}, "neither {return, Value} nor"),
        ("{exception,{warning,1,[]}}", {}, "neither {return, Value} nor"),
        ("{exception,{error,1,none}}", {}, "neither {return, Value} nor"),
    ],
)
def test_a_genuine_answer_that_makes_no_sense_is_told_as_such(
    term: str, changed: dict[str, str], trouble: str | None
) -> None:
    captured = CAPTURED["ok_to_upper"]
    sealer = sealer_for(captured)
    response = signed_anew(captured, encode_term(parse_term(term)), **changed)

    def read() -> Any:
        answer, _ = sealer.open(sealed_for(captured), response)
        return sealer.decode(answer)

    if trouble is None:
        assert read() == 1
        return
    with pytest.raises(errors.ResponseUndecodable, match=re.escape(trouble)) as raised:
        read()
    assert raised.value.retryable is False


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_a_class_of_its_own(name: str) -> None:
    captured = CAPTURED[name]
    sealer = sealer_for(captured)
    answer, _ = sealer.open(sealed_for(captured), response_of(captured))
    error = sealer.problem(answer)
    status, word = captured.answered.status, captured.answered.body.decode()
    assert type(error) is REFUSALS.get((status, word), errors.RequestMalformed if status == 400 else None)
    assert str(error) == f"the server answered {status}" + (f": {word}" if word else "")
    assert error.retryable is (word == "wrong_arguments_digest")


@pytest.mark.parametrize("name", UNSIGNED)
def test_an_unsigned_answer_is_a_hint_at_most(name: str) -> None:
    captured = CAPTURED[name]
    with pytest.raises(errors.ResponseUnsigned) as raised:
        sealer_for(captured).open(sealed_for(captured), response_of(captured))
    error, status = raised.value, captured.answered.status
    assert isinstance(error.hint, HINTS[status])
    assert captured.answered.body.decode() in str(error)
    assert str(status) in str(error)
    assert error.retryable is False
    failure = re.match(r"\{error,\{\{response_authentication,(\w+)\}", captured.client_result or "")
    assert captured.client_result is None or (failure is not None and failure[1] in str(error))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_gateway_in_between_leaves_the_outcome_open(status: int) -> None:
    captured = CAPTURED["ok_to_upper"]
    with pytest.raises(errors.OutcomeUnknown) as raised:
        sealer_for(captured).open(sealed_for(captured), HttpResponse(status, {"retry-after": "3"}, b"busy"))
    assert raised.value.retry_after == 3


# Altered ones --------------------------------------------------------------------------------------------------------


def with_fields(response: HttpResponse, **changed: str | None) -> HttpResponse:
    """Other fields, written with underscores; None for without it."""
    fields = {**response.fields, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return HttpResponse(
        response.status, {name: value for name, value in fields.items() if value is not None}, response.body
    )


def alterations(response: HttpResponse, asked: Mapping[str, str]) -> Iterator[tuple[str, HttpResponse]]:
    yield from altered_status(response)
    yield from altered_fields(response)
    yield from altered_parameters(response, asked)
    yield from altered_body(response)


def altered_status(response: HttpResponse) -> Iterator[tuple[str, HttpResponse]]:
    for status in (200, 201, 204, 400, 401, 403, 404, 500, 503, 2000):
        if status != response.status:
            yield f"status {status}", HttpResponse(status, response.fields, response.body)


def altered_fields(response: HttpResponse) -> Iterator[tuple[str, HttpResponse]]:
    for name, value in response.fields.items():
        if name in IGNORED:
            continue
        field = name.replace("-", "_")
        yield f"without {name}", with_fields(response, **{field: None})
        for kind, other in {
            "empty": "",
            "longer": f"{value}x",
            "twice": f"{value}, {value}",
            "shorter": value[:-1],
            "other case": value.swapcase(),
            "another": "gzip" if value == "identity" else "identity",
        }.items():
            # Of the same parameter twice the last one counts, which is the same one here.
            if other != value and (name, kind) != ("signature", "twice"):
                yield f"{name} {kind}", with_fields(response, **{field: other})
    for name, value in ADDED.items():
        if name not in response.fields:
            yield f"{name} added", with_fields(response, **{name.replace("-", "_"): value})
            yield f"{name} added, empty", with_fields(response, **{name.replace("-", "_"): ""})


def altered_parameters(response: HttpResponse, asked: Mapping[str, str]) -> Iterator[tuple[str, HttpResponse]]:
    text = response.fields["signature"]
    parameters = dict(part.split("=", 1) for part in text.split(","))
    names = parameters["headers"].strip('"').split(" ")
    mac = base64.b64decode(parameters["signature"].strip('"'))

    def signed_by(**changed: str | None) -> HttpResponse:
        shown = {**parameters, **changed}
        pieces = [f"{key}={value}" for key, value in shown.items() if value is not None]
        return with_fields(response, signature=",".join(pieces))

    def signing(listed: list[str]) -> HttpResponse:
        return signed_by(headers=f'"{" ".join(listed)}"')

    for key, value in parameters.items():
        yield f"no {key}", signed_by(**{key: None})
        yield f"{key} empty", signed_by(**{key: '""'})
        yield f"{key} without marks", signed_by(**{key: value.strip('"')})
        yield f"{key} twice, the last one empty", with_fields(response, signature=f'{text},{key}=""')
    yield "another algorithm", signed_by(algorithm='"hmac-sha512"')
    yield "another key", signed_by(keyId='"other"')
    yield "blanks between", with_fields(response, signature=text.replace(",", ", "))
    yield "a scheme before", with_fields(response, signature=f"Signature {text}")
    yield "that of the request", with_fields(response, signature=asked["authorization"].removeprefix("Signature "))
    for name in names:
        yield f"{name} not listed", signing([other for other in names if other != name])
        yield f"{name} listed in capitals", signing([other.upper() if other == name else other for other in names])
        if name in response.fields:
            gone = signing([other for other in names if other != name])
            yield f"{name} neither listed nor there", with_fields(gone, **{name.replace("-", "_"): None})
    for more in (*IGNORED, "no-such", "(request-target)", "signature", names[0]):
        yield f"{more} listed too", signing([*names, more])
    yield "another order", signing(names[::-1])
    yield "nothing listed", signing([])
    for bit in range(0, len(mac) * 8, 37):
        flipped = bytearray(mac)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} of the MAC", signed_by(signature=f'"{base64.b64encode(flipped).decode()}"')
    for kind, other in {"short": mac[:-1], "long": mac + b"\0", "half": mac[:16], "no": b""}.items():
        yield f"a {kind} MAC", signed_by(signature=f'"{base64.b64encode(other).decode()}"')
    yield "a MAC in hexadecimal", signed_by(signature=f'"{mac.hex()}"')
    yield "a MAC that is no base64", signed_by(signature='"?"')


def altered_body(response: HttpResponse) -> Iterator[tuple[str, HttpResponse]]:
    body = response.body

    def having(other: bytes) -> HttpResponse:
        return HttpResponse(response.status, response.fields, other)

    yield "a longer body", having(body + b"\0")
    if not body:
        return
    yield "no body", having(b"")
    yield "the body cut", having(body[:-1])
    yield "the body cut in half", having(body[: len(body) // 2])
    for bit in {0, 7, len(body) * 4, len(body) * 8 - 1}:
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} of the body", having(bytes(flipped))
        digest = with_fields(having(bytes(flipped)), digest=digest_of(bytes(flipped)))
        yield f"bit {bit} of the body, with its digest", digest


def digest_of(body: bytes) -> str:
    return f"SHA-256={base64.b64encode(hashlib.sha256(body).digest()).decode()}"


def outcome(captured: Captured, sealed: Sealed, response: HttpResponse) -> Any:
    try:
        sealer_for(captured).open(sealed, response)
    except errors.ResponseUndecodable as error:
        return error  # it was believed to be the server's
    except errors.Unverified:
        return None
    except Exception as error:
        return error
    return "accepted"


@pytest.mark.parametrize("name", SIGNED)
def test_no_altered_response_is_believed(name: str) -> None:
    captured = CAPTURED[name]
    sealed, response = sealed_for(captured), response_of(captured)
    asked = {name.lower(): value for name, value in captured.asked.headers}
    altered = dict(alterations(response, asked))
    assert len(altered) > 80
    outcomes = {kind: outcome(captured, sealed, other) for kind, other in altered.items()}
    # A proxy's own trouble, which leaves the outcome open, is never told by a response with a signature.
    assert {kind: found for kind, found in outcomes.items() if found is not None} == {}


@pytest.mark.parametrize("name", SIGNED)
def test_no_response_to_another_request_is_believed(name: str) -> None:
    captured = CAPTURED[name]
    sealer, response = sealer_for(captured), response_of(captured)
    genuine = response.fields["x-request-id"]
    for other in (CAPTURED["ok_slash"].asked, CAPTURED["ok_star"].asked):
        request_id = dict(other.headers)["x-request-id"]
        if request_id == genuine:
            continue
        with pytest.raises(errors.ResponseMismatched):
            sealer.open(sealed_for(captured, request_id=request_id), response)
        with pytest.raises(errors.ResponseAltered):
            claimed = with_fields(response, x_request_id=request_id)
            sealer.open(sealed_for(captured, request_id=request_id), claimed)


@pytest.mark.parametrize("name", SIGNED)
def test_no_response_by_another_secret_is_believed(name: str) -> None:
    captured = CAPTURED[name]
    for secret in (b"another secret, long enough", captured.secret[:-1], captured.secret + b"!"):
        with pytest.raises(errors.ResponseAltered, match="invalid_signature"):
            sealer_for(captured).open(sealed_for(captured, secret=secret), response_of(captured))


@pytest.mark.parametrize("name", SIGNED)
def test_what_no_signature_covers_may_change(name: str) -> None:
    captured = CAPTURED[name]
    if name in TOO_LARGE:
        return
    changed = with_fields(response_of(captured), date=None, server="another", x_more="more", via="1.1 proxy")
    answer, _ = sealer_for(captured).open(sealed_for(captured), changed)
    assert answer.status == captured.status
