"""Everything bad that may come over a socket in version 1: each gets its own refusal, never a 500, and hurts nobody."""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backwater_tornado.errors import ErlangError
from backwater_tornado.exposure import Exposed
from backwater_tornado.options import ErlangOptions
from backwater_tornado.testing import RunningServer, running_server
from tests.erlang.wire import (
    SECRET,
    TYPE,
    Answer,
    connected,
    exchange,
    fields_of,
    raw,
    request_of,
    sha256,
    signed,
)
from tests.vectors.erlang import CAPTURED

MIB = 1 << 20
#: [1, 2]
ADD = b"\x83k\0\2\1\2"
#: {return, 3}
THREE = b"\x83h\2w\6returna\3"
NONE = b"\x83j"


class Half(ErlangError):
    def __init__(self) -> None:
        """Without what an `ErlangError` has."""


class Tasks:
    """Exposed as `tasks`; all of them count their runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.entered, self.gate = threading.Event(), threading.Event()

    def add(self, x: int, y: int) -> int:
        self.runs += 1
        return x + y

    def take(self, value: Any) -> bool:
        self.runs += 1
        return True

    def count(self) -> int:
        self.runs += 1
        return self.runs

    def big(self) -> bytes:
        self.runs += 1
        return random.Random(1).randbytes(5000)

    def wait(self) -> int:
        self.runs += 1
        self.entered.set()
        assert self.gate.wait(20)
        return self.runs

    def fail(self, how: str) -> Any:
        self.runs += 1
        if how == "object":
            return object()
        if how == "reason":
            raise ErlangError(reason=object())
        if how == "stack":
            raise ErlangError(reason=7, stack=[object()])
        if how == "half":
            raise Half
        if how == "large":
            raise ErlangError(reason=bytes(9 * MIB))
        if how == "name":
            raise type("X" * 300, (Exception,), {"__module__": "\ud800"})("\ud800")
        return self._sink(how, 900)

    def _sink(self, how: str, depth: int) -> Any:
        if not depth:
            raise ValueError(how * MIB)
        return self._sink(how, depth - 1)


TASKS = Tasks()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(Exposed(tasks=TASKS), SECRET, erlang=True, body_timeout=5.0) as running:
        yield running


@pytest.fixture(autouse=True)
def alive(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever came, the server answers the next call."""
    yield
    if "server" in request.fixturenames:
        answer = exchange(request.getfixturevalue("server").port, request_of(ADD))
        assert answer is not None
        assert (answer.status, answer.body, answer.trusted) == (200, THREE, True)


def asked(server: RunningServer, request: bytes, *, bodiless: bool = False) -> Answer:
    answer = exchange(server.port, request, bodiless=bodiless)
    assert answer is not None
    return answer


def take(body: bytes, **more: Any) -> bytes:
    """A call of `tasks.take` with that body."""
    return request_of(body, "/backwater/1/tasks/take/1", **more)


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


# Refusals ------------------------------------------------------------------------------------------------------------

UNDECODABLE = (400, "unable_to_decode_arguments", True)
NOT_GZIP = (400, "unable_to_uncompress_arguments", True)
LARGE = (413, "", True)
NO_PATH, NO_ARITY = (400, "invalid_path", True), (400, "invalid_arity", True)
FORBIDDEN, NO_FUNCTION = (403, "", True), (404, "function_not_found", True)
PARAMETERS, WRONG = (401, "invalid_header_params", False), (401, "invalid_signature", False)
#: What is wrong with HTTP itself, Tornado refuses: as it likes, and on a connection that it closes.
BROKEN = (400, None, False)

Row = tuple[Callable[[], bytes], tuple[int, str | None, bool]]


def argument(term: bytes) -> Row:
    return lambda: take(b"\x83l\0\0\0\1" + term + b"j"), UNDECODABLE


def gzipped(body: bytes, expected: tuple[int, str | None, bool]) -> Row:
    return lambda: take(body, content_encoding="gzip"), expected


def at(target: str, expected: tuple[int, str | None, bool], **more: Any) -> Row:
    return lambda: request_of(ADD, target, **more), expected


def without(name: str) -> bytes:
    """A good request that has lost one parameter of its signature."""
    fields = signed(fields_of(ADD))
    kept = [part for part in fields["authorization"].removeprefix("Signature ").split(",") if name not in part[:10]]
    return raw("POST", "/backwater/1/tasks/add/2", {**fields, "authorization": f"Signature {','.join(kept)}"}, ADD)


def authorized(change: Callable[[str], str]) -> bytes:
    """A good request with another `authorization`."""
    fields = signed(fields_of(ADD))
    fields["authorization"] = change(fields["authorization"])
    return raw("POST", "/backwater/1/tasks/add/2", fields, ADD)


def covering(names: list[str], **more: str) -> bytes:
    fields = fields_of(ADD, **more)
    return raw("POST", "/backwater/1/tasks/add/2", signed(fields, names=names), ADD)


_GOOD = gzip.compress(b"\x83l\0\0\0\1a\1j")
_BASIC = ["(request-target)", "accept", "content-length", "content-type", "digest", "x-request-id"]
NOT_SIGNED = '{{missing_mandatorily_signed_header,<<"{}">>}}'

ROWS: dict[str, Row] = {
    # Terms
    "nothing": (lambda: take(b""), UNDECODABLE),
    "only a version": (lambda: take(b"\x83"), UNDECODABLE),
    "another version": (lambda: take(b"\x82j"), UNDECODABLE),
    "a list without items": (lambda: take(b"\x83l\0\0\0\1"), UNDECODABLE),
    "a list without an end": (lambda: take(b"\x83l\0\0\0\1a\1"), UNDECODABLE),
    "a list of 4 billion": (lambda: take(b"\x83l\xff\xff\xff\xffa\1j"), UNDECODABLE),
    "a tuple of 4 billion": argument(b"i\xff\xff\xff\xffj"),
    "a map of 4 billion": argument(b"t\xff\xff\xff\xffj"),
    "a binary of 4 GB": argument(b"m\xff\xff\xff\xffj"),
    "a number of 4 GB": argument(b"o\xff\xff\xff\xff\0j"),
    "bits of 4 GB": argument(b"M\xff\xff\xff\xff\7j"),
    "a fun of 4 GB": argument(b"p\xff\xff\xff\xffj"),
    "a reference of 65535 words": argument(b"Z\xff\xffw\1a"),
    "a compressed term": (lambda: take(b"\x83P" + u32(6) + zlib.compress(b"l\0\0\0\1a\1j")), UNDECODABLE),
    "a compressed bomb": (lambda: take(b"\x83P\xff\xff\xff\xff" + zlib.compress(bytes(8 * MIB))), UNDECODABLE),
    "lists in lists": argument(b"l\0\0\0\1" * 100_000),
    "whole lists in lists": argument(b"l\0\0\0\1" * 1000 + b"j" * 1001),
    "tuples in tuples": argument(b"h\1" * 100_000 + b"j"),
    "maps in maps": argument(b"t\0\0\0\1a\1" * 10_000 + b"j"),
    "maps as keys": argument(b"t\0\0\0\1" * 1000 + b"j" + b"a\1" * 1000),
    "two million empty lists": (lambda: take(b"\x83l" + u32(2_000_000) + b"j" * 2_000_001), UNDECODABLE),
    "an atom of 256": argument(b"v\1\0" + b"a" * 256),
    "an atom that is no UTF-8": argument(b"w\1\xff"),
    "not a number": argument(b"F\x7f\xf8\0\0\0\0\0\0"),
    **{f"tag {tag}": argument(bytes([tag])) for tag in (0, 68, 69, 80, 82, 121, 131, 255)},
    "a tuple of arguments": (lambda: take(b"\x83h\1a\1"), (400, "arguments_not_a_list", True)),
    "an improper list": (lambda: take(b"\x83l\0\0\0\1a\1a\2"), (400, "arguments_not_a_list", True)),
    "another number of them": (lambda: take(ADD), (400, "inconsistent_arguments_arity", True)),
    # Gzip
    "a bomb": gzipped(gzip.compress(bytes(100 * MIB)), LARGE),
    "cut gzip": gzipped(_GOOD[:-1], NOT_GZIP),
    "gzip without its body": gzipped(_GOOD[:10], NOT_GZIP),
    "gzip with another sum": gzipped(_GOOD[:-8] + bytes(8), NOT_GZIP),
    "nothing as gzip": gzipped(b"", NOT_GZIP),
    "zlib": gzipped(zlib.compress(b"\x83j"), NOT_GZIP),
    # Signatures
    "bad base64": (lambda: authorized(lambda value: value[:-3] + '%"'), PARAMETERS),
    "base64 of another alphabet": (lambda: authorized(lambda value: value[:-4] + '-_="'), PARAMETERS),
    "latin base64": (lambda: authorized(lambda value: value[:-2] + '\xe9"'), PARAMETERS),
    "no signature": (lambda: without("signature"), WRONG),
    "an empty signature": (
        lambda: authorized(lambda value: value.partition(',signature="')[0] + ',signature=""'),
        WRONG,
    ),
    "half a signature": (
        lambda: authorized(lambda value: value.partition(',signature="')[0] + f',signature="{"A" * 20}"'),
        WRONG,
    ),
    "no headers": (lambda: without("headers"), (401, "missing_signed_header_list", False)),
    "no key": (lambda: without("keyId"), (401, "unknown_key", False)),
    "no algorithm": (lambda: without("algorithm"), (401, "unknown_algorithm", False)),
    "another algorithm later": (
        lambda: authorized(lambda value: value + ',algorithm="none"'),
        (401, "unknown_algorithm", False),
    ),
    "another list later": (
        lambda: authorized(lambda value: value + ',headers="(request-target) digest x-request-id"'),
        (401, NOT_SIGNED.format("accept"), False),
    ),
    "the field twice": (lambda: request_of(ADD, unsigned="authorization: Signature x\r\n"), PARAMETERS),
    "another field twice": (lambda: request_of(ADD, unsigned="x-request-id: again\r\n"), WRONG),
    "very long parameters": (lambda: authorized(lambda value: value + ',x="' + "x" * 4096 + '"'), PARAMETERS),
    "very many names": (
        lambda: covering(["x-request-id"] * 250),
        (401, '{missing_mandatory_header,<<"(request-target)">>}', False),
    ),
    "a long field named very often": (
        lambda: covering([*_BASIC, "accept-encoding", *["a"] * 1500], a="x" * 8000),
        PARAMETERS,
    ),
    "accept-encoding not signed": (lambda: covering(_BASIC), (401, NOT_SIGNED.format("accept-encoding"), False)),
    "a ghost": (
        lambda: authorized(lambda value: value.replace(" digest", " digest ghost")),
        (401, '{missing_header,<<"ghost">>}', False),
    ),
    "another secret": (
        lambda: raw("POST", "/backwater/1/tasks/add/2", signed(fields_of(ADD), secret=bytes(32)), ADD),
        WRONG,
    ),
    "no digest of the body": (lambda: request_of(ADD, sent=b"\x83k\0\2\1\3"), (401, "wrong_arguments_digest", True)),
    # Paths
    "encoded slashes": at("/backwater/1/tasks%2Fadd%2F2", NO_PATH),
    "encoded dots": at("/backwater/1/tasks/%2e%2e/2", NO_FUNCTION),
    "encoded dots for a module": at("/backwater/1/%2e%2e/add/2", FORBIDDEN),
    "dots across the root": at("/backwater/1/../../../backwater/2/tasks/add", NO_PATH),
    "dots to the other version": at("/backwater/1/../2/tasks/add", NO_ARITY),
    "a module encoded twice": at("/backwater/1/%2574asks/add/2", FORBIDDEN),
    "a slash encoded twice": at("/backwater/1/tasks%252Fadd/add/2", FORBIDDEN),
    "no UTF-8": at("/backwater/1/tasks/%ff%fe/2", NO_PATH),
    "surrogates": at("/backwater/1/tasks/%ed%a0%80/2", NO_PATH),
    "overlong": at("/backwater/1/tasks/%c0%af/2", NO_PATH),
    "raw latin": at("/backwater/1/tasks/\xe9/2", NO_FUNCTION),
    "zeros": at("/backwater/1/tasks/add%00/2", NO_FUNCTION),
    "line breaks": at("/backwater/1/tasks%0d%0aa:b/add/2", FORBIDDEN),
    "names that are not latin": at("/backwater/1/%E4%BB%BB%E5%8A%A1/%F0%9F%98%80/2", FORBIDDEN),
    "broken percents": at("/backwater/1/tasks/%2/2", NO_FUNCTION),
    "a query": at("/backwater/1/tasks/add/2?x=1", NO_PATH),
    "a split arity": at("/backwater/1/tasks/add/?2", NO_PATH),
    "huge arity": at("/backwater/1/tasks/add/" + "9" * 5000, NO_ARITY),
    "other digits": at("/backwater/1/tasks/add/%D9%A2", NO_ARITY),
    "a superscript": at("/backwater/1/tasks/add/%C2%B2", NO_ARITY),
    "an underscore": at("/backwater/1/tasks/add/0_2", NO_ARITY),
    "hidden": at("/backwater/1/tasks/_sink/2", NO_FUNCTION),
    "an attribute": at("/backwater/1/tasks/__class__/2", NO_FUNCTION),
    # Methods and lengths
    "GET": at("/backwater/1/tasks/add/2", (405, "", True), method="GET"),
    "PUT": at("/backwater/1/tasks/add/2", (405, "", True), method="PUT"),
    "post": at("/backwater/1/tasks/add/2", (405, "", True), method="post"),
    "9 MiB": (lambda: take(bytes(9 * MIB)), LARGE),
    "9 MiB of nobody's": (lambda: request_of(ADD, content_length=str(9 * MIB)).replace(b"POST", b"PUT"), WRONG),
    "a length that is no number": at("/backwater/1/tasks/add/2", LARGE, content_length="x"),
    "two lengths": (lambda: request_of(ADD, unsigned="content-length: 7\r\n"), WRONG),
    "a length in chunks": (
        lambda: request_of(ADD, unsigned="transfer-encoding: chunked\r\n", sent=b"6\r\n" + ADD + b"\r\n0\r\n\r\n"),
        LARGE,
    ),
    "chunks": (
        lambda: request_of(
            ADD, content_length=None, unsigned="transfer-encoding: chunked\r\n", sent=b"6\r\n" + ADD + b"\r\n0\r\n\r\n"
        ),
        LARGE,
    ),
    "a shorter body": (
        lambda: request_of(ADD, content_length="5", sent=ADD[:5]),
        (401, "wrong_arguments_digest", True),
    ),
    "a field of zeros": (lambda: request_of(ADD, x_request_id="a\0b"), BROKEN),
    "a name with blanks": (lambda: request_of(ADD, unsigned="x y: z\r\n"), BROKEN),
    "a folded field": (lambda: request_of(ADD, unsigned="x: y\r\n z\r\n"), BROKEN),
}


@pytest.mark.parametrize(("made", "expected"), ROWS.values(), ids=ROWS.keys())
def test_each_is_refused_by_its_name(
    server: RunningServer, made: Callable[[], bytes], expected: tuple[int, str | None, bool]
) -> None:
    before = TASKS.runs
    answer = asked(server, made())
    status, word, trusted = expected
    assert (answer.status, answer.trusted) == (status, trusted)
    assert word is None or answer.body.decode() == word
    assert ("www-authenticate" in answer.fields) is (status == 401)
    assert TASKS.runs == before


@pytest.mark.parametrize(
    "target",
    [
        "/backwater/1%2Ftasks/add/2",
        "/backwater/%31/tasks/add/2",
        "//backwater/1/tasks/add/2",
        "/backwater/10/tasks/add/2",
    ],
)
def test_what_only_looks_like_version_1_is_not(server: RunningServer, target: str) -> None:
    before = TASKS.runs
    assert asked(server, request_of(ADD, target)).status == 404
    assert TASKS.runs == before


def test_a_head_is_answered_without_a_body(server: RunningServer) -> None:
    answer = asked(server, request_of(ADD, method="HEAD"), bodiless=True)
    assert answer.status == 405


def test_a_body_that_does_not_come_ends_the_connection(server: RunningServer) -> None:
    before = TASKS.runs
    with connected(server.port) as connection:
        connection.send(request_of(ADD, sent=ADD[:3]))
        connection.socket.shutdown(1)
        assert connection.read() is None
    assert TASKS.runs == before


@pytest.mark.parametrize(
    "unsigned", ["transfer-encoding: chunked\r\n", "content-length: 6\r\n", "content-length: 7\r\n"]
)
def test_nothing_is_smuggled_in_a_body_whose_length_is_in_doubt(server: RunningServer, unsigned: str) -> None:
    before = TASKS.runs
    with connected(server.port) as connection:
        connection.send(request_of(ADD, unsigned=unsigned, sent=b"0\r\n\r\n" + request_of(ADD)))
        first = connection.read()
        assert first is None or first.status in (400, 401, 413)
        assert connection.read() is None
    assert TASKS.runs == before


def test_a_longer_body_is_the_next_request(server: RunningServer) -> None:
    with connected(server.port) as connection:
        connection.send(request_of(ADD) + b"junk\r\n\r\n")
        first, second = connection.read(), connection.read()
    assert first is not None
    assert (first.status, first.trusted) == (200, True)
    assert second is None or (second.status, second.trusted) == (400, False)


# What passes, and how ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_id", ["", "a" * 4096, "\xe9\xff\xa0b", '";,=<>(){}%0d%0aSet-Cookie: x', "a: b", "\t x  y"]
)
def test_an_odd_request_id_comes_back_as_it_was_and_no_other_field_with_it(
    server: RunningServer, request_id: str
) -> None:
    answer = asked(server, request_of(ADD, x_request_id=request_id))
    assert (answer.status, answer.body, answer.trusted) == (200, THREE, True)
    assert answer.fields["x-request-id"] == request_id.strip(" \t")
    assert set(answer.fields) == {
        *("cache-control", "content-length", "content-type", "digest", "expires", "pragma", "signature"),
        "x-request-id",
    }


def test_what_a_proxy_may_alter_alters_nothing(server: RunningServer) -> None:
    before = TASKS.runs
    unsigned = "connection: close\r\nexpect: 200-ok\r\nvia: x\r\ncookie: y\r\nx-http-method-override: DELETE\r\n"
    answer = asked(server, request_of(ADD, unsigned=unsigned).replace(b"host: server", b"host: evil"))
    assert (answer.status, answer.trusted, TASKS.runs) == (200, True, before + 1)


def test_an_old_version_of_http_will_do(server: RunningServer) -> None:
    assert asked(server, request_of(ADD, version="1.0")).body == THREE


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("object", b"result_unserializable"),
        ("reason", b"unserializable_reason"),
        ("stack", b"h\3w\5errora\7j"),
        ("half", b"Half"),
        ("large", b"reason_too_large"),
        ("name", b"unserializable_reason"),
        ("long", b"ValueError"),
    ],
)
def test_whatever_a_function_raises_travels(server: RunningServer, how: str, reason: bytes) -> None:
    body = b"\x83l\0\0\0\1m" + u32(len(how)) + how.encode() + b"j"
    answer = asked(server, request_of(body, "/backwater/1/tasks/fail/1", accept_encoding=None))
    assert (answer.status, answer.trusted) == (200, True)
    assert answer.body.startswith(b"\x83h\2w\x09exception")
    assert reason in answer.body
    assert len(answer.body) < 32_768


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("made", ["gzip", "compressed", "names"])
def test_what_is_small_and_wants_to_be_large_stays_small(server: RunningServer, made: str) -> None:
    if made == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        packed = b"".join(packer.compress(bytes(4 * MIB)) for _ in range(128)) + packer.flush()
        request, room = take(packed, content_encoding="gzip"), 24 * MIB
    elif made == "compressed":
        request, room = take(b"\x83P\xff\xff\xff\xff" + zlib.compress(bytes(64 * MIB))), 4 * MIB
    else:
        request, room = ROWS["a long field named very often"][0](), MIB
    tracemalloc.start()
    try:
        assert asked(server, request).status in (400, 401, 413)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < room


# Again ---------------------------------------------------------------------------------------------------------------


def test_the_same_bytes_get_the_same_answer_and_run_once(server: RunningServer) -> None:
    request = request_of(NONE, "/backwater/1/tasks/count/0")
    first, second = asked(server, request), asked(server, request)
    assert (first.status, first.trusted, second.trusted) == (200, True, True)
    assert first == second
    assert asked(server, request_of(NONE, "/backwater/1/tasks/count/0")).body != first.body


def test_what_is_not_signed_does_not_make_it_another(server: RunningServer) -> None:
    fields = signed(fields_of(NONE), "/backwater/1/tasks/count/0")
    first = asked(server, raw("POST", "/backwater/1/tasks/count/0", fields, NONE))
    before = TASKS.runs
    parts = fields["authorization"].removeprefix("Signature ").split(",")
    for change in (
        {"authorization": "Signature " + ",,".join(reversed(parts)) + ',x="y"'},
        {"authorization": fields["authorization"].replace("(request-target) ", "(request-target)   ")},
        {"x-other": "1"},
    ):
        again = asked(server, raw("POST", "/backwater/1/tasks/count/0", {**fields, **change}, NONE))
        assert again.body == first.body
    again = asked(server, raw("POST", "/backwater/1/tasks/count/0?", fields, NONE))
    assert again.body == first.body
    assert TASKS.runs == before


def test_of_a_large_answer_only_that_it_was_given_is_kept(server: RunningServer) -> None:
    before = TASKS.runs
    request = request_of(NONE, "/backwater/1/tasks/big/0")
    assert asked(server, request).status == 200
    again = asked(server, request)
    assert (again.status, again.body, again.trusted) == (409, b"already_answered", True)
    assert TASKS.runs == before + 1


def test_two_at_the_same_time_run_once_and_both_are_answered(server: RunningServer) -> None:
    before = TASKS.runs
    TASKS.entered.clear()
    TASKS.gate.clear()
    request = request_of(NONE, "/backwater/1/tasks/wait/0")
    with connected(server.port) as first, connected(server.port) as second:
        first.send(request)
        assert TASKS.entered.wait(20)
        second.send(request)
        _until_joined(server)
        TASKS.gate.set()
        one, other = first.read(), second.read()
    assert one == other
    assert one is not None
    assert (one.status, TASKS.runs) == (200, before + 1)


def _until_joined(server: RunningServer) -> None:
    """Until a repetition waits for the run in progress."""
    dispatcher = server.run(lambda: server.server.service.dispatcher)
    until = time.monotonic() + 20
    while not server.run(lambda: any(run.joined for run in dispatcher._running.values())):
        assert time.monotonic() < until


def test_without_a_window_it_runs_again() -> None:
    tasks = Tasks()
    with running_server(Exposed(tasks=tasks), SECRET, erlang=ErlangOptions(replay_window=0)) as server:
        request = request_of(NONE, "/backwater/1/tasks/count/0")
        assert asked(server, request).body != asked(server, request).body
    assert tasks.runs == 2


def test_after_a_restart_with_a_state_file_it_has_run(tmp_path: Path) -> None:
    tasks = Tasks()
    request = request_of(NONE, "/backwater/1/tasks/count/0")
    answers = []
    for _ in range(2):
        with running_server(Exposed(tasks=tasks), SECRET, erlang=True, state=str(tmp_path / "state")) as server:
            answers.append(asked(server, request))
    assert answers[0] == answers[1]
    assert answers[0].status == 200
    assert tasks.runs == 1


# Anything ------------------------------------------------------------------------------------------------------------

GENUINE = [each.request for each in CAPTURED.values() if len(each.request) < 4096 and each.name != "x_slow_body"]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A genuine request, or one of ours, with a few bytes changed, left out, doubled or put in."""
    request = bytearray(draw(st.sampled_from([*GENUINE, request_of(ADD, x_request_id="x"), take(NONE)])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(request) - 1)))
        length = draw(st.integers(0, 8))
        put = draw(st.one_of(st.binary(max_size=6), st.just(bytes(request[at : at + length]) * 2)))
        request[at : at + length] = put
    return bytes(request)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(request=mutated())
def test_no_mutation_is_a_500_or_runs_unsigned(server: RunningServer, request: bytes) -> None:
    before = TASKS.runs
    with connected(server.port) as connection:
        connection.send(request)
        connection.socket.shutdown(1)  # a length that became greater ends there
        answer = connection.read(secret=SECRET)
    assert answer is None or answer.status != 500
    if answer is None or not answer.trusted:
        assert TASKS.runs == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(body=st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"\x83l\0\0\0\1" + tail)))
def test_any_body_of_a_key_holder_is_answered(server: RunningServer, body: bytes) -> None:
    answer = asked(server, take(body))
    assert (answer.status in (200, 400), answer.trusted) == (True, True)


def test_the_vectors_are_not_signed_with_our_secret() -> None:
    # So that what is said of mutations above is said of strangers.
    assert all(each.secret != SECRET for each in CAPTURED.values())
    assert sha256(b"") == "SHA-256=" + base64.b64encode(hashlib.sha256(b"").digest()).decode()
    assert TYPE == "application/x-erlang-etf"
