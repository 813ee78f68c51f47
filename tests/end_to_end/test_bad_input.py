"""Everything bad that may come over a socket: each gets its own error, hurts nobody else, and costs little memory."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest
import zstandard

import backwater_tornado as backwater
from backwater_tornado import errors
from backwater_tornado.protocol.codec import JSON, MSGPACK
from backwater_tornado.protocol.headers import encode_bytes
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.memory import InProcessMemory, MemoryLimits
from backwater_tornado.protocol.signatures import RequestHead, sign_request
from backwater_tornado.testing import RunningServer, running_server
from tests.end_to_end.target import (
    AUTHORITY,
    EARLY,
    KEY,
    LATE,
    MIB,
    SCOPED,
    Answer,
    Target,
    connect,
    exchange,
    write_head,
)
from tests.wire import digest_of, fields_of

Request = tuple[RequestHead | bytes, bytes]
ADD = MSGPACK.encode([[1, 2], {}])
ROOM = 40 * MIB
_NUMBERS = itertools.count(1)
#: A stream of its own for each run, as each client has.
STREAM = f"bad{time.time_ns() % 10**8:08d}"
OTHER_SECRET = Key(bytes(range(9, 41)), "test")
UNKNOWN = Key(bytes(range(9, 41)), "unknown")


def _sign(head: RequestHead, key: Key = KEY, *, ago: float = 0.0, nonce: str | None = None) -> RequestHead:
    created = int(time.time() - ago)
    nonce = f"{STREAM}.{next(_NUMBERS)}" if nonce is None else nonce
    written = sign_request(key, head, created=created, expires=created + 60, nonce=nonce)
    return replace(head, fields={**head.fields, "signature-input": written[0], "signature": written[1]})


def _head(body: bytes = ADD, *, path: str = "/backwater/2/tasks/add", **more: str) -> RequestHead:
    media_type = more.pop("media_type", "application/msgpack")
    return RequestHead("POST", AUTHORITY, path, "", fields_of(body, media_type, **more))


def _with(head: RequestHead, **fields: str | None) -> RequestHead:
    changed = {**head.fields, **{name.replace("_", "-"): value for name, value in fields.items()}}
    return replace(head, fields={name: value for name, value in changed.items() if value is not None})


def _call(body: bytes = ADD, key: Key = KEY, *, ago: float = 0.0, **more: str) -> Request:
    """A good request, but for what is given."""
    return _sign(_head(body, **more), key, ago=ago), body


def _json(text: bytes) -> Request:
    return _call(text, path="/backwater/2/tasks/echo", media_type="application/json")


def _echo(packed: bytes) -> Request:
    """A call of `echo` whose argument is this MessagePack."""
    return _call(b"\x92\x91" + packed + b"\x80", path="/backwater/2/tasks/echo")


def _zstd(body: bytes) -> Request:
    return _call(body, path="/backwater/2/tasks/echo", content_encoding="zstd")


def _stripped(**fields: str | None) -> Request:
    return _with(_call()[0], **fields), ADD  # type: ignore[arg-type]


def _uncovered(name: str) -> Request:
    """A request whose signature leaves one of its fields out."""
    head = _head()
    signed = _sign(_with(head, **{name: None}))
    return replace(signed, fields={**signed.fields, name: head.fields.get(name, "x")}), ADD


def _altered(**changes: str) -> Request:
    head, body = _call()
    return replace(head, **changes), body  # type: ignore[type-var]


def _many(*calls: list[object], settled: int = 0, media_type: str = "application/msgpack") -> Request:
    return _envelope(msgspec.msgpack.encode([STREAM, settled, calls]), media_type)


def _envelope(body: bytes, media_type: str = "application/msgpack") -> Request:
    return _call(body, path="/backwater/2", media_type=media_type)


# Bombs ---------------------------------------------------------------------------------------------------------------

_MAGIC = b"\x28\xb5\x2f\xfd"


def _lying_frame() -> bytes:
    """13 bytes that claim 4 GiB."""
    return _MAGIC + b"\xe0" + (1 << 32).to_bytes(8, "little")


def _honest_frame() -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(64 * MIB))


def _sizeless_frame(size: int) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    piece = bytes(4 * MIB)
    return b"".join([*[compressor.compress(piece) for _ in range(size // len(piece))], compressor.flush()])


def _wide_window() -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(ADD) + compressor.flush()


_GOOD_FRAME = zstandard.ZstdCompressor().compress(ADD)

Row = tuple[str, Callable[[], Request], type[errors.CallFailed], bool]
#: What is sent, what is said, and whether the answer is signed (it is as soon as the request's signature was good).
ROWS: list[Row] = [
    # The key and the signature
    ("another secret", lambda: _call(key=OTHER_SECRET), errors.SignatureInvalid, False),
    ("an unknown key", lambda: _call(key=UNKNOWN), errors.UnknownKey, False),
    ("a key not valid yet", lambda: _call(key=EARLY), errors.KeyNotValid, False),
    ("a key not valid any more", lambda: _call(key=LATE), errors.KeyNotValid, False),
    ("no signature", lambda: _stripped(signature=None, signature_input=None), errors.SignatureMissing, False),
    ("half of a signature", lambda: _stripped(signature=None), errors.SignatureMissing, False),
    ("another label", lambda: _stripped(signature_input="sig1=();created=1"), errors.SignatureMissing, False),
    ("a signature of odd bytes", lambda: _stripped(signature="bw=:%%%:"), errors.SignatureMalformed, False),
    ("an input of odd text", lambda: _stripped(signature_input="bw=("), errors.SignatureMalformed, False),
    ("content-type not covered", lambda: _uncovered("content-type"), errors.SignatureIncomplete, False),
    ("content-digest not covered", lambda: _uncovered("content-digest"), errors.SignatureIncomplete, False),
    ("content-length not covered", lambda: _uncovered("content-length"), errors.SignatureIncomplete, False),
    ("a timeout not covered", lambda: _uncovered("backwater-timeout"), errors.SignatureIncomplete, False),
    ("an idempotency key not covered", lambda: _uncovered("idempotency-key"), errors.SignatureIncomplete, False),
    ("an encoding not covered", lambda: _uncovered("content-encoding"), errors.SignatureIncomplete, False),
    ("an altered header", lambda: _stripped(content_type="application/json"), errors.SignatureInvalid, False),
    ("an altered path", lambda: _altered(path="/backwater/2/tasks/fail"), errors.SignatureInvalid, False),
    ("an altered query", lambda: _altered(query="x=1"), errors.SignatureInvalid, False),
    ("an altered authority", lambda: _altered(authority="other:8080"), errors.SignatureInvalid, False),
    ("another authority", lambda: (_sign(replace(_head(), authority="other:1")), ADD), errors.WrongAuthority, True),
    ("a stale date", lambda: _call(ago=400), errors.SignatureStale, True),
    ("a future date", lambda: _call(ago=-400), errors.SignatureFromFuture, True),
    # The message
    ("an altered body", lambda: (_call()[0], ADD.replace(b"\x01", b"\x07")), errors.DigestMismatch, True),
    ("a digest of another kind", lambda: _call(content_digest="md5=:aGk=:"), errors.RequestMalformed, True),
    ("GET", lambda: (_sign(replace(_head(), method="GET")), ADD), errors.MethodNotAllowed, False),
    ("PUT in place of POST", lambda: _altered(method="PUT"), errors.MethodNotAllowed, False),
    ("a method nobody knows", lambda: _altered(method="BREW"), errors.MethodNotAllowed, False),
    ("version 1", lambda: _call(path="/backwater/1/tasks/add"), errors.PathNotFound, False),
    ("a path too short", lambda: _call(path="/backwater/2/tasks"), errors.PathNotFound, False),
    ("a path too long", lambda: _call(path="/backwater/2/tasks/add/1"), errors.PathNotFound, False),
    ("a path not in UTF-8", lambda: _call(path="/backwater/2/tasks/%ff"), errors.PathNotFound, False),
    ("a path of nothing", lambda: _call(path="/nothing"), errors.PathNotFound, False),
    ("no length", lambda: _stripped(content_length=None), errors.LengthRequired, False),
    (
        "chunks",
        lambda: (
            _with(_call()[0], content_length=None, transfer_encoding="chunked"),
            b"5\r\n" + ADD + b"\r\n0\r\n\r\n",
        ),  # type: ignore[arg-type]
        errors.LengthRequired,
        False,
    ),
    ("an oversized body", lambda: _call(content_length=str(9 * MIB)), errors.BodyTooLarge, False),
    ("a length of many digits", lambda: (_stripped(content_length="9" * 5000)[0], b""), errors.RequestMalformed, False),
    ("a length that is none", lambda: (_stripped(content_length="\xb2")[0], b""), errors.RequestMalformed, False),
    ("a media type not served", lambda: _call(media_type="text/plain"), errors.UnsupportedMediaType, True),
    ("pickle", lambda: _call(media_type="application/x-python-pickle"), errors.UnsupportedMediaType, True),
    ("an encoding not served", lambda: _call(content_encoding="gzip"), errors.UnsupportedEncoding, True),
    ("an answer not served", lambda: _call(accept="text/html"), errors.NotAcceptable, True),
    ("an odd timeout", lambda: _call(backwater_timeout="soon"), errors.RequestMalformed, True),
    ("an odd idempotency key", lambda: _call(idempotency_key="17"), errors.RequestMalformed, True),
    ("no MessagePack", lambda: _call(b"\xc1\xc1\xc1"), errors.BodyUndecodable, True),
    ("half of a body", lambda: _call(ADD[:-1]), errors.BodyUndecodable, True),
    ("bytes behind the body", lambda: _call(ADD + b"\x00"), errors.BodyUndecodable, True),
    ("a body that is no call", lambda: _call(MSGPACK.encode({"x": 1})), errors.BodyUndecodable, True),
    ("keywords that are no text", lambda: _call(MSGPACK.encode([[], {1: 2}])), errors.BodyUndecodable, True),
    ("no JSON", lambda: _json(b"[[1,2],{}"), errors.BodyUndecodable, True),
    ("JSON that is no UTF-8", lambda: _json(b'[["\xff"],{}]'), errors.BodyUndecodable, True),
    ("a nest of MessagePack", lambda: _echo(b"\x91" * 5_000 + b"\x01"), errors.NestedTooDeep, True),
    ("a huge nest of MessagePack", lambda: _echo(b"\x91" * 7 * MIB + b"\x01"), errors.NestedTooDeep, True),
    ("a nest of JSON", lambda: _json(b"[" * 5_000 + b"]" * 5_000), errors.NestedTooDeep, True),
    ("a huge nest of JSON", lambda: _json(b"[" * 7 * MIB), errors.NestedTooDeep, True),
    ("a huge int of JSON", lambda: _json(b"[[" + b"9" * MIB + b"],{}]"), errors.BodyUndecodable, True),
    ("a list that lies", lambda: _echo(b"\xdd\xff\xff\xff\xff"), errors.BodyUndecodable, True),
    ("a text that lies", lambda: _echo(b"\xdb\xff\xff\xff\xff"), errors.BodyUndecodable, True),
    ("zstd: no frame", lambda: _zstd(ADD), errors.BodyUndecodable, True),
    ("zstd: half of a frame", lambda: _zstd(_GOOD_FRAME[:-2]), errors.BodyUndecodable, True),
    ("zstd: two frames", lambda: _zstd(_GOOD_FRAME * 2), errors.BodyUndecodable, True),
    ("zstd: bytes behind the frame", lambda: _zstd(_GOOD_FRAME + b"x"), errors.BodyUndecodable, True),
    ("zstd: 13 bytes that claim 4 GiB", lambda: _zstd(_lying_frame()), errors.BodyTooLarge, True),
    ("zstd: an honest 64 MiB", lambda: _zstd(_honest_frame()), errors.BodyTooLarge, True),
    ("zstd: 1 GiB without a size", lambda: _zstd(_sizeless_frame(1 << 30)), errors.BodyTooLarge, True),
    ("zstd: a window of 128 MiB", lambda: _zstd(_wide_window()), errors.BodyUndecodable, True),
    # The call
    ("an unknown module", lambda: _call(path="/backwater/2/nowhere/add"), errors.UnknownModule, True),
    ("an unknown function", lambda: _call(path="/backwater/2/tasks/nothing"), errors.UnknownFunction, True),
    ("a function not exposed", lambda: _call(path="/backwater/2/tasks/__init__"), errors.NotExposed, True),
    ("a function not in scope", lambda: _call(key=SCOPED, path="/backwater/2/tasks/echo"), errors.NotInScope, True),
    ("too few arguments", lambda: _call(MSGPACK.encode([[], {}])), errors.InvalidArguments, True),
    ("arguments of wrong types", lambda: _call(MSGPACK.encode([["1"], {}])), errors.InvalidArguments, True),
    ("an argument nobody asked for", lambda: _call(MSGPACK.encode([[1], {"z": 1}])), errors.InvalidArguments, True),
    ("a deadline that is over", lambda: _call(backwater_timeout="0"), errors.DeadlineExceeded, True),
    (
        "a call that may have run before",
        lambda: _call(idempotency_key=f'"{STREAM}.{next(_NUMBERS)}";settled=0;age=864000'),
        errors.OutcomeUnknown,
        True,
    ),
    (
        "a result without a form",
        lambda: _call(MSGPACK.encode([[], {}]), path="/backwater/2/tasks/unserialisable"),
        errors.ResultUnserializable,
        True,
    ),
    (
        "an oversized result",
        lambda: _call(MSGPACK.encode([[], {}]), path="/backwater/2/tasks/large"),
        errors.ResultTooLarge,
        True,
    ),
    (
        "an exception whose text is no Unicode",
        lambda: _call(MSGPACK.encode([["x"], {}]), path="/backwater/2/tasks/fail"),
        errors.RemoteError,
        True,
    ),
    # Many calls
    ("many calls: no envelope", lambda: _envelope(b"\x93\x01\x02\x03"), errors.BodyUndecodable, True),
    ("many calls: a nest", lambda: _envelope(b"\x91" * MIB), errors.BodyUndecodable, True),
    (
        "many calls: too many",
        lambda: _many(*[[number, "tasks", "add", [[1], {}]] for number in range(101)]),
        errors.BodyTooLarge,
        True,
    ),
]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target() as running:
        # Everything that is made at first use is there before memory is looked at.
        _good_call(running.port)
        yield running


@pytest.fixture(scope="module")
def neighbour(target: Target) -> backwater.Client:
    """Another client of the same server."""
    return backwater.Client(target.url, KEY)


def _good_call(port: int, key: Key = KEY) -> None:
    assert backwater.Client(f"http://127.0.0.1:{port}", key).call("tasks", "add", 20, 22) == 42


def _expect(port: int, request: Request, error: type[errors.CallFailed], *, signed: bool, key: Key = KEY) -> Answer:
    head, body = request
    answer = exchange(port, head, body)
    problem = answer.value
    assert problem["type"] == f"urn:backwater:problem:{error.code}", problem
    assert answer.status == problem["status"] == error.status
    assert problem["title"] == error.title
    sentence = problem["detail"]
    assert sentence
    assert "\n" not in sentence
    assert len(sentence) < 400
    assert "Traceback" not in sentence
    assert errors.WIRE_ERRORS[error.code] is error
    assert isinstance(head, RequestHead)
    assert _is_signed(answer, head, key) is signed
    return answer


def _is_signed(answer: Answer, head: RequestHead, key: Key) -> bool:
    if "signature" not in answer.fields:
        return False
    nonce = head.fields["signature-input"].partition('nonce="')[2].partition('"')[0]
    return answer.signed_for(head, key, nonce)


@pytest.mark.parametrize(("make", "error", "signed"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_each_bad_input_gets_its_own_error_and_hurts_nobody_else(
    target: Target,
    neighbour: backwater.Client,
    make: Callable[[], Request],
    error: type[errors.CallFailed],
    signed: bool,
) -> None:
    request = make()
    resident = target.forget_peak()
    key = SCOPED if error is errors.NotInScope else KEY
    _expect(target.port, request, error, signed=signed, key=key)
    assert neighbour.call("tasks", "add", 20, 22) == 42
    assert target.peak() - resident < ROOM


def test_the_table_has_every_error_that_may_cross_the_wire() -> None:
    elsewhere = {
        errors.Refused,  # what a code that nobody knows becomes
        errors.Replayed,
        errors.MemoryFull,
        errors.IdempotencyConflict,
        errors.AlreadySettled,
        errors.Draining,
        errors.Overloaded,
        errors.InternalError,
        errors.StoreError,
        *errors.StoreError.__subclasses__(),  # see test_broker
        errors.TaskError,
        *errors.TaskError.__subclasses__(),  # in outcomes of tasks, see test_outcomes
    }
    assert {row[2] for row in ROWS} | elsewhere == set(errors.WIRE_ERRORS.values())


@pytest.mark.parametrize("function", ["fail", "fail_awaited"])
@pytest.mark.parametrize("text", ["\udcff", "a\ud800b" * 9_000, "\x00", "line\nline", "", "é" * 9_000])
def test_an_exception_of_any_text_is_told(target: Target, function: str, text: str) -> None:
    """A lone surrogate, as in the name of a file, has no UTF-8."""
    client = backwater.Client(target.url, KEY, timeout=5.0)
    quoted = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    with running_server({"odd": _Raises(text)}) as server:
        odd = backwater.Client(server.url, server.secret, timeout=5.0)
        for _ in range(2):
            with pytest.raises(backwater.RemoteError) as raised:
                odd.call("odd", function)
            assert raised.value.type == "ValueError"
        assert odd.call("odd", "fine") == 1
    with pytest.raises(backwater.RemoteError):
        client.call("tasks", function, quoted)


class _Raises:
    def __init__(self, text: str) -> None:
        self._text = text

    def fail(self) -> None:
        raise ValueError(self._text)

    async def fail_awaited(self) -> None:
        raise ValueError(self._text)

    def fine(self) -> int:
        return 1


# What takes two requests ---------------------------------------------------------------------------------------------


def test_a_replayed_request_is_refused_and_does_not_run_again(target: Target) -> None:
    head, body = _call()
    assert exchange(target.port, head, body).status == 200
    _expect(target.port, (head, body), errors.Replayed, signed=True)
    _good_call(target.port)


def test_a_replayed_request_is_refused_over_the_same_connection(target: Target) -> None:
    head, body = _call()
    assert isinstance(head, RequestHead)
    with connect(target.port) as connection:
        connection.send((write_head(head) + body) * 2)
        assert connection.read_answer().status == 200
        assert connection.read_answer().status == errors.Replayed.status


def test_an_idempotency_key_of_another_call_is_a_conflict(target: Target) -> None:
    key = f'"{STREAM}.{next(_NUMBERS)}";settled=0'
    assert exchange(target.port, *_call(idempotency_key=key)).status == 200
    other = MSGPACK.encode([[1, 3], {}])
    _expect(target.port, _call(other, idempotency_key=key), errors.IdempotencyConflict, signed=True)
    _good_call(target.port)


def test_a_call_that_was_settled_is_not_run(target: Target) -> None:
    later = f'"{STREAM}set.9";settled=9'
    assert exchange(target.port, *_call(idempotency_key=later)).status == 200
    _expect(target.port, _call(idempotency_key=f'"{STREAM}set.3";settled=3'), errors.AlreadySettled, signed=True)
    _good_call(target.port)


def test_one_bad_call_among_many_spoils_no_other(target: Target) -> None:
    async def run() -> list[object]:
        async with backwater.AsyncClient(target.url, KEY) as client:
            return await client.gather(
                ("tasks", "add", [1, 2]),
                ("tasks", "nothing"),
                ("tasks", "add", ["x"]),
                ("tasks", "unserialisable"),
                ("nowhere", "add"),
                ("tasks", "large"),
                ("tasks", "fail", ["no"]),
                ("tasks", "add", [3, 4]),
                return_exceptions=True,
            )

    results = asyncio.run(run())
    assert [result if isinstance(result, int) else type(result) for result in results] == [
        3,
        errors.UnknownFunction,
        errors.InvalidArguments,
        errors.ResultUnserializable,
        errors.UnknownModule,
        errors.ResultTooLarge,
        errors.RemoteError,
        7,
    ]


def test_a_refusal_of_a_large_body_reaches_its_sender(target: Target) -> None:
    """The server stops reading, and its answer must not be lost with the connection."""
    noise = _noise(3 * MIB)
    for size in (60_000, 200_000, 900_000, 3 * MIB):
        for _ in range(3):
            client = backwater.Client(target.url, OTHER_SECRET, max_attempts=1)
            with pytest.raises(errors.ResponseUnsigned) as raised:
                client.call("tasks", "echo", noise[:size])
            assert isinstance(raised.value.hint, errors.SignatureInvalid)


@pytest.mark.parametrize("size", [60_000, 1_000_000])
def test_a_refused_body_that_is_not_too_large_is_read_and_the_connection_kept(target: Target, size: int) -> None:
    body = _noise(size)
    head = _sign(_head(body), OTHER_SECRET)
    good, arguments = _call()
    assert isinstance(good, RequestHead)
    with connect(target.port) as connection:
        connection.send(write_head(head) + body + write_head(good) + arguments)
        assert connection.read_answer().status == 401
        assert connection.read_answer().value == 3


def _noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


# The state of the server ---------------------------------------------------------------------------------------------


class Gate:
    """Functions that wait until they are let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def wait(self) -> str:
        self.entered.release()
        assert self.go.wait(20)
        return "done"

    def add(self, x: int, y: int) -> int:
        return x + y


@contextmanager
def _gated(**options: object) -> Iterator[tuple[RunningServer, Gate]]:
    gate = Gate()
    with running_server({"tasks": gate}, KEY, **options) as server:
        try:
            yield server, gate
        finally:
            gate.go.set()


@contextmanager
def _waiting_call(server: RunningServer, gate: Gate) -> Iterator[None]:
    """A call is running all the while, and gets its result afterwards."""
    results: list[object] = []
    client = backwater.Client(server.url, KEY, timeout=20.0)
    thread = threading.Thread(target=lambda: results.append(client.call("tasks", "wait")))
    thread.start()
    assert gate.entered.acquire(timeout=10)
    yield
    gate.go.set()
    thread.join(10)
    assert results == ["done"]


def test_an_overloaded_server_says_when_to_come_back() -> None:
    with _gated(max_pending_calls=1) as (server, gate):
        with _waiting_call(server, gate):
            answer = _expect(server.port, _call(), errors.Overloaded, signed=True)
            assert answer.fields["retry-after"] == "1"
        _good_call(server.port)


def test_a_server_that_shuts_down_says_so() -> None:
    with _gated() as (server, gate):
        head, body = _call()
        assert isinstance(head, RequestHead)
        half = len(write_head(head)) // 2
        with connect(server.port) as connection, _waiting_call(server, gate):
            connection.send(write_head(head)[:half])
            _until(lambda: server.run(lambda: server.server.listener.connections) >= 2)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            _until(lambda: server.run(lambda: server.server.service.draining))
            connection.send(write_head(head)[half:] + body)
            answer = connection.read_answer()
            assert answer.value["type"].endswith(errors.Draining.code)
            assert answer.status == 503
            assert _is_signed(answer, head, KEY)
            assert connection.closed
        stopping.join(10)
        assert not stopping.is_alive()


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1_000):
        if condition():
            return
        pause.wait(0.01)
    raise TimeoutError


def test_a_full_memory_refuses_one_key_and_not_another() -> None:
    other = Key(bytes(range(5, 37)), "other")
    memory = InProcessMemory(time.time(), MemoryLimits(streams=1))
    with running_server({"tasks": Gate()}, [other, KEY], memory=memory) as server:
        assert exchange(server.port, *_call()).status == 200
        head = _sign(_head(), nonce="anotherstrm.1")
        answer = _expect(server.port, (head, ADD), errors.MemoryFull, signed=True)
        assert int(answer.fields["retry-after"]) >= 1
        _good_call(server.port, other)


# The client's side ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "http://",
        "ftp://host",
        "http://user:secret-word@host",
        "http://host?x=1",
        "http://host#part",
        "http://host:0",
        "http://host:65536",
        "http://host:port",
        "http://ho st",
        "http://[::1",
        "host/with space",
        ("host", "80"),
        ("host", True),
        17,
        None,
        [],
        "http://-host-",
        "http://host/a b",
        "h" * 300,
    ],
    ids=repr,
)
def test_a_bad_endpoint_is_refused_before_anything_is_sent(endpoint: object) -> None:
    with pytest.raises(errors.InvalidEndpoint) as raised:
        backwater.Client(endpoint, KEY)
    assert "\n" not in str(raised.value)
    assert "secret-word" not in str(raised.value)


def test_an_argument_without_a_form_is_refused_before_anything_is_sent(target: Target) -> None:
    client = backwater.Client(target.url, KEY)
    with pytest.raises(backwater.Unserializable, match="object"):
        client.call("tasks", "add", object())
    assert client.counters()["requests"] == 0
    assert client.call("tasks", "add", 1) == 1


def test_arguments_beyond_the_limit_are_refused_before_anything_is_sent(target: Target) -> None:
    client = backwater.Client(target.url, KEY, max_encoded_args_size=1000)
    with pytest.raises(errors.BodyTooLarge, match="max_encoded_args_size is 1000"):
        client.call("tasks", "echo", bytes(1000))
    assert client.counters()["requests"] == 0


def test_a_wrong_key_is_told_as_a_hint_only(target: Target) -> None:
    with pytest.raises(errors.ResponseUnsigned, match="signature_invalid") as raised:
        backwater.Client(target.url, OTHER_SECRET).call("tasks", "add", 1)
    assert isinstance(raised.value.hint, errors.SignatureInvalid)


def test_a_result_beyond_the_clients_limit_is_refused(target: Target) -> None:
    client = backwater.Client(target.url, KEY, max_encoded_result_size=1000)
    with pytest.raises(errors.ResponseUndecodable):
        client.call("tasks", "echo", bytes(100_000))
    assert client.call("tasks", "add", 1) == 1


def test_a_bomb_from_the_server_is_refused(target: Target) -> None:
    """A large result that compresses well is small on the wire."""
    client = backwater.Client(target.url, KEY, max_encoded_result_size=MIB)
    with pytest.raises(errors.ResponseUndecodable):
        client.call("tasks", "echo", bytes(7 * MIB))


# An answer that is altered on its way --------------------------------------------------------------------------------


class Relay:
    """Passes requests on to a server, one connection each, and its answers back through `alter`."""

    def __init__(self, port: int, alter: Callable[[bytes, bytes], bytes]) -> None:
        self._alter = alter
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._upstream), timeout=10) as server:
            client.settimeout(10)
            try:
                head, body = _read_message(client)
                # The server closes after its answer, so that its end is seen.
                server.sendall(head[:-2] + b"Connection: close\r\n\r\n" + body)
                client.sendall(self._alter(*_read_message(server)))
            except OSError:
                pass  # the client has seen enough

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread that accepts
        self._listener.close()
        for thread in self._threads:
            thread.join(15)


def _read_message(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if length:
        size = int(length[0].split(b":")[1])
        while len(body) < size:
            body += _receive(connection)
    elif b"chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += _receive(connection)
    return head + b"\r\n\r\n", body


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError
    return data


def _without(name: bytes) -> Callable[[bytes, bytes], bytes]:
    def alter(head: bytes, body: bytes) -> bytes:
        return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(name)) + body

    return alter


def _recoded(head: bytes, body: bytes) -> bytes:
    return head.replace(b"msgpack", b"json") + body


def _flipped(body: bytes, at: int) -> bytes:
    at = min(at, len(body) - 1)
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def _resized(head: bytes, body: bytes) -> bytes:
    """One byte more, with a length and a digest that fit it."""
    longer = body + b"\x00"
    for name, value in ((b"content-length", b"%d" % len(longer)), (b"content-digest", digest_of(longer).encode())):
        lines = [name + b": " + value if line.lower().startswith(name) else line for line in head.split(b"\r\n")]
        head = b"\r\n".join(lines)
    return head + longer


def _signed_by(mac: bytes) -> Callable[[bytes, bytes], bytes]:
    def alter(head: bytes, body: bytes) -> bytes:
        lines = [
            b"signature: bw=" + encode_bytes(mac).encode() if line.lower().startswith(b"signature:") else line
            for line in head.split(b"\r\n")
        ]
        return b"\r\n".join(lines) + body

    return alter


ALTERATIONS: list[tuple[str, Callable[[bytes, bytes], bytes], type[errors.CallFailed]]] = [
    ("the body", lambda head, body: head + body.replace(b"\x2a", b"\x2b"), errors.ResponseAltered),
    ("a header", _recoded, errors.ResponseAltered),
    ("the status", lambda head, body: head.replace(b"200", b"404", 1) + body, errors.ResponseAltered),
    ("body, length and digest", _resized, errors.ResponseAltered),
    ("the digest left out", _without(b"content-digest"), errors.ResponseAltered),
    ("the signature", _signed_by(bytes(32)), errors.ResponseAltered),
    ("no signature", _without(b"signature"), errors.ResponseUnsigned),
    ("no signature's input", _without(b"signature-input"), errors.ResponseUnsigned),
    (
        "another key's name",
        lambda head, body: head.replace(b'keyid="test"', b'keyid="scoped"') + body,
        errors.ResponseUnsigned,
    ),
    ("nonsense", lambda head, body: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", errors.ResponseUnsigned),
    ("no HTTP", lambda head, body: b"hello there\r\n\r\n", errors.OutcomeUnknown),
    ("cut within the head", lambda head, body: head[: len(head) // 2], errors.OutcomeUnknown),
    ("cut within the body", lambda head, body: (head + body)[:-1], errors.OutcomeUnknown),
    (
        "a proxy's page",
        lambda head, body: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
        errors.OutcomeUnknown,
    ),
]


@pytest.mark.parametrize(("alter", "error"), [row[1:] for row in ALTERATIONS], ids=[row[0] for row in ALTERATIONS])
@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaitable"])
def test_an_altered_answer_is_never_taken(
    target: Target, alter: Callable[[bytes, bytes], bytes], error: type[errors.CallFailed], awaited: bool
) -> None:
    relay = Relay(target.port, alter)
    try:
        with pytest.raises(error) as raised:
            _call_through(relay.url, awaited)
        assert "\n" not in str(raised.value)
        assert type(raised.value) is error
    finally:
        relay.close()
    _good_call(target.port)


def _call_through(url: str, awaited: bool, key: Key = KEY) -> object:
    options = {"max_attempts": 2, "backoff": 0.001, "timeout": 5.0}
    if not awaited:
        return backwater.Client(url, key, **options).call("tasks", "add", 20, 22)

    async def run() -> object:
        async with backwater.AsyncClient(url, key, **options) as client:
            return await client.call("tasks", "add", 20, 22)

    return asyncio.run(run())


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaitable"])
def test_the_answer_to_another_request_is_never_taken(target: Target, awaited: bool) -> None:
    first: list[bytes] = []

    def repeat(head: bytes, body: bytes) -> bytes:
        first.append(head + body)
        return first[0]

    relay = Relay(target.port, repeat)
    try:
        assert _call_through(relay.url, awaited) == 42
        with pytest.raises(errors.ResponseMismatched):
            _call_through(relay.url, awaited)
    finally:
        relay.close()


@pytest.mark.parametrize(
    "alter",
    [
        lambda head, body: head + body.replace(b"\x02", b"\x03", 1),
        lambda head, body: head + _flipped(body, 20),
        lambda head, body: head + b"0\r\n\r\n",
        lambda head, body: head + body[: len(body) // 2],
        lambda head, body: head + body[:-1],
        _without(b"signature"),
        _recoded,
    ],
    ids=["a flag", "a MAC", "no frames", "half", "without its end", "no signature", "media type"],
)
@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaitable"])
def test_an_altered_stream_of_answers_is_never_taken(
    target: Target, alter: Callable[[bytes, bytes], bytes], awaited: bool
) -> None:
    """The frames before the alteration are good; what follows it is an error, and never another result."""
    relay = Relay(target.port, alter)
    calls = [("tasks", "add", [number]) for number in range(5)]
    options = {"max_attempts": 2, "backoff": 0.001, "timeout": 5.0}

    async def run() -> list[object]:
        async with backwater.AsyncClient(relay.url, KEY, **options) as client:
            return await client.gather(*calls, return_exceptions=True)

    try:
        if awaited:
            results = asyncio.run(run())
        else:
            results = backwater.Client(relay.url, KEY, **options).gather(*calls, return_exceptions=True)
    finally:
        relay.close()
    failures = (errors.ResponseAltered, errors.ResponseUnsigned, errors.OutcomeUnknown)
    for number, result in enumerate(results):
        assert result == number or isinstance(result, failures)


def test_the_frames_of_another_answer_are_never_taken(target: Target) -> None:
    bodies: list[bytes] = []

    def swap(head: bytes, body: bytes) -> bytes:
        bodies.append(body)
        return head + bodies[0]

    relay = Relay(target.port, swap)
    options = {"max_attempts": 1, "timeout": 5.0}
    calls = [("tasks", "add", [number]) for number in range(5)]
    try:
        client = backwater.Client(relay.url, KEY, **options)
        assert client.gather(*calls) == list(range(5))
        results = client.gather(*calls, return_exceptions=True)
    finally:
        relay.close()
    assert {type(result) for result in results} == {errors.ResponseAltered}


def test_an_answer_of_json_is_verified_too(target: Target) -> None:
    client = backwater.Client(target.url, KEY, media_type="application/json")
    assert client.call("tasks", "echo", {"x": [1, None, "é"]}) == {"x": [1, None, "é"]}
    answer = exchange(target.port, *_json(JSON.encode([["x"], {}])))
    assert answer.fields["content-type"] == "application/json"
    assert answer.value == "x"
