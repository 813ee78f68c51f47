from __future__ import annotations

import hashlib
from typing import Any

import pytest

from backwater_tornado.errors import (
    CallFailed,
    OutcomeUnknown,
    Overloaded,
    ResponseAltered,
    ResponseMismatched,
    ResponseUndecodable,
    ResponseUnsigned,
    UnknownFunction,
    UnknownKey,
    UnknownModule,
)
from backwater_tornado.options import Endpoint, Limits
from backwater_tornado.protocol.batches import MAX_NAME, decode_envelope, encode_answers, write_frame
from backwater_tornado.protocol.calling import Attempt, Target
from backwater_tornado.protocol.codec import JSON, MSGPACK, PICKLE, Codec
from backwater_tornado.protocol.compression import decompress
from backwater_tornado.protocol.headers import MAX_TIMEOUT, encode_bytes
from backwater_tornado.protocol.messages import HttpResponse
from backwater_tornado.protocol.problems import describe
from backwater_tornado.protocol.sealing import (
    GATEWAY_STATUSES,
    CodecSealer,
    Seal,
    Stamp,
    answers_reader,
    call_path,
    check_names,
    clock_offset,
    explain_unsigned,
    open_body,
    open_one,
    seal_one,
    verify_head,
)
from backwater_tornado.protocol.signatures import Parameters
from tests.wire import (
    BODY,
    KEY,
    NOW,
    OTHER_KEY,
    STREAM,
    answered,
    arrive,
    calls_of,
    digest_of,
    outgoing,
    received,
    seal,
    serving_of,
    with_members,
)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def fields(sealed: object) -> dict[str, str]:
    return dict(sealed.request.fields)  # type: ignore[attr-defined]


# Names


@pytest.mark.parametrize("name", ["m", "m" * MAX_NAME, "größe", "a/b?c#d%20 e"])
def test_names_that_can_travel_pass(name: str) -> None:
    check_names(name, name)


@pytest.mark.parametrize("name", ["", "m" * (MAX_NAME + 1), "\ud800", "a\udfff"])
def test_names_that_no_server_can_have_are_refused_before_they_are_sent(name: str) -> None:
    with pytest.raises(UnknownModule):
        check_names(name, "f")
    with pytest.raises(UnknownFunction):
        check_names("m", name)


def test_a_path_is_percent_encoded() -> None:
    assert call_path("a/b", "c d?#%é\n") == "/backwater/2/a%2Fb/c%20d%3F%23%25%C3%A9%0A"


# Requests


def test_a_request_for_one_call_has_these_fields_and_no_more() -> None:
    sealed = seal(outgoing(7))
    assert sealed.request.url == "http://host:8080/backwater/2/tasks/add"
    assert sealed.request.body == BODY
    assert list(fields(sealed)) == [
        "content-type",
        "content-length",
        "content-digest",
        "idempotency-key",
        "backwater-timeout",
        "signature-input",
        "signature",
    ]
    assert fields(sealed)["content-type"] == "application/msgpack"
    assert fields(sealed)["content-length"] == str(len(BODY))
    assert fields(sealed)["content-digest"] == digest_of(BODY)
    assert fields(sealed)["idempotency-key"] == f'"{STREAM}.7";settled=0'
    assert fields(sealed)["backwater-timeout"] == "10"
    assert sealed.nonce == f"{STREAM}.1"
    assert fields(sealed)["signature"] == f"bw={encode_bytes(sealed.mac)}"


def test_a_sealed_request_is_accepted() -> None:
    call = outgoing(7, sent_since=-2.5, traceparent=TRACEPARENT, deadline=4.25)
    sealed = seal(call)
    read = calls_of(arrive(serving_of(), received(sealed), sealed.request.body)).calls[0]
    assert (read.module, read.function, read.arguments, read.timeout) == ("tasks", "add", BODY, 4.25)
    assert (read.call_id.number, read.call_id.age) == (7, 2.5)  # type: ignore[union-attr]
    assert read.traceparent == TRACEPARENT


def test_many_sealed_calls_are_accepted() -> None:
    calls = [outgoing(7, sent_since=-2.5, traceparent=TRACEPARENT), outgoing(8, deadline=0.5)]
    sealed = seal(*calls)
    assert sealed.request.url == "http://host:8080/backwater/2"
    assert "idempotency-key" not in fields(sealed)
    assert "backwater-timeout" not in fields(sealed)
    read = calls_of(arrive(serving_of(), received(sealed), sealed.request.body)).calls
    assert [(call.timeout, call.traceparent, call.arguments) for call in read] == [
        (10.0, TRACEPARENT, BODY),
        (0.5, None, BODY),
    ]
    assert [(call.call_id.number, call.call_id.age) for call in read] == [(7, 2.5), (8, None)]  # type: ignore[union-attr]


@pytest.mark.parametrize("trace", ["", "x", f"{TRACEPARENT}\r\nx-evil: 1", TRACEPARENT.upper()])
def test_a_broken_trace_is_not_sent(trace: str) -> None:
    """It often comes from a request of somebody else, and must neither add a field nor spoil other calls."""
    assert "traceparent" not in fields(seal(outgoing(traceparent=trace)))
    sealed = seal(outgoing(0, traceparent=trace), outgoing(1))
    assert decode_envelope(MSGPACK.media_type, sealed.request.body).calls[0].traceparent is None


@pytest.mark.parametrize(
    ("deadline", "timeout"), [(0.0, 0.001), (-5.0, 0.001), (float("inf"), MAX_TIMEOUT), (1e12, MAX_TIMEOUT)]
)
def test_any_time_left_is_one_that_can_travel(deadline: float, timeout: float) -> None:
    for calls in ([outgoing(0, deadline=deadline)], [outgoing(0, deadline=deadline), outgoing(1)]):
        sealed = seal(*calls)
        assert calls_of(arrive(serving_of(), received(sealed), sealed.request.body)).calls[0].timeout == timeout


def test_a_large_body_is_compressed() -> None:
    arguments = MSGPACK.encode([["x" * 1000], {}])
    sealed = seal(outgoing(arguments=arguments))
    assert fields(sealed)["content-encoding"] == "zstd"
    assert fields(sealed)["content-length"] == str(len(sealed.request.body))
    assert fields(sealed)["content-digest"] == digest_of(sealed.request.body)
    assert decompress(sealed.request.body, 2000) == arguments
    assert "content-encoding" not in fields(seal(outgoing(arguments=arguments), compression_threshold=2000))


def test_a_json_client_says_that_it_takes_zstd() -> None:
    sealed = seal(outgoing(arguments=b"[[],{}]"), codec=JSON)
    assert fields(sealed)["accept-encoding"] == "zstd"
    assert fields(sealed)["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("endpoint", "url", "authority"),
    [
        ("http://Example.com/base/", "http://example.com/base/backwater/2/tasks/add", "example.com"),
        ("https://example.com", "https://example.com/backwater/2/tasks/add", "example.com"),
        ("https://example.com:8443", "https://example.com:8443/backwater/2/tasks/add", "example.com:8443"),
        ("http://example.com:443", "http://example.com:443/backwater/2/tasks/add", "example.com:443"),
        ("[2001:DB8::1]:80", "http://[2001:db8::1]/backwater/2/tasks/add", "[2001:db8::1]"),
        ("2001:db8::1", "http://[2001:db8::1]:8080/backwater/2/tasks/add", "[2001:db8::1]:8080"),
    ],
)
def test_the_authority_that_is_signed_is_the_one_that_is_sent(endpoint: str, url: str, authority: str) -> None:
    sealed = seal(outgoing(), endpoint=endpoint)
    assert (sealed.request.url, sealed.head.authority) == (url, authority)


def test_a_request_is_signed_by_the_servers_clock() -> None:
    target = Target(Endpoint.parse("host"), offset=-100.0)
    stamp = Stamp(f"{STREAM}.1", 3, 0.0, NOW + 0.9)
    sealed = seal_one(Seal(STREAM, MSGPACK, Limits()), KEY, Attempt(outgoing(), target, fresh=False), stamp)
    assert f";created={int(NOW) - 100};expires={int(NOW) - 40};" in fields(sealed)["signature-input"]
    assert fields(sealed)["idempotency-key"].endswith(";settled=3")


# Responses


def test_an_answer_is_opened() -> None:
    sealed = seal(outgoing())
    answer, parameters = open_one(sealed, answered(sealed, [1, "x" * 1000]), 2000)
    assert (answer.status, answer.media_type, MSGPACK.decode(answer.body)) == (
        200,
        "application/msgpack",
        [1, "x" * 1000],
    )
    assert parameters.created == int(NOW)


def test_a_refusal_of_the_whole_request_is_opened() -> None:
    sealed = seal(outgoing())
    serving = serving_of()
    response = serving.refuse(arrive(serving, received(sealed)), Overloaded("busy"), NOW)
    answer, _ = open_one(sealed, response, 2000)
    assert (answer.status, answer.media_type) == (503, "application/problem+msgpack")


def test_an_answer_to_another_request_is_not_opened() -> None:
    first, second = seal(outgoing(), nonce=1), seal(outgoing(), nonce=2)
    with pytest.raises(ResponseMismatched):
        open_one(first, answered(second), 2000)


def test_an_altered_body_is_not_opened() -> None:
    sealed = seal(outgoing())
    response = answered(sealed)
    for body in (b"", b"\x04", response.body + b"x"):
        with pytest.raises(ResponseAltered, match="not the one that was signed"):
            open_one(sealed, with_members(response, body=body), 2000)


def response(body: bytes = b"x", **more: str | None) -> HttpResponse:
    given = {"content-digest": digest_of(body), **{name.replace("_", "-"): value for name, value in more.items()}}
    return HttpResponse(200, {name: value for name, value in given.items() if value is not None}, body)


def test_a_body_needs_a_digest_that_fits() -> None:
    assert open_body(response(), 10) == b"x"
    assert open_body(response(content_digest=f"md5=:aGk=:, {digest_of(b'x')}"), 10) == b"x"
    other = encode_bytes(hashlib.sha256(b"y").digest())
    for digest in (
        None,
        "",
        "sha-256",
        f"sha-256={other}",
        f"sha-512={digest_of(b'x')[8:]}",
        digest_of(b"x").replace(":", ""),
    ):
        with pytest.raises(ResponseAltered):
            open_body(response(content_digest=digest), 10)


def test_a_body_is_decompressed_no_further_than_the_limit() -> None:
    sealed = seal(outgoing())
    whole = answered(sealed, "x" * 1000)
    assert len(open_body(whole, 1003)) == 1003
    with pytest.raises(ResponseUndecodable, match="cannot be decompressed"):
        open_body(whole, 1002)


@pytest.mark.parametrize("encoding", ["gzip", "", "br", "Zstd"])
def test_another_encoding_is_undecodable(encoding: str) -> None:
    with pytest.raises(ResponseUndecodable, match="content encoding"):
        open_body(response(content_encoding=encoding), 10)


def test_a_body_that_is_not_compressed_as_it_says_is_undecodable() -> None:
    with pytest.raises(ResponseUndecodable):
        open_body(response(content_encoding="zstd"), 10)


# Unsigned answers


def unsigned(status: int, body: bytes = b"", **more: str) -> CallFailed:
    given = {name.replace("_", "-"): value for name, value in more.items()}
    with pytest.raises(CallFailed) as caught:
        verify_head(seal(outgoing()), HttpResponse(status, given, body))
    return caught.value


def test_the_statuses_of_a_gateways_trouble() -> None:
    assert {408, 425, 429, 500, 502, 503, 504} == GATEWAY_STATUSES


@pytest.mark.parametrize("status", sorted(GATEWAY_STATUSES))
def test_a_gateways_trouble_may_pass(status: int) -> None:
    error = unsigned(status)
    assert type(error) is OutcomeUnknown
    assert error.retryable
    assert error.retry_after is None
    assert str(status) in error.detail


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("9999", 9999.0),
        ("10000", None),
        ("-1", None),
        ("", None),
        ("²", None),
        ("٣", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
    ],
)
def test_a_gateways_word_on_when_to_come_again_is_read(text: str, seconds: float | None) -> None:
    assert unsigned(503, retry_after=text).retry_after == seconds


@pytest.mark.parametrize("status", [200, 301, 400, 401, 404, 501])
def test_any_other_unsigned_answer_is_final(status: int) -> None:
    error = unsigned(status)
    assert type(error) is ResponseUnsigned
    assert not error.retryable
    assert error.hint is None
    assert error.detail == f"the answer is not signed; it claims status {status}"


def test_a_claim_of_an_unsigned_answer_is_a_hint() -> None:
    body = JSON.encode(describe(UnknownKey("never heard of it")))
    error = unsigned(401, body, content_type="application/problem+json")
    assert isinstance(error, ResponseUnsigned)
    assert type(error.hint) is UnknownKey
    assert error.detail == "the answer is not signed; it claims unknown_key: never heard of it"


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"x", "application/problem+json"),
        (b"", "application/problem+json"),
        (b'{"type": "remote_exception"}', "application/problem+json"),
        (b'{"type": "unknown_key"}', "application/json"),
        (b'{"type": "unknown_key", "detail": "' + b"x" * 65536 + b'"}', "application/problem+json"),
        (b"[" * 60_000, "application/problem+json"),
    ],
)
def test_an_odd_claim_is_no_hint(body: bytes, media_type: str) -> None:
    error = unsigned(401, body, content_type=media_type)
    assert isinstance(error, ResponseUnsigned)
    assert error.hint is None


def test_the_longest_claim_that_is_looked_at() -> None:
    for size, found in ((65535, True), (65536, False)):
        body = b'{"type": "unknown_key"}'.ljust(size)
        error = unsigned(401, body, content_type="application/problem+json")
        assert isinstance(error, ResponseUnsigned)
        assert (error.hint is not None) == found


def test_an_answer_by_another_key_is_no_gateways() -> None:
    mine, other = seal(outgoing()), seal(outgoing(), key=OTHER_KEY)
    foreign = with_members(answered(other), status=503)
    with pytest.raises(ResponseUnsigned, match="another key") as caught:
        verify_head(mine, foreign)
    assert not caught.value.retryable


def test_an_explanation_keeps_what_was_wrong() -> None:
    explained = explain_unsigned(HttpResponse(404, {}, b""), ResponseUnsigned("no"))
    assert explained.detail == "no; it claims status 404"


# Many answers


def test_the_frames_behind_a_head_are_read() -> None:
    sealed = seal(outgoing(0), outgoing(1))
    serving = serving_of()
    exchange = arrive(serving, received(sealed), sealed.request.body)
    head = serving.begin_stream(exchange, NOW)
    verify_head(sealed, head)
    reader = answers_reader(sealed, head, 1000)
    assert reader is not None
    frame = write_frame(KEY, sealed.mac, 0, encode_answers(MSGPACK.media_type, []), last=True, threshold=300, level=3)
    assert list(reader.feed(frame)) == []
    assert reader.ended


@pytest.mark.parametrize(
    ("status", "media_type"),
    [(200, "application/msgpack"), (503, "application/vnd.backwater.answers+msgpack"), (200, None)],
)
def test_an_ordinary_answer_has_no_frames(status: int, media_type: str | None) -> None:
    given = {} if media_type is None else {"content-type": media_type}
    assert answers_reader(seal(outgoing(0), outgoing(1)), HttpResponse(status, given, b""), 1000) is None


# Clocks


@pytest.mark.parametrize(("created", "offset"), [(5, 0.0), (-5, 0.0), (6, 6.0), (-6, -6.0), (3600, 3600.0), (0, 0.0)])
def test_clocks_that_differ_a_little_do_not_differ(created: int, offset: float) -> None:
    assert clock_offset(Parameters("", "", int(NOW) + created, "k"), NOW) == offset


def test_pickled_arguments_are_sealed_like_others() -> None:
    assert fields(seal(outgoing(arguments=PICKLE.encode([[], {}])), codec=PICKLE))["content-type"] == PICKLE.media_type


def test_a_body_that_is_not_compressed_is_bounded_as_well() -> None:
    assert open_body(response(b"12345"), 5) == b"12345"
    with pytest.raises(ResponseUndecodable, match="has 6 bytes; max_encoded_result_size is 5"):
        open_body(response(b"123456"), 5)


# A client's whole half


def sealer(codec: Codec = MSGPACK, **limits: Any) -> CodecSealer:
    return CodecSealer(codec, Limits(**limits), 7)


def test_a_sealer_says_what_it_can() -> None:
    assert (sealer().media_type, sealer().calls_per_request) == ("application/msgpack", 7)
    assert (sealer().remembered, sealer().readings) == (True, None)
    assert sealer(JSON).calls_per_request == 7
    assert sealer(PICKLE).calls_per_request == 1


def test_a_sealer_seals_one_call_or_many() -> None:
    stamp = Stamp(f"{STREAM}.9", 0, 0.0, NOW)
    arguments = sealer().encode_arguments((1,), {"y": 2})
    assert MSGPACK.decode(arguments) == [[1], {"y": 2}]
    target = Target(Endpoint.parse("host"))
    attempts = [Attempt(outgoing(number, arguments), target, fresh=False) for number in (3, 4)]
    one = sealer().seal(KEY, attempts[:1], stamp)
    assert fields(one)["idempotency-key"].startswith(f'"{STREAM}.3"')
    assert calls_of(arrive(serving_of(), received(one), one.request.body)).calls[0].arguments == arguments
    many = sealer().seal(KEY, attempts, stamp)
    assert decode_envelope("application/msgpack", many.request.body).stream == STREAM
    assert [
        call.call_id.number for call in calls_of(arrive(serving_of(), received(many), many.request.body)).calls
    ] == [  # type: ignore[union-attr]
        3,
        4,
    ]


def test_a_sealer_opens_what_was_answered() -> None:
    sealed = seal(outgoing(7))
    answer, parameters = sealer().open(sealed, answered(sealed, 3))
    assert (sealer().decode(answer), parameters.created) == (3, int(NOW))
    with pytest.raises(ResponseUndecodable, match="max_encoded_result_size is 3"):
        sealer(max_encoded_result_size=3).open(sealed, answered(sealed, "long"))
    refused = serving_of().form(arrive(serving_of(), received(sealed), sealed.request.body))
    answer, _ = sealer().open(sealed, answered(sealed, recorded=refused.encode_problem(Overloaded("busy"))))
    assert type(sealer().problem(answer)) is Overloaded
