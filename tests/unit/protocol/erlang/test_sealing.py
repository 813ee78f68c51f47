"""The client's half of version 1."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from backwater_tornado.errors import (
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
    OutcomeUnknown,
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
    Unserializable,
    UnsupportedMediaType,
)
from backwater_tornado.options import Endpoint, ErlangTerms, Limits
from backwater_tornado.protocol.calling import Answer, Attempt, Target
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.forms import texts_of
from backwater_tornado.protocol.erlang.sealing import ErlangSealer
from backwater_tornado.protocol.erlang.terms import Atom, Charlist
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.messages import HttpResponse
from backwater_tornado.protocol.sealing import GATEWAY_STATUSES, Sealed, Stamp
from tests.erlang import wire as erlang_wire
from tests.erlang.wire import SECRET, TYPE
from tests.wire import NOW, outgoing

KEY = Key(SECRET, "erlang")
ADD = encode_term([1, 2])


def sealer_of(terms: ErlangTerms | None = None, **limits: int) -> ErlangSealer:
    return ErlangSealer(Limits(**limits), terms or ErlangTerms())


def sealed_of(
    arguments: bytes = ADD, *, endpoint: str = "http://host:81/base", names: tuple[str, str] = ("tasks", "add")
) -> Sealed:
    call = outgoing(1, arguments, arity=2, module=names[0], function=names[1])
    attempt = Attempt(call, Target(Endpoint.parse(endpoint)), fresh=False)
    return sealer_of().seal(KEY, [attempt], Stamp("stream.7", 0, 0.0, NOW))


def answered(
    body: bytes = b"", status: int = 200, *, names: list[str] | None = None, secret: bytes = SECRET, **more: str | None
) -> HttpResponse:
    """A response signed by the tests' own signer."""
    given: dict[str, str | None] = {
        "content-type": TYPE,
        "content-length": str(len(body)),
        "digest": erlang_wire.sha256(body),
        "x-request-id": "stream.7",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    fields = {name: value for name, value in given.items() if value is not None}
    return HttpResponse(status, erlang_wire.signed_response(fields, status, secret=secret, names=names), body)


def opened(response: HttpResponse, **limits: int) -> Answer:
    answer, parameters = sealer_of(**limits).open(sealed_of(), response)
    assert parameters is None
    return answer


# Requests ------------------------------------------------------------------------------------------------------------


def test_a_request_is_what_a_genuine_client_sends() -> None:
    sealed = sealed_of()
    assert sealed.request.url == "http://host:81/base/backwater/1/tasks/add/2"
    assert sealed.request.body == ADD
    fields = dict(sealed.request.fields)
    expected = erlang_wire.fields_of(ADD, x_request_id="stream.7")
    assert fields == erlang_wire.signed(expected, "/base/backwater/1/tasks/add/2")
    assert (sealed.nonce, sealed.key, sealed.head.path) == ("stream.7", KEY, "/base/backwater/1/tasks/add/2")


def test_names_are_percent_encoded() -> None:
    sealed = sealed_of(names=("a/b", "ü?#%.."), endpoint="host")
    assert sealed.head.path == "/backwater/1/a%2Fb/%C3%BC%3F%23%25../2"
    assert sealed.request.url.endswith(sealed.head.path)


def test_a_long_list_of_arguments_is_gzipped() -> None:
    sealed = sealed_of(encode_term([bytes(400), 2]))
    fields = dict(sealed.request.fields)
    assert fields["content-encoding"] == "gzip"
    assert gzip.decompress(sealed.request.body) == encode_term([bytes(400), 2])
    assert fields["content-length"] == str(len(sealed.request.body))
    assert fields["digest"] == erlang_wire.sha256(sealed.request.body)
    own = {name: value for name, value in fields.items() if name != "authorization"}
    assert fields == erlang_wire.signed(own, sealed.head.path)


def test_a_sealer_says_what_it_can() -> None:
    sealer = sealer_of()
    assert (sealer.calls_per_request, sealer.remembered, sealer.media_type) == (1, False, TYPE)
    assert sealer.readings is texts_of


def test_arguments_are_a_list_of_terms() -> None:
    assert sealer_of().encode_arguments((1, 2), {}) == b"\x83k\0\2\1\2"
    assert sealer_of().encode_arguments((), {}) == b"\x83j"
    assert sealer_of(ErlangTerms(none="nil")).encode_arguments([None], {}) == encode_term([Atom("nil")])
    sealer_of().encode_arguments([0] * 255, {})


def test_what_erlang_cannot_take_is_not_sent() -> None:
    with pytest.raises(InvalidArguments, match="no named arguments: x, y"):
        sealer_of().encode_arguments([], {"x": 1, "y": 2})
    with pytest.raises(InvalidArguments, match="at most 255 arguments, not 256"):
        sealer_of().encode_arguments([0] * 256, {})
    with pytest.raises(Unserializable, match="object"):
        sealer_of().encode_arguments([object()], {})


# Responses -----------------------------------------------------------------------------------------------------------


def test_a_signed_answer_is_opened() -> None:
    assert opened(answered(b"abc")) == Answer(200, TYPE, b"abc", None)
    refused = answered(b"word", 400, content_type="text/plain", retry_after="3")
    assert opened(refused) == Answer(400, "text/plain", b"word", 3.0)
    assert opened(answered(b"word", 400, content_type=None)).media_type == ""


def test_who_asks_to_wait_has_to_sign_that() -> None:
    response = answered(b"", 503)
    assert opened(HttpResponse(503, {**response.fields, "retry-after": "99"}, b"")).retry_after is None


@pytest.mark.parametrize("status", sorted(GATEWAY_STATUSES))
def test_a_gateways_trouble_may_pass(status: int) -> None:
    with pytest.raises(OutcomeUnknown, match=f"answered {status} without a signature") as raised:
        opened(HttpResponse(status, {"retry-after": "2"}, b""))
    assert (raised.value.retryable, raised.value.retry_after) == (True, 2.0)


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, b"invalid_signature", SignatureInvalid),
        (404, b"", PathNotFound),
        (200, b"x", Refused),
        (418, b"\xff", Refused),
    ],
)
def test_an_unsigned_answer_is_a_claim(status: int, body: bytes, hint: type[Refused]) -> None:
    with pytest.raises(ResponseUnsigned, match=rf"\(missing_request_id\); it claims status {status}") as raised:
        opened(HttpResponse(status, {}, body))
    assert raised.value.retryable is False
    assert type(raised.value.hint) is hint
    assert raised.value.hint.detail == (body.decode("ascii", "replace") or f"status {status}")
    assert str(raised.value) == str(raised.value).rstrip()


def test_a_claim_is_not_repeated_at_any_length() -> None:
    with pytest.raises(ResponseUnsigned) as raised:
        opened(HttpResponse(401, {}, b"x" * 10_000))
    assert len(str(raised.value)) < 400
    assert raised.value.hint is not None
    assert len(str(raised.value.hint)) <= 200


def test_a_claim_of_what_is_no_refusal_is_no_hint() -> None:
    from backwater_tornado.protocol.erlang.sealing import BY_STATUS

    for status, kind in BY_STATUS.items():
        if status not in GATEWAY_STATUSES:
            assert issubclass(kind, Refused)


def test_an_answer_without_a_signature_is_not_believed() -> None:
    response = answered(b"abc")
    del response.fields["signature"]  # type: ignore[attr-defined]
    with pytest.raises(ResponseUnsigned, match="missing_signature_header"):
        opened(response)


def test_an_answer_to_another_request_is_not_believed() -> None:
    with pytest.raises(ResponseMismatched):
        opened(answered(b"abc", x_request_id="stream.8"))


ALL = ["(response-status)", "content-length", "content-type", "digest", "x-request-id"]


@pytest.mark.parametrize(
    ("response", "word"),
    [
        (answered(b"abc", secret=bytes(32)), "invalid_signature"),
        (HttpResponse(400, answered(b"a").fields, b"a"), "invalid_signature"),
        (HttpResponse(200, {**answered(b"abc").fields, "digest": erlang_wire.sha256(b"x")}, b"x"), "invalid_signature"),
        (HttpResponse(200, answered(b"abc").fields, b"x"), "wrong_body_digest"),
        (answered(b"abc", digest=erlang_wire.sha256(b"x")), "wrong_body_digest"),
        (HttpResponse(200, {**answered().fields, "signature": "junk"}, b""), "invalid_header_params"),
        (HttpResponse(200, {**answered().fields, "content-encoding": "gzip"}, b""), "missing_mandatorily_signed"),
        *((answered(names=[each for each in ALL if each != name]), name) for name in ALL),
    ],
)
def test_an_altered_answer_is_not_believed(response: HttpResponse, word: str) -> None:
    with pytest.raises(ResponseAltered, match=word.replace("(", r"\(").replace(")", r"\)")):
        opened(response)


def test_a_request_is_no_answer() -> None:
    fields = dict(sealed_of().request.fields)
    fields["signature"] = fields.pop("authorization").removeprefix("Signature ")
    with pytest.raises(ResponseAltered, match="response-status"):
        opened(HttpResponse(200, fields, ADD))


# Bodies --------------------------------------------------------------------------------------------------------------


def test_a_gzipped_answer_is_inflated_within_the_limit() -> None:
    packed = gzip.compress(bytes(1000))
    response = answered(packed, content_encoding="gzip")
    assert opened(response, max_encoded_result_size=1000).body == bytes(1000)
    with pytest.raises(ResponseUndecodable, match="larger than max_encoded_result_size, 999"):
        opened(response, max_encoded_result_size=999)
    with pytest.raises(ResponseUndecodable, match="no gzip stream"):
        opened(answered(packed[:-1], content_encoding="gzip"))


def test_a_plain_answer_has_the_same_limit() -> None:
    for more in ({}, {"content_encoding": "identity"}):
        assert opened(answered(bytes(100), **more), max_encoded_result_size=100).body == bytes(100)
        with pytest.raises(ResponseUndecodable, match="101 bytes; max_encoded_result_size is 100"):
            opened(answered(bytes(101), **more), max_encoded_result_size=100)


def test_an_answer_of_another_kind_is_not_read() -> None:
    with pytest.raises(ResponseUndecodable, match="content encoding 'br'"):
        opened(answered(content_encoding="br"))
    with pytest.raises(ResponseUndecodable, match="media type 'text/plain'"):
        opened(answered(content_type="text/plain"))
    with pytest.raises(ResponseUndecodable, match="media type ''"):
        opened(answered(content_type=None))
    assert opened(answered(content_type=f"{TYPE} ; x=y")).status == 200


# Values --------------------------------------------------------------------------------------------------------------


def decoded(value: Any, terms: ErlangTerms | None = None) -> Any:
    return sealer_of(terms).decode(Answer(200, TYPE, encode_term(value)))


def raised_by(*told: Any, **more: Any) -> ErlangError:
    with pytest.raises(ErlangError) as raised:
        decoded((Atom("exception"), told), **more)
    return raised.value


def test_a_returned_value_is_the_result() -> None:
    assert decoded((Atom("return"), [1, Atom("x")])) == [1, Atom("x")]
    assert decoded((Atom("return"), Atom("nil")), ErlangTerms(none="nil")) is None


def test_an_exception_is_raised_with_all_it_has() -> None:
    frame = (Atom("m"), Atom("f"), 2, [(Atom("file"), Charlist("m.erl")), (Atom("line"), 7)])
    error = raised_by(Atom("exit"), (Atom("r"), 1), [frame])
    assert (error.error_class, error.reason, error.stack[0][:3]) == ("exit", ("r", 1), ("m", "f", 2))
    assert (error.type, error.message, error.exception_args) == ("exit", "{r,1}", None)
    assert str(error) == "exit: {r,1}"
    assert error.traceback == '  {m,f,2,[{file,"m.erl"},{line,7}]}'
    assert raised_by(Atom("throw"), 1, []).traceback is None


def test_an_exception_of_python_has_its_name_and_message() -> None:
    error = raised_by(Atom("error"), (Atom("KeyError"), "ü".encode()), [])
    assert (error.type, error.message, error.exception_args) == ("KeyError", "ü", ("ü",))
    assert error.reason == ("KeyError", "ü".encode())
    assert raised_by(Atom("exit"), (Atom("KeyError"), b"x"), []).type == "exit"
    assert raised_by(Atom("error"), (Atom("KeyError"), b"\xff"), []).message == "\ufffd"
    assert raised_by(Atom("error"), (b"KeyError", b"x"), []).type == "error"
    assert raised_by(Atom("error"), [Atom("KeyError"), b"x"], []).type == "error"


@pytest.mark.parametrize(
    "value",
    [
        3,
        (Atom("return"),),
        (b"return", 1),
        (Atom("other"), 1),
        [Atom("return"), 1],
        [Atom("exception"), (Atom("error"), 1, [])],
        (Atom("exception"), [Atom("error"), 1, []]),
        (Atom("exception"), 1),
        (Atom("exception"), (Atom("other"), 1, [])),
        (Atom("exception"), (Atom("error"), 1, Atom("x"))),
        (Atom("exception"), (Atom("error"), 1)),
        (Atom("other"), (Atom("error"), 1, [])),
    ],
)
def test_another_shape_is_no_answer(value: Any) -> None:
    with pytest.raises(ResponseUndecodable, match="neither"):
        decoded(value)


def test_what_cannot_be_decoded_is_no_answer() -> None:
    for body in (b"", b"\x83", b"\x83P\0\0\0\1", b"\x83" + b"l\0\0\0\1" * 300):
        with pytest.raises(ResponseUndecodable, match="cannot be decoded"):
            sealer_of().decode(Answer(200, TYPE, body))


def test_only_known_atoms_are_taken_where_that_is_wished() -> None:
    terms = ErlangTerms(decode_unsafe_terms=False, atoms=["x"])
    assert decoded((Atom("return"), Atom("x")), terms) == "x"
    with pytest.raises(ResponseUndecodable, match="'?y'? is not known"):
        decoded((Atom("return"), Atom("y")), terms)
    for error_class in ("error", "exit", "throw"):
        assert raised_by(Atom(error_class), 1, [], terms=terms).error_class == error_class


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (404, b"module_not_found", UnknownModule),
        (404, b"function_not_found", UnknownFunction),
        (401, b"wrong_arguments_digest", DigestMismatch),
        (409, b"already_answered", AlreadySettled),
        (503, b"overloaded", Overloaded),
        (400, b"invalid_path", RequestMalformed),
        (401, b"", SignatureInvalid),
        (403, b"", NotExposed),
        (404, b"", UnknownFunction),
        (405, b"", MethodNotAllowed),
        (406, b"", NotAcceptable),
        (413, b"", BodyTooLarge),
        (415, b"x", UnsupportedMediaType),
        (500, b"", InternalError),
        (503, b"", Overloaded),
        (504, b"", DeadlineExceeded),
        (418, b"\xffx", Refused),
    ],
)
def test_a_refusal_is_known_by_its_word_or_its_status(status: int, word: bytes, kind: type[CallFailed]) -> None:
    error = sealer_of().problem(Answer(status, "text/plain", word, 2.5))
    assert type(error) is kind
    text = word.decode("ascii", "replace")
    assert error.detail == f"the server answered {status}" + (f": {text}" if word else "")
    assert error.retry_after == 2.5


def test_no_word_makes_a_client_fail_otherwise() -> None:
    from backwater_tornado.errors import WIRE_ERRORS

    for word in WIRE_ERRORS:
        assert isinstance(sealer_of().problem(Answer(400, "", word.encode())), CallFailed)
    assert len(sealer_of().problem(Answer(400, "", b"x" * 9999)).detail) < 300
