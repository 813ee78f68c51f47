"""The server's half of version 1, step by step."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from backwater_tornado import expose
from backwater_tornado.errors import (
    BodyTooLarge,
    Draining,
    InternalError,
    NotExposed,
    NotInScope,
    Overloaded,
    UnknownFunction,
    UnknownModule,
)
from backwater_tornado.exposure import Exposed, Exposure
from backwater_tornado.options import ErlangOptions
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.serving import PART, STREAM, ErlangServing, Rejected, challenge, tell
from backwater_tornado.protocol.keys import Key, KeyRing, Scopes
from backwater_tornado.protocol.memory import CallId, Recorded
from backwater_tornado.protocol.messages import Call
from backwater_tornado.protocol.serving import Exchange
from backwater_tornado.protocol.signatures import RequestHead
from tests.erlang import wire as erlang_wire
from tests.erlang.wire import SECRET, fields_of, signed
from tests.wire import NOW, serving_of

ADD = encode_term([1, 2])
TARGET = "/backwater/1/tasks/add/2"
KEY = Key(SECRET, "erlang")


class Names:
    """A function with a name that needs encoding."""

    @expose(name="a/b")
    def slash(self) -> None:
        pass

    @expose(name="ü")
    def umlaut(self) -> None:
        pass

    @expose
    def many(self, *args: int) -> None:
        pass

    def hidden(self) -> None:
        pass


class Tasks:
    def add(self, x: int, y: int = 0) -> int:
        return x + y


def server_of(keys: object = KEY, erlang: ErlangOptions | None = None, **options: Any) -> ErlangServing:
    exposed = Exposed(tasks=Tasks(), names=Names())
    return ErlangServing(serving_of(keys, exposed, **options), erlang or ErlangOptions())


def head_of(fields: dict[str, str], target: str = TARGET, method: str = "POST") -> RequestHead:
    path, _, query = target.partition("?")
    return RequestHead(method, "host", path, query, fields)


def head_for(target: str = TARGET, body: bytes = ADD, method: str = "POST", **more: str | None) -> RequestHead:
    """A signed head."""
    return head_of(signed(fields_of(body, **more), target, method=method), target, method)


def arrived(head: RequestHead, body: bytes = ADD, server: ErlangServing | None = None, now: float = NOW) -> Exchange:
    server = server or server_of()
    exchange = Exchange(head, now)
    server.accept_head(exchange)
    exchange.body, exchange.digest = body, hashlib.sha256(body).digest()
    exchange.batch = server.accept_body(exchange)
    return exchange


def refused(
    head: RequestHead, body: bytes = ADD, server: ErlangServing | None = None, now: float = NOW
) -> tuple[int, str, bool]:
    """Status, body, and whether the answer is signed."""
    server = server or server_of()
    exchange = Exchange(head, now)
    try:
        server.accept_head(exchange)
        exchange.body, exchange.digest = body, hashlib.sha256(body).digest()
        server.accept_body(exchange)
    except (Rejected, UnknownModule, UnknownFunction, NotExposed) as error:
        response = server.refuse(exchange, error, now)
        is_signed = erlang_wire.fits(response.status, dict(response.fields), response.body, SECRET)
        assert is_signed is ("x-request-id" in response.fields)
        assert response.fields["content-type"] == "text/plain"
        assert ("www-authenticate" in response.fields) is (response.status == 401)
        return response.status, response.body.decode(), is_signed
    raise AssertionError("not refused")


def call_of(exchange: Exchange) -> Call:
    assert exchange.batch is not None
    (call,) = exchange.batch.calls
    return call


# What passes ---------------------------------------------------------------------------------------------------------


def test_a_good_request_is_a_call() -> None:
    head = head_for()
    exchange = arrived(head)
    mac = base64.b64decode(head.fields["authorization"].rpartition('signature="')[2][:-1])
    number = int.from_bytes(mac[:8], "big") & (2**63 - 1)
    assert call_of(exchange) == Call("tasks", "add", ADD, call_id=CallId(STREAM, number), kept=60.0, part=PART)
    assert (exchange.key, exchange.arity) == (KEY, 2)
    assert exchange.verified is not None
    assert exchange.verified.parameters.created == int(NOW)
    assert exchange.field("host") is None  # not signed, so not read
    assert exchange.field("x-request-id") == head.fields["x-request-id"]
    form = server_of().form(exchange)
    assert (form.arity, form.none, form.known_atoms) == (2, "undefined", None)


def test_the_same_bytes_are_the_same_call_and_others_are_not() -> None:
    head = head_for()
    assert call_of(arrived(head)).call_id == call_of(arrived(head, now=NOW + 5)).call_id
    assert call_of(arrived(head)).call_id != call_of(arrived(head_for())).call_id


def test_no_keys_id_is_that_part_of_the_memory() -> None:
    with pytest.raises(ValueError, match="quotes"):
        Key(SECRET, PART + "erlang")


def test_without_a_window_no_call_has_a_number() -> None:
    call = call_of(arrived(head_for(), server=server_of(erlang=ErlangOptions(replay_window=0))))
    assert call.call_id is None


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("/backwater/1/tasks/add/2", ("tasks", "add", 2)),
        ("/backwater/1/tasks/add/2/", ("tasks", "add", 2)),
        ("/backwater/1//tasks/./add//2", ("tasks", "add", 2)),
        ("/backwater/1/../../names/../tasks/add/2", ("tasks", "add", 2)),
        ("/base/backwater/1/tasks/add/2", ("tasks", "add", 2)),
        ("/backwater/1/tasks/add/2?", ("tasks", "add", 2)),
        ("/backwater/1/t%61sks/add/%32", ("tasks", "add", 2)),
        ("/backwater/1/tasks/add/+2", ("tasks", "add", 2)),
        ("/backwater/1/tasks/add/000000002", ("tasks", "add", 2)),
        ("/backwater/1/names/a%2Fb/0", ("names", "a/b", 0)),
        ("/backwater/1/names/%C3%BC/0", ("names", "ü", 0)),
        ("/backwater/1/names/many/255", ("names", "many", 255)),
        ("/backwater/1/tasks/add/1", ("tasks", "add", 1)),
    ],
)
def test_a_path_names_module_function_and_arity(target: str, names: tuple[str, str, int]) -> None:
    exchange = arrived(head_for(target))
    assert (*(exchange.target or ()), exchange.arity) == names


@pytest.mark.parametrize(
    "more",
    [
        {"accept_encoding": None},
        {"accept": f"text/plain, {erlang_wire.TYPE};q=0.1"},
        {"content_type": "Application/X-Erlang-ETF; version=1"},
        {"content_encoding": "identity"},
        {"x_request_id": ""},
        {"x_request_id": "é ; % \t x" * 400},
        {"extra": "signed too"},
    ],
)
def test_other_fields_pass_too(more: dict[str, str | None]) -> None:
    assert call_of(arrived(head_for(**more))).arguments == ADD


def test_what_is_not_signed_is_not_read() -> None:
    head = head_for()
    head = replace(head, fields={**head.fields, "host": "evil", "expect": "100-continue", "connection": "upgrade"})
    assert call_of(arrived(head)).arguments == ADD


def test_a_gzipped_body_is_inflated_behind_its_digest() -> None:
    body = gzip.compress(ADD)
    exchange = arrived(head_for(body=body, content_encoding="gzip"), body)
    assert call_of(exchange).arguments == ADD


# What does not -------------------------------------------------------------------------------------------------------


def without(name: str) -> RequestHead:
    head = head_for()
    return replace(head, fields={key: value for key, value in head.fields.items() if key != name})


def changed(**more: str) -> RequestHead:
    head = head_for()
    return replace(head, fields={**head.fields, **{name.replace("_", "-"): value for name, value in more.items()}})


def covering(*names: str) -> RequestHead:
    return head_of(signed(fields_of(ADD), names=names))


NOT_SIGNED = '{{missing_mandatorily_signed_header,<<"{}">>}}'
UNSIGNED = [
    (without("authorization"), "missing_authorization_header"),
    (changed(authorization="Basic abc"), "invalid_auth_type"),
    (changed(authorization='signature algorithm="hmac-sha256"'), "invalid_auth_type"),
    (changed(authorization="Signature junk"), "invalid_header_params"),
    (changed(authorization='Signature keyId="other"'), "unknown_key"),
    (covering("digest", "x-request-id"), '{missing_mandatory_header,<<"(request-target)">>}'),
    (covering("(request-target)", "digest", "x-request-id"), NOT_SIGNED.format("accept")),
    (changed(content_encoding="gzip"), NOT_SIGNED.format("content-encoding")),
    (
        covering("(request-target)", "accept", "content-length", "content-type", "digest", "x-request-id"),
        NOT_SIGNED.format("accept-encoding"),
    ),
    (without("accept-encoding"), '{missing_header,<<"accept-encoding">>}'),
    (changed(digest="x"), "invalid_signature"),
    (changed(x_request_id="x"), "invalid_signature"),
    (replace(head_for(), path="/backwater/1/tasks/add/1"), "invalid_signature"),
    (replace(head_for(), path="/backwater/1/tasks/ADD/2"), "invalid_signature"),
    (replace(head_for(), query="x"), "invalid_signature"),
    (replace(head_for(), method="PUT"), "invalid_signature"),
]


@pytest.mark.parametrize(("head", "word"), UNSIGNED, ids=[word for _, word in UNSIGNED])
def test_without_a_good_signature_nothing_is_looked_at_nor_signed(head: RequestHead, word: str) -> None:
    assert refused(head) == (401, word, False)


def test_a_response_is_no_request() -> None:
    # Whatever the server signs has no (request-target).
    server = server_of()
    response = server.respond(arrived(head_for()), Recorded(True, 200, "x", b""), NOW, {})
    fields = dict(response.fields)
    fields["authorization"] = "Signature " + fields.pop("signature")
    word = '{missing_mandatory_header,<<"(request-target)">>}'
    assert refused(head_of({**fields, "(response-status)": "200"})) == (401, word, False)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "post"])
def test_calls_are_made_with_post(method: str) -> None:
    assert refused(head_for("/zzz", method=method)) == (405, "", True)


SIGNED = [
    ("/backwater/1", {}, 400, "invalid_path"),
    ("/backwater/1/tasks/add", {}, 400, "invalid_path"),
    ("/backwater/1/tasks/add/2/3", {}, 400, "invalid_path"),
    ("/backwater/1/tasks/add/2/..", {}, 400, "invalid_path"),
    ("/backwater/1/tasks/add/1?2", {}, 400, "invalid_path"),
    ("/backwater/1/../../backwater/2/tasks/add", {}, 400, "invalid_path"),
    ("/backwater/1/tasks%2Fadd%2F2", {}, 400, "invalid_path"),
    ("/backwater/1/tasks/%ff/2", {}, 400, "invalid_path"),
    ("/backwater/1/tasks/add/", {}, 400, "invalid_path"),
    ("/backwater/1/tasks/add/-1", {}, 400, "invalid_arity"),
    ("/backwater/1/tasks/add/++1", {}, 400, "invalid_arity"),
    ("/backwater/1/tasks/add/256", {}, 400, "invalid_arity"),
    ("/backwater/1/tasks/add/0000000002", {}, 400, "invalid_arity"),
    ("/backwater/1/tasks/add/" + "9" * 7000, {}, 400, "invalid_arity"),
    ("/backwater/1/tasks/add/%D9%A2", {}, 400, "invalid_arity"),
    ("/backwater/1/tasks/add/%C2%B2", {}, 400, "invalid_arity"),
    ("/backwater/1/tasks/add/%20", {}, 400, "invalid_arity"),
    ("/backwater/1/other/add/2", {}, 403, ""),
    ("/backwater/1/%2e%2e/add/2", {}, 403, ""),
    ("/backwater/1/t%2561sks/add/2", {}, 403, ""),
    ("/backwater/1/tasks%00/add/2", {}, 403, ""),
    ("/backwater/1/names/hidden/0", {}, 404, "function_not_found"),
    ("/backwater/1/tasks/other/2", {}, 404, "function_not_found"),
    ("/backwater/1/tasks/add/0", {}, 404, "function_not_found"),
    ("/backwater/1/tasks/add/3", {}, 404, "function_not_found"),
    (TARGET, {"content_type": None}, 400, "bad_content_type"),
    (TARGET, {"content_type": "x"}, 400, "bad_content_type"),
    (TARGET, {"accept": "x"}, 400, "bad_accept"),
    (TARGET, {"accept_encoding": "g z"}, 400, "bad_accept_encoding"),
    (TARGET, {"content_type": "text/plain"}, 415, "unsupported_content_type"),
    (TARGET, {"content_encoding": "GZIP"}, 415, "unsupported_content_encoding"),
    (TARGET, {"content_encoding": "gzip\xa0"}, 415, "unsupported_content_encoding"),
    (TARGET, {"accept": None}, 406, ""),
    (TARGET, {"accept": "*/*"}, 406, ""),
    (TARGET, {"transfer_encoding": "chunked", "content_length": None}, 413, ""),
    (TARGET, {"content_length": "-1"}, 413, ""),
    (TARGET, {"content_length": "²"}, 413, ""),
    (TARGET, {"content_length": "0" * 16}, 413, ""),
    (TARGET, {"content_length": str(8 * 1024 * 1024 + 1)}, 413, ""),
    (TARGET, {"digest": "x"}, 401, "wrong_arguments_digest"),
    (TARGET, {"digest": erlang_wire.sha256(b"")}, 401, "wrong_arguments_digest"),
    (TARGET, {"content_encoding": "gzip"}, 400, "unable_to_uncompress_arguments"),
]


@pytest.mark.parametrize(("target", "more", "status", "word"), SIGNED)
def test_a_key_holder_gets_a_signed_refusal(target: str, more: dict[str, str | None], status: int, word: str) -> None:
    assert refused(head_for(target, **more)) == (status, word, True)


def test_a_stated_length_may_be_the_limit() -> None:
    server = server_of(limits={"max_encoded_args_size": 100})
    server.accept_head(Exchange(head_for(content_length="100"), NOW))
    server.accept_head(Exchange(head_for(content_length="0" * 15), NOW))
    assert refused(head_for(content_length="101"), server=server) == (413, "", True)


def test_a_body_is_inflated_up_to_the_limit_and_no_further() -> None:
    server = server_of(limits={"max_encoded_args_size": 1000})
    exactly, beyond = gzip.compress(bytes(1000)), gzip.compress(bytes(1001))
    assert call_of(arrived(head_for(body=exactly, content_encoding="gzip"), exactly, server)).arguments == bytes(1000)
    assert refused(head_for(body=beyond, content_encoding="gzip"), beyond, server) == (413, "", True)


def test_a_missing_length_means_no_body() -> None:
    exchange = Exchange(head_for(content_length=None), NOW)
    server_of().accept_head(exchange)


def test_the_answer_repeats_the_request_id_as_it_was_signed() -> None:
    exchange = arrived(head_for(x_request_id="\xa0 odd \x85"))
    response = server_of().respond(exchange, Recorded(True, 200, "x", b""), NOW, {})
    assert response.fields["x-request-id"] == "\xa0 odd \x85"


# Keys ----------------------------------------------------------------------------------------------------------------


OTHER = Key(bytes(range(50, 90)), "other")


def key(id: str = "k", **more: Any) -> Key:
    return Key(SECRET, id, **more)


@pytest.mark.parametrize("algorithm", ["blake2b-256", "hmac-sha256"])
def test_any_key_of_the_ring_may_sign(algorithm: Any) -> None:
    for ring in ([key(algorithm=algorithm), OTHER], [OTHER, key(algorithm=algorithm)]):
        assert arrived(head_for(), server=server_of(ring)).key.id == "k"


def test_a_key_is_taken_while_it_is_valid() -> None:
    server = server_of([key(not_before=NOW, not_after=NOW + 10)], clock_tolerance=5)
    for now in (NOW - 5, NOW, NOW + 10):
        assert arrived(head_for(), server=server, now=now).key.id == "k"
    for now in (NOW - 5.1, NOW + 10.1):
        assert refused(head_for(), server=server, now=now) == (401, "invalid_signature", False)


def test_of_two_keys_with_one_secret_the_newer_valid_one_signed() -> None:
    server = server_of([key("old"), key("new"), key("next", not_before=NOW + 1000)])
    assert arrived(head_for(), server=server).key.id == "new"


def test_every_key_is_tried_whichever_fits() -> None:
    tried: list[str] = []

    class Watched(Key):
        def mac_plain(self, data: bytes) -> bytes:
            tried.append(self.id)
            return super().mac_plain(data)

    ring = [Watched(bytes(range(n, n + 32)), f"k{n}") for n in (99, 100, 101)]
    assert arrived(head_for(), server=server_of(ring)).key.id == "k100"
    assert sorted(tried) == ["k100", "k101", "k99"]


def test_a_key_calls_what_its_scopes_allow() -> None:
    server = server_of(key(scopes=Scopes(call=("names.*",))))
    assert refused(head_for(), server=server) == (403, "", True)
    assert call_of(arrived(head_for("/backwater/1/names/many/2"), server=server)).module == "names"


def test_version_1_may_have_keys_and_functions_of_its_own() -> None:
    exposure = Exposure.of(Exposed(mine=Tasks()))
    server = ErlangServing(serving_of(OTHER), ErlangOptions(), exposure, KeyRing.of(KEY))
    assert call_of(arrived(head_for("/backwater/1/mine/add/2"), server=server)).module == "mine"
    assert refused(head_for(), server=server) == (403, "", True)
    assert server.form(arrived(head_for("/backwater/1/mine/add/2"), server=server)).exposure is exposure
    server = ErlangServing(serving_of(KEY), ErlangOptions(), exposure, KeyRing.of(OTHER))
    assert refused(head_for("/backwater/1/mine/add/2"), server=server) == (401, "invalid_signature", False)


def test_only_known_atoms_are_taken_where_that_is_wished() -> None:
    options = ErlangOptions(decode_unsafe_terms=False, atoms=["one"], none="nil")
    server = server_of(erlang=options)
    assert server.known_atoms == {"one", "tasks", "add", "names", "a/b", "ü", "many"}
    form = server.form(arrived(head_for(), server=server))
    assert (form.known_atoms, form.none) == (server.known_atoms, "nil")


# Answers -------------------------------------------------------------------------------------------------------------


def response_to(answer: Recorded, extra: dict[str, str] | None = None, **more: str | None) -> Any:
    return server_of().respond(arrived(head_for(**more)), answer, NOW, extra or {})


def test_a_result_is_never_cached() -> None:
    response = response_to(Recorded(True, 200, erlang_wire.TYPE, b"small"), {"x": "y"}, x_request_id="id")
    names = "(response-status) cache-control content-length content-type digest expires pragma x x-request-id"
    assert response.fields.pop("signature").split(",")[1] == f'headers="{names}"'
    assert response.fields == {
        "content-type": erlang_wire.TYPE,
        "x": "y",
        "cache-control": "private, no-cache, no-store, must-revalidate",
        "expires": "0",
        "pragma": "no-cache",
        "content-length": "5",
        "digest": erlang_wire.sha256(b"small"),
        "x-request-id": "id",
    }
    assert (response.status, response.body) == (200, b"small")


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("identity, gzip", True),
        ("gzip, identity", False),
        ("gzip;q=0", False),
        ("*", False),
        ("br", False),
        (None, False),
    ],
)
def test_a_result_is_gzipped_where_that_is_preferred(accepted: str | None, packed: bool) -> None:
    response = response_to(Recorded(True, 200, "x", b"a" * 300), accept_encoding=accepted)
    assert ("content-encoding" in response.fields) is packed
    assert (gzip.decompress(response.body) if packed else response.body) == b"a" * 300
    assert response.fields["content-length"] == str(len(response.body))
    assert erlang_wire.fits(200, dict(response.fields), response.body, SECRET)


def test_what_is_small_or_refused_is_not_gzipped() -> None:
    for answer in (Recorded(True, 200, "x", b"a" * 299), Recorded(False, 400, "x", b"a" * 300)):
        response = response_to(answer)
        assert "content-encoding" not in response.fields
        assert response.body == answer.body
    assert "cache-control" not in response.fields


def test_who_did_not_sign_gets_nothing_gzipped() -> None:
    exchange = Exchange(head_of({"accept-encoding": "gzip"}), NOW)
    response = server_of().respond(exchange, Recorded(True, 200, "x", b"a" * 300), NOW, {})
    assert "content-encoding" not in response.fields
    assert "signature" not in response.fields


def test_a_challenge_names_what_should_have_been_signed() -> None:
    fields = {"digest": "", "accept": "", "host": "", "accept-encoding": "", "x-request-id": ""}
    assert challenge(fields) == ('Signature headers="(request-target) accept digest x-request-id",realm="backwater"')
    exchange = Exchange(head_of(fields), NOW)
    response = server_of().refuse(exchange, Rejected(401, "w"), NOW)
    assert response.fields["www-authenticate"] == challenge(fields)


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (Rejected(413), 413, b""),
        (Rejected(400, "word"), 400, b"word"),
        (UnknownModule("m"), 403, b""),
        (NotInScope("m"), 403, b""),
        (UnknownFunction("f"), 404, b"function_not_found"),
        (NotExposed("f"), 404, b"function_not_found"),
        (Overloaded("x"), 503, b"overloaded"),
        (BodyTooLarge("x"), 413, b"body_too_large"),
        (InternalError("x"), 500, b"internal_error"),
    ],
)
def test_a_refusal_is_a_status_and_a_word(error: Any, status: int, body: bytes) -> None:
    assert tell(error) == Recorded(False, status, "text/plain", body)


def test_who_comes_at_a_bad_time_is_told_when_to_come_back() -> None:
    exchange = arrived(head_for())
    assert server_of().refuse(exchange, Draining(), NOW).fields["retry-after"] == "1"
    assert "retry-after" not in server_of().refuse(exchange, InternalError(), NOW).fields


def test_a_refusal_reads_as_its_word_or_status() -> None:
    assert (str(Rejected(413)), str(Rejected(400, "word"))) == ("status 413", "word")
