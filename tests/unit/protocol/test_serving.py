from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from backwater_tornado.errors import (
    BodyTooLarge,
    BodyUndecodable,
    CallFailed,
    DeadlineExceeded,
    DigestMismatch,
    InternalError,
    LengthRequired,
    MethodNotAllowed,
    NotAcceptable,
    Overloaded,
    PathNotFound,
    Replayed,
    RequestMalformed,
    SignatureFromFuture,
    SignatureInvalid,
    SignatureStale,
    UnsupportedEncoding,
    UnsupportedMediaType,
    WrongAuthority,
)
from backwater_tornado.exposure import Exposed
from backwater_tornado.protocol.batches import BatchedCall, Envelope, encode_envelope
from backwater_tornado.protocol.codec import JSON, MSGPACK, PICKLE
from backwater_tornado.protocol.compression import decompress
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.memory import CallId, InProcessMemory, Recorded
from backwater_tornado.protocol.messages import Call, HttpResponse
from backwater_tornado.protocol.serving import (
    BODY_STEPS,
    HEAD_STEPS,
    Exchange,
    Serving,
    call_digest,
    check_authority,
    check_clock,
    check_digest,
    check_encoding,
    check_length,
    check_method,
    check_replay,
    check_signature,
    choose_codecs,
    decompress_body,
    read_calls,
    read_target,
    takes_zstd,
)
from backwater_tornado.protocol.signatures import RequestHead, verify_response
from tests.wire import (
    BODY,
    KEY,
    NOW,
    STREAM,
    Tasks,
    arrive,
    calls_of,
    fields_of,
    serving_of,
    sign_again,
    signed,
    with_fields,
    with_members,
)

NONCE = f"{STREAM}.1"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def accept(head: RequestHead, serving: Serving | None = None, now: float = NOW) -> Exchange:
    exchange = Exchange(head, now)
    (serving or serving_of()).accept_head(exchange)
    return exchange


def body_of(
    *calls: BatchedCall, stream: str = STREAM, settled: int = 0, media_type: str = "application/msgpack"
) -> bytes:
    return encode_envelope(media_type, Envelope(stream, settled, list(calls)))


def batched(number: int = 0, **more: Any) -> BatchedCall:
    return BatchedCall(number, "tasks", "add", msgspec.Raw(BODY), **more)


def many(body: bytes, media_type: str = "application/msgpack", **more: str) -> RequestHead:
    return signed(fields_of(body, media_type, **more), path="/backwater/2")


# A request for one call


def test_a_request_for_one_call_is_read() -> None:
    fields = fields_of(
        idempotency_key=f'"{STREAM}.7";settled=5;age=1.5', backwater_timeout="4.5", traceparent=TRACEPARENT
    )
    batch = calls_of(arrive(serving_of(), signed(fields)))
    assert not batch.streamed
    assert list(batch.calls) == [Call("tasks", "add", BODY, 4.5, CallId(STREAM, 7, 5, 1.5), TRACEPARENT)]


def test_a_call_may_do_without_time_key_and_trace() -> None:
    assert list(calls_of(arrive(serving_of(), signed())).calls) == [Call("tasks", "add", BODY)]


@pytest.mark.parametrize("name", ["traceparent", "accept"])
def test_what_is_not_covered_is_not_read(name: str) -> None:
    exchange = arrive(serving_of(), with_fields(signed(), **{name: TRACEPARENT}))
    assert exchange.field(name) is None
    assert calls_of(exchange).calls[0].traceparent is None


@pytest.mark.parametrize("text", ["nan", "0.0001", "-1", "12345678"])
def test_an_odd_time_left_is_malformed(text: str) -> None:
    with pytest.raises(RequestMalformed):
        arrive(serving_of(), signed(fields_of(backwater_timeout=text)))


@pytest.mark.parametrize("text", ["0", "0.0", "0.000"])
def test_a_call_without_time_left_is_not_run(text: str) -> None:
    with pytest.raises(DeadlineExceeded, match="before it came"):
        arrive(serving_of(), signed(fields_of(backwater_timeout=text)))


@pytest.mark.parametrize("key", ["order", '"a.1";settled=99999999999999999999', '"a.1";age=1.2.3'])
def test_an_odd_idempotency_key_is_malformed(key: str) -> None:
    with pytest.raises(RequestMalformed):
        arrive(serving_of(), signed(fields_of(idempotency_key=key)))


@pytest.mark.parametrize(("late", "age"), [(0.0, 2.0), (1.0, 2.0), (1.5, 2.5), (60.0, 61.0), (-60.0, 2.0)])
def test_the_age_of_a_call_grows_on_its_way(late: float, age: float) -> None:
    """By all but the second that `created` may have lost in rounding."""
    head = signed(fields_of(idempotency_key='"a.1";age=2'))
    call_id = calls_of(arrive(serving_of(), head, now=NOW + late)).calls[0].call_id
    assert call_id == CallId("a", 1, 0, age)
    body = body_of(batched(age=2.0), batched(1))
    ids = [call.call_id for call in calls_of(arrive(serving_of(), many(body), body, NOW + late)).calls]
    assert ids == [CallId(STREAM, 0, 0, age), CallId(STREAM, 1)]


# The steps on the head: method and path


@pytest.mark.parametrize("method", ["GET", "PUT", "post", ""])
def test_calls_are_made_with_post(method: str) -> None:
    with pytest.raises(MethodNotAllowed, match="POST"):
        accept(signed(method=method))


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/backwater/2/tasks/add", ("tasks", "add")),
        ("/base/of/mine/backwater/2/tasks/add", ("tasks", "add")),
        ("/backwater/2/backwater/add", ("backwater", "add")),
        ("/backwater/2/tasks/backwater", ("tasks", "backwater")),
        ("/backwater/backwater/2/a/b", ("a", "b")),
        ("/backwater/2/backwater/2/a/b", ("a", "b")),
        ("/backwater/2/a%2Fb/c%20%C3%A9", ("a/b", "c é")),
        ("/backwater/2/a+b/..", ("a+b", "..")),
        ("/backwater/2/%252F/x", ("%2F", "x")),
        ("/backwater/2", None),
        ("/backwater/2/", None),
        ("/base/backwater/2", None),
    ],
)
def test_the_path_names_module_and_function_or_neither(path: str, target: tuple[str, str] | None) -> None:
    exchange = Exchange(signed(path=path), NOW)
    read_target(serving_of(), exchange)
    assert exchange.target == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/backwater",
        "/backwater/",
        "/backwater/1/tasks/add",
        "/backwater/3",
        "/backwater/02/tasks/add",
        "/Backwater/2/tasks/add",
        "/backwaters/2/tasks/add",
        "/x-backwater/2/tasks/add",
        "/backwater/2/tasks",
        "/backwater/2/tasks/",
        "/backwater/2//add",
        "/backwater/2//",
        "/backwater/2/tasks/add/",
        "/backwater/2/tasks/add/more",
        "/backwater%2F2/tasks/add",
    ],
)
def test_another_path_is_not_served(path: str) -> None:
    with pytest.raises(PathNotFound, match="/backwater/2/MODULE/FUNCTION"):
        accept(signed(path=path))


def test_a_path_is_percent_encoded_utf_8() -> None:
    for path in ("/backwater/2/%ff/add", "/backwater/2/tasks/%c3", "/backwater/2/%ed%a0%80/x"):
        with pytest.raises(PathNotFound, match="UTF-8"):
            accept(signed(path=path))


# The steps on the head: length


@pytest.mark.parametrize("fields", [{"content_length": None}, {"transfer_encoding": "chunked"}])
def test_a_request_states_its_length(fields: dict[str, str | None]) -> None:
    with pytest.raises(LengthRequired):
        accept(with_fields(signed(), **fields))


@pytest.mark.parametrize("length", ["", "-1", "+1", "1.0", "0x10", "²", "٣", "1 ", "1, 1", "1" * 16])
def test_an_odd_length_is_malformed(length: str) -> None:
    with pytest.raises(RequestMalformed, match="Content-Length"):
        accept(with_fields(signed(), content_length=length))


def test_a_body_beyond_the_limit_is_refused_on_its_head() -> None:
    serving = serving_of(limits={"max_encoded_args_size": 100})
    accept(sign_again(with_fields(signed(), content_length="100")), serving)
    for length in ("101", "9" * 15):
        with pytest.raises(BodyTooLarge, match=f"has {length} bytes; max_encoded_args_size is 100"):
            accept(with_fields(signed(), content_length=length), serving)


# The steps on the head: signature, names, clock, replay


def test_an_altered_request_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        accept(with_members(signed(), query="x"))


def test_a_request_for_another_server_is_refused_where_a_server_knows_its_names() -> None:
    accept(signed(), serving_of(authorities=("Host:8080", "other")))
    accept(signed(), serving_of(authorities=()))
    accept(signed(), serving_of(authorities=("host",)))
    with pytest.raises(WrongAuthority):
        accept(signed(), serving_of(authorities=("host:80", "8080", "")))
    with pytest.raises(WrongAuthority, match="'host:8080'"):
        accept(signed(), serving_of(authorities=("other",)))


@pytest.mark.parametrize(
    ("authority", "known", "fits"),
    [
        ("[::1]", "[::1]", True),
        ("[::1]:8080", "[::1]", True),
        ("[::1]", "[:", False),
        ("host", "host", True),
        ("host", "", False),
        ("host", "host:8080", False),
        ("host:x", "host", False),
    ],
)
def test_a_name_without_a_port_stands_for_the_host_on_any_port(authority: str, known: str, fits: bool) -> None:
    head = sign_again(with_members(signed(), authority=authority))
    if fits:
        accept(head, serving_of(authorities=(known,)))
    else:
        with pytest.raises(WrongAuthority):
            accept(head, serving_of(authorities=(known,)))


def test_the_clock_is_checked_with_the_servers_tolerance() -> None:
    accept(signed(), serving_of(clock_tolerance=10), NOW + 10)
    with pytest.raises(SignatureStale):
        accept(signed(), serving_of(clock_tolerance=10), NOW + 11)
    with pytest.raises(SignatureFromFuture):
        accept(signed(), serving_of(clock_tolerance=10), NOW - 11)


def test_what_was_signed_before_the_memory_begins_is_stale_unless_clocks_explain_it() -> None:
    accept(signed(), with_members(serving_of(), memory=InProcessMemory(NOW + 5)))
    with pytest.raises(SignatureStale, match="began to remember"):
        accept(signed(), with_members(serving_of(), memory=InProcessMemory(NOW + 5.5)))


def test_a_request_that_comes_again_is_refused() -> None:
    serving = serving_of()
    accept(signed(), serving)
    with pytest.raises(Replayed):
        accept(signed(), serving)
    accept(signed(nonce=f"{STREAM}.2"), serving)


def test_a_nonce_is_remembered_for_as_long_as_its_signature_passes() -> None:
    """Whatever the caller's own `expires` says; the memory is swept at every step of the clock."""
    serving = serving_of(clock_tolerance=10)
    accept(signed(created=NOW + 10), serving, NOW)
    for now in (NOW, NOW + 10, NOW + 20):
        serving.memory.sweep(now)
        with pytest.raises(Replayed):
            accept(signed(created=NOW + 10), serving, now)
    with pytest.raises(SignatureStale):
        accept(signed(created=NOW + 10), serving, NOW + 21)


def test_nonces_of_two_keys_do_not_meet() -> None:
    second = Key(b"s" * 32, "second")
    serving = serving_of([KEY, second])
    accept(signed(), serving)
    accept(signed(key=second), serving)


# The steps on the head: media types and encodings


def accepted_codecs(unsafe: bool = False, **fields: str) -> tuple[str, str]:
    head = signed({**fields_of(), **{name.replace("_", "-"): value for name, value in fields.items()}})
    exchange = accept(head, serving_of(limits={"decode_unsafe_terms": unsafe}))
    return exchange.codec.media_type, exchange.answer_codec.media_type


def test_the_answer_comes_in_the_media_type_of_the_request_or_in_one_that_is_accepted() -> None:
    msgpack, json, pickle = MSGPACK.media_type, JSON.media_type, PICKLE.media_type
    assert accepted_codecs() == (msgpack, msgpack)
    assert accepted_codecs(content_type="application/JSON; charset=utf-8") == (json, json)
    assert accepted_codecs(accept="application/json") == (msgpack, json)
    assert accepted_codecs(accept="text/html, application/json;q=0.1") == (msgpack, json)
    assert accepted_codecs(accept="text/html, */*;q=0.1") == (msgpack, msgpack)
    assert accepted_codecs(accept="application/*", content_type="application/json") == (json, json)
    assert accepted_codecs(accept=f"{pickle}, application/json") == (msgpack, json)
    assert accepted_codecs(True, accept=f"{pickle}, application/json") == (msgpack, pickle)
    assert accepted_codecs(True, content_type=pickle) == (pickle, pickle)


@pytest.mark.parametrize("media_type", ["", ";", "text/plain", "application/x-python-pickle", "application/*"])
def test_another_media_type_is_refused(media_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="is not served here") as caught:
        accept(signed(fields_of(media_type=media_type)))
    assert ("no media type" in str(caught.value)) == (media_type in ("", ";"))


@pytest.mark.parametrize("field", ["text/html", "application/json;q=0", "application/x-python-pickle", ""])
def test_where_nothing_that_is_accepted_is_served_the_request_is_refused(field: str) -> None:
    with pytest.raises(NotAcceptable):
        accept(signed(fields_of(accept=field)))


@pytest.mark.parametrize("encoding", ["gzip", "", "zstd, zstd", "identity", "Zstd"])
def test_another_content_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding):
        accept(signed(fields_of(content_encoding=encoding)))


# The steps on the body


def test_another_body_is_noticed() -> None:
    with pytest.raises(DigestMismatch):
        arrive(serving_of(), signed(), BODY + b"x")


@pytest.mark.parametrize("digest", ["", "md5=:aGk=:", "sha-512=:aGk=:", "SHA-256=:aGk=:"])
def test_a_digest_of_another_kind_is_malformed(digest: str) -> None:
    with pytest.raises(RequestMalformed, match="no sha-256"):
        arrive(serving_of(), sign_again(with_fields(signed(), content_digest=digest)))


@pytest.mark.parametrize("digest", ["sha-256", "sha-256=", "sha-256=aGk=", "sha-256=:aGk=:", "sha-256=::"])
def test_a_digest_that_does_not_fit_is_refused(digest: str) -> None:
    with pytest.raises(DigestMismatch):
        arrive(serving_of(), sign_again(with_fields(signed(), content_digest=digest)))


def test_other_digests_beside_are_passed_over() -> None:
    digest = f"md5=:aGk=:, {fields_of()['content-digest']}"
    arrive(serving_of(), sign_again(with_fields(signed(), content_digest=digest)))


def packed(body: bytes) -> tuple[RequestHead, bytes]:
    import zstandard

    frame = zstandard.ZstdCompressor().compress(body)
    return signed(fields_of(frame, content_encoding="zstd")), frame


def test_a_compressed_body_is_opened() -> None:
    assert calls_of(arrive(serving_of(), *packed(BODY))).calls[0].arguments == BODY


def test_a_body_is_opened_no_further_than_the_limit() -> None:
    serving = serving_of(limits={"max_encoded_args_size": 1000})
    arrive(serving, *packed(bytes(1000)))
    with pytest.raises(BodyTooLarge):
        arrive(serving_of(limits={"max_encoded_args_size": 1000}), *packed(bytes(1001)))


def test_a_body_that_is_not_compressed_as_it_says_is_undecodable() -> None:
    with pytest.raises(BodyUndecodable):
        arrive(serving_of(), signed(fields_of(content_encoding="zstd")))


# Many calls


def test_many_calls_are_read() -> None:
    first = batched(3, timeout=1.5, age=0.5, traceparent=TRACEPARENT)
    second = BatchedCall(9, "m", "f", msgspec.Raw(b"\x90"), traceparent="broken")
    body = body_of(first, second, settled=2)
    batch = calls_of(arrive(serving_of(), many(body), body))
    assert batch.streamed
    assert list(batch.calls) == [
        Call("tasks", "add", BODY, 1.5, CallId(STREAM, 3, 2, 0.5), TRACEPARENT),
        Call("m", "f", b"\x90", None, CallId(STREAM, 9, 2), None),
    ]


def test_the_answers_to_many_calls_come_in_the_media_type_of_the_request() -> None:
    body = body_of(batched())
    exchange = arrive(serving_of(), many(body, accept="application/json"), body)
    assert exchange.answer_codec is MSGPACK


def test_many_calls_do_not_travel_as_pickle() -> None:
    body = PICKLE.encode([])
    with pytest.raises(UnsupportedMediaType, match="msgpack or JSON"):
        arrive(serving_of(limits={"decode_unsafe_terms": True}), many(body, PICKLE.media_type), body)


def test_there_is_a_most_of_calls_in_a_request() -> None:
    body = body_of(batched(0), batched(1))
    arrive(serving_of(max_calls_per_request=2), many(body), body)
    with pytest.raises(BodyTooLarge, match="has 2 calls; max_calls_per_request is 1"):
        arrive(serving_of(max_calls_per_request=1), many(body), body)


def test_an_envelope_of_another_shape_is_undecodable() -> None:
    with pytest.raises(BodyUndecodable):
        arrive(serving_of(), many(BODY))


# The order


def test_the_steps_are_in_the_order_that_is_written_down() -> None:
    head = (check_method, read_target, check_length, check_signature, check_authority, check_clock, check_replay)
    assert (*head, choose_codecs, check_encoding) == HEAD_STEPS
    assert (check_digest, decompress_body, read_calls) == BODY_STEPS


def test_what_is_refused_before_its_signature_is_checked_is_not_remembered() -> None:
    serving = serving_of()
    with pytest.raises(SignatureInvalid):
        accept(with_members(signed(), authority="other"), serving)
    accept(signed(), serving)


# Telling calls apart


def test_the_digest_of_a_call_tells_names_and_arguments_apart() -> None:
    calls = [
        Call("a", "b", b"c"),
        Call("a", "bc", b""),
        Call("ab", "", b"c"),
        Call("a", "b", b"d"),
        Call("b", "a", b"c"),
    ]
    assert len({call_digest(call) for call in calls}) == len(calls)
    assert call_digest(Call("a", "b", b"c", 1.0, CallId("s", 1), "t")) == call_digest(calls[0])


# Answers


def answer(
    value: object = 3, *, fields: dict[str, str] | None = None, **limits: int
) -> tuple[HttpResponse, RequestHead]:
    serving = serving_of(limits=limits)
    head = signed(fields)
    exchange = arrive(serving, head)
    return serving.respond(exchange, serving.form(exchange).encode_result(value), NOW + 0.9, {}), head


def test_an_answer_is_encoded_digested_and_signed() -> None:
    response, head = answer()
    assert (response.status, response.body) == (200, MSGPACK.encode(3))
    assert response.fields["content-type"] == "application/msgpack"
    assert response.fields["content-length"] == "1"
    assert response.fields["content-digest"].startswith("sha-256=:")
    assert verify_response(KEY, head, NONCE, 200, response.fields).created == int(NOW)


def test_an_answer_is_compressed_where_that_is_worth_it() -> None:
    response, _ = answer("x" * 1000)
    assert response.fields["content-encoding"] == "zstd"
    assert int(response.fields["content-length"]) == len(response.body)
    assert decompress(response.body, 2000) == MSGPACK.encode("x" * 1000)
    assert "content-encoding" not in answer("x" * 1000, compression_threshold=2000)[0].fields


@pytest.mark.parametrize(
    ("fields", "takes"),
    [
        ({}, True),
        ({"accept_encoding": "gzip"}, False),
        ({"accept_encoding": "gzip, ZSTD;q=0.1"}, True),
        ({"accept_encoding": "zstd;q=0"}, False),
        ({"media_type": "application/json"}, False),
        ({"media_type": "application/json", "accept_encoding": "zstd"}, True),
    ],
)
def test_an_answer_is_compressed_only_for_those_who_take_it(fields: dict[str, str], takes: bool) -> None:
    exchange = accept(signed(fields_of(**fields)))
    assert takes_zstd(exchange) is takes


def test_an_accepted_encoding_that_is_not_covered_is_not_read() -> None:
    assert takes_zstd(accept(with_fields(signed(), accept_encoding="gzip")))


def test_nothing_is_compressed_for_somebody_unknown() -> None:
    assert not takes_zstd(Exchange(signed(), NOW))


def test_arguments_are_read_by_the_requests_codec_and_results_written_by_the_answers() -> None:
    body = JSON.encode([[1, 2], {}])
    head = signed(fields_of(body, "application/json", accept="application/msgpack"))
    serving = serving_of()
    form = serving.form(arrive(serving, head, body))
    assert form.decode_arguments(body) == ([1, 2], {})
    assert form.encode_result(3) == Recorded(True, 200, "application/msgpack", MSGPACK.encode(3))
    assert form.encode_problem(Overloaded()).media_type == "application/problem+msgpack"


# Refusals


def refused(error: CallFailed, exchange: Exchange | None = None) -> HttpResponse:
    return serving_of().refuse(exchange or Exchange(signed(), NOW), error, NOW)


def test_a_refusal_of_a_good_signature_is_signed_in_the_callers_media_type() -> None:
    head = signed()
    response = refused(InternalError(), accept(head))
    assert response.fields["content-type"] == "application/problem+msgpack"
    verify_response(KEY, head, NONCE, 500, response.fields)


def test_a_refusal_of_somebody_unknown_is_json_and_not_signed() -> None:
    response = refused(SignatureInvalid("no"))
    assert response.status == 401
    assert response.fields == {"content-type": "application/problem+json", "content-length": str(len(response.body))}
    assert JSON.decode(response.body)["detail"] == "no"


def retry_after(error: CallFailed, seconds: float | None) -> str | None:
    error.retry_after = seconds
    return refused(error).fields.get("retry-after")


def test_a_refusal_that_passes_says_when_to_come_again() -> None:
    assert retry_after(Overloaded(), None) == "1"
    assert retry_after(Overloaded(), 7.9) == "7"
    assert retry_after(Replayed(), None) is None
    assert retry_after(Replayed(), 3.0) == "3"


def test_a_refused_method_says_which_one_is_served() -> None:
    assert refused(MethodNotAllowed()).fields["allow"] == "POST"
    assert "allow" not in refused(PathNotFound()).fields


def test_what_a_refusal_adds_is_covered() -> None:
    head = signed()
    response = refused(Overloaded(), accept(head))
    altered = {**response.fields, "retry-after": "9"}
    with pytest.raises(CallFailed):
        verify_response(KEY, head, NONCE, 503, altered)


def test_the_head_of_a_stream_is_signed_and_says_what_follows() -> None:
    body = body_of(batched())
    head = many(body)
    serving = serving_of()
    response = serving.begin_stream(arrive(serving, head, body), NOW)
    assert (response.status, response.body) == (200, b"")
    assert response.fields["content-type"] == "application/vnd.backwater.answers+msgpack"
    verify_response(KEY, head, NONCE, 200, response.fields)


# Every guard at once


def test_every_step_leaves_the_request_alone_when_it_passes() -> None:
    serving = serving_of()
    exchange = Exchange(signed(), NOW)
    for step in HEAD_STEPS:
        step(serving, exchange)
    exchange.body, exchange.digest = BODY, hashlib.sha256(BODY).digest()
    for step in BODY_STEPS:
        step(serving, exchange)
    assert exchange.head == signed()


def test_the_memory_is_told_of_a_request_only_once_its_signature_and_clock_were_good() -> None:
    told: list[str] = []

    class Noting(InProcessMemory):
        def admit(self, key_id: str, nonce: str, expires: float, now: float) -> None:
            told.append(nonce)

    serving = with_members(serving_of(), memory=Noting(NOW))
    attempts: list[Callable[[], object]] = [
        lambda: accept(with_members(signed(), query="x"), serving),
        lambda: accept(signed(), serving, NOW + 1000),
    ]
    for attempt in attempts:
        with pytest.raises(CallFailed):
            attempt()
    assert told == []
    accept(signed(), serving)
    assert told == [NONCE]


def test_a_module_may_be_called_backwater_too() -> None:
    serving = serving_of(exposed=Exposed(backwater=Tasks()))
    head = signed(path="/backwater/2/backwater/add")
    exchange = arrive(serving, head)
    assert serving.form(exchange).find_function(KEY, calls_of(exchange).calls[0]).name == "add"
