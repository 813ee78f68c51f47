"""What every client does, whatever it sends with: `Client`, and `AsyncClient` with each of its engines."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.simple_httpclient import SimpleAsyncHTTPClient

import backwater_tornado as backwater
from backwater_tornado import errors
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    DROP,
    PASS,
    BadNetwork,
    RunningServer,
    Script,
    Seen,
    running_server,
)


@dataclass
class Point:
    x: int
    y: int


class Trouble(Exception):
    """Raised by the functions and known to the clients."""


class Functions:
    """Exposed as `functions`."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.noted: list[Any] = []

    def add(self, x: int, y: int = 0) -> int:
        return x + y

    async def add_awaited(self, x: int, y: int = 0) -> int:
        await asyncio.sleep(0)
        return x + y

    def echo(self, value: Any) -> Any:
        return value

    def note(self, value: Any) -> int:
        self.noted.append(value)
        return len(self.noted)

    def fail(self, kind: str) -> None:
        raise {"ValueError": ValueError, "KeyError": KeyError, "Trouble": Trouble}[kind](kind, 17)

    def wait(self) -> str:
        """Waits until it is let go."""
        self.entered.release()
        assert self.go.wait(30)
        return "waited"

    def trace(self) -> str | None:
        call = backwater.current_call()
        assert call is not None
        return call.traceparent

    def remaining(self) -> float:
        call = backwater.current_call()
        assert call is not None
        remaining = call.remaining()
        assert remaining is not None
        return remaining


# The four faces ------------------------------------------------------------------------------------------------------


class Blocking:
    """`Client` as it is."""

    def __init__(self, endpoints: object, secret: object, **options: Any) -> None:
        self.client = backwater.Client(endpoints, secret, **options)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.call(*args, **kwargs)

    def gather(self, *calls: Any, **options: Any) -> list[Any]:
        return self.client.gather(*calls, **options)

    def using(self, verb: Callable[[Any], Any]) -> Any:
        """The result of a verb on the client."""
        return verb(self.client)

    def close(self) -> None:
        self.client.close()


class Awaiting:
    """`AsyncClient` on a loop in a thread, so that tests use it like the other."""

    http_client: type[Any] | None = None

    def __init__(self, endpoints: object, secret: object, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.client = self._do(self._make(endpoints, secret, options))

    async def _make(self, endpoints: object, secret: object, options: dict[str, Any]) -> backwater.AsyncClient:
        self._http = None if self.http_client is None else self.http_client(force_instance=True, max_clients=100)
        return backwater.AsyncClient(endpoints, secret, http_client=self._http, **options)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(50)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self._do(self.client.call(*args, **kwargs))

    def gather(self, *calls: Any, **options: Any) -> Any:
        return self._do(self.client.gather(*calls, **options))

    def using(self, verb: Callable[[Any], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await verb(self.client)

        return self._do(run())

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self.client.close()
        if self._http is not None:
            self._http.close()
        await asyncio.sleep(0)


class AwaitingCurl(Awaiting):
    http_client = CurlAsyncHTTPClient


class AwaitingSimple(Awaiting):
    http_client = SimpleAsyncHTTPClient


Face = Blocking | Awaiting
FACES: dict[str, type[Face]] = {
    "blocking": Blocking,
    "awaitable": Awaiting,
    "Tornado's curl client": AwaitingCurl,
    "Tornado's simple client": AwaitingSimple,
}


@pytest.fixture
def functions() -> Iterator[Functions]:
    made = Functions()
    yield made
    made.go.set()


@pytest.fixture
def server(functions: Functions) -> Iterator[RunningServer]:
    with running_server({"functions": functions}, decode_unsafe_terms=True) as running:
        try:
            yield running
        finally:
            functions.go.set()


@pytest.fixture(params=list(FACES.values()), ids=list(FACES))
def connect(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Callable[..., Face]]:
    """Makes clients, of the server unless told otherwise; they are closed after the test."""
    made: list[Face] = []

    def make(endpoints: object = None, secret: object = None, **options: Any) -> Face:
        options = {"backoff": 0.005, **options}
        made.append(request.param(endpoints or server.url, secret or server.secret, **options))
        return made[-1]

    yield make
    for face in made:
        face.close()


Connect = Callable[..., Face]


# Calls ---------------------------------------------------------------------------------------------------------------


def test_a_call_gives_the_functions_result(connect: Connect) -> None:
    client = connect()
    assert client.call("functions", "add", 1, y=2) == 3
    assert client.call("functions", "add_awaited", 20, 22) == 42


@pytest.mark.parametrize(
    "value",
    [
        None,
        "é\x00",
        b"\xff" * 1000,
        [1, 2.5, [True]],
        (1, (2, 3)),
        {"a": {1: "one"}},
        {1, 2},
        2**200,
        Decimal("1.10"),
        dt.datetime(2026, 8, 1, 12, tzinfo=dt.UTC),
        dt.timedelta(days=1, microseconds=1),
        float("inf"),
        3 + 4j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_goes_there_and_back_as_itself(connect: Connect, value: object) -> None:
    answer = connect().call("functions", "echo", value)
    assert answer == value
    assert type(answer) is type(value)


@pytest.mark.parametrize("media_type", ["application/json", "application/x-python-pickle"])
def test_other_media_types_do_the_same(connect: Connect, media_type: str) -> None:
    client = connect(media_type=media_type, decode_unsafe_terms=True)
    value = {"name": ["é", 1, 2.5, None, True]}
    assert client.call("functions", "echo", value) == value
    assert client.gather(*[("functions", "add", [number, 1]) for number in range(20)]) == list(range(1, 21))
    with pytest.raises(backwater.RemoteError, match="ValueError"):
        client.call("functions", "fail", "ValueError")
    with pytest.raises(errors.UnknownFunction):
        client.call("functions", "nothing")


def test_a_result_is_converted_where_the_caller_says_so(connect: Connect) -> None:
    client = connect()
    verb = client.client.with_options(returns=list[Point])
    points = client.using(lambda _: verb.call("functions", "echo", [{"x": 1, "y": 2}]))
    assert points == [Point(1, 2)]
    with pytest.raises(errors.ResponseUndecodable, match="returns"):
        client.using(lambda _: verb.call("functions", "echo", [{"x": "one", "y": 2}]))
    assert client.call("functions", "echo", [{"x": 1, "y": 2}]) == [{"x": 1, "y": 2}]


def test_a_module_is_an_object(connect: Connect) -> None:
    client = connect()
    assert client.using(lambda real: real.module("functions").add(1, y=2)) == 3
    assert repr(client.client.module("functions")) == "<remote module functions>"
    assert not hasattr(client.client.module("functions"), "__wrapped__")


def test_a_large_call_goes_both_ways(connect: Connect) -> None:
    noise = bytes(range(256)) * 4 * 1024 * 7  # 7 MiB, which compress well
    client = connect(timeout=40.0)
    assert client.call("functions", "echo", noise) == noise


def test_many_large_results_at_once_are_all_given(connect: Connect) -> None:
    """Their sum is beyond the limit of one result, which is no reason to refuse any."""
    noise = random.Random(1).randbytes(1 << 20)
    client = connect(timeout=40.0)
    results = client.gather(*[("functions", "echo", [noise]) for _ in range(14)], return_exceptions=True)
    assert [type(result) for result in results] == [bytes] * 14


def test_one_result_beyond_the_clients_limit_spoils_no_other(connect: Connect) -> None:
    noise = random.Random(1).randbytes(3 << 20)
    client = connect(max_encoded_result_size=1 << 20, timeout=20.0)
    results = client.gather(
        ("functions", "add", [1]), ("functions", "note", [noise]), ("functions", "add", [2]), return_exceptions=True
    )
    assert results == [1, 1, 2]
    results = client.gather(
        ("functions", "add", [1]), ("functions", "echo", [noise]), ("functions", "add", [2]), return_exceptions=True
    )
    assert results[0] == 1
    assert isinstance(results[1], errors.ResponseUndecodable)
    assert results[2] == 2


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("nowhere", "add"), errors.UnknownModule),
        (("functions", "nothing"), errors.UnknownFunction),
        (("functions", "__init__"), errors.NotExposed),
        (("functions", "add", "x"), errors.InvalidArguments),
        (("functions", "add"), errors.InvalidArguments),
        (("functions", "add", 1, 2, 3), errors.InvalidArguments),
        (("functions", "fail", "ValueError"), errors.RemoteError),
        (("functions", ""), errors.UnknownFunction),
    ],
)
def test_an_error_is_its_own_class(connect: Connect, call: tuple[Any, ...], error: type[Exception]) -> None:
    client = connect()
    with pytest.raises(error) as raised:
        client.call(*call)
    assert type(raised.value) is error
    assert client.call("functions", "add", 1) == 1


def test_a_remote_exception_tells_type_text_and_traceback(connect: Connect) -> None:
    with pytest.raises(backwater.RemoteError) as raised:
        connect().call("functions", "fail", "KeyError")
    error = raised.value
    assert error.type == "KeyError"
    assert error.exception_args == ("KeyError", 17)
    assert error.traceback is not None
    assert "in fail" in error.traceback


def test_a_remote_exception_is_raised_as_itself_on_demand(connect: Connect) -> None:
    client = connect(rethrow_remote_exceptions=True, exceptions=(Trouble,))
    with pytest.raises(ValueError) as raised:
        client.call("functions", "fail", "ValueError")
    assert raised.value.args == ("ValueError", 17)
    assert isinstance(raised.value.__cause__, backwater.RemoteError)
    with pytest.raises(Trouble):
        client.call("functions", "fail", "Trouble")
    with pytest.raises(backwater.RemoteError):
        connect(rethrow_remote_exceptions=True).call("functions", "fail", "Trouble")


def test_a_wrong_key_is_not_believed(connect: Connect) -> None:
    with pytest.raises(errors.ResponseUnsigned) as raised:
        connect(secret=b"another secret, long enough").call("functions", "add", 1)
    assert isinstance(raised.value.hint, errors.UnknownKey)


def test_nobody_there_is_told_as_such(connect: Connect) -> None:
    client = connect("http://127.0.0.1:1", max_attempts=2)
    kinds = (errors.Unreachable,) if _knows_what_was_sent(client) else (errors.OutcomeUnknown,)
    with pytest.raises(kinds):
        client.call("functions", "add", 1)


def _knows_what_was_sent(client: Face) -> bool:
    return getattr(client, "http_client", None) is None


def test_an_unserialisable_argument_is_refused_at_once(connect: Connect) -> None:
    client = connect()
    with pytest.raises(errors.Unserializable):
        client.call("functions", "echo", object())
    assert client.client.counters()["requests"] == 0


# Many calls ----------------------------------------------------------------------------------------------------------


def test_gather_gives_results_in_order_and_few_requests(connect: Connect) -> None:
    client = connect()
    assert client.gather() == []
    assert client.gather(*[("functions", "add", [number], {"y": 1}) for number in range(300)]) == list(range(1, 301))
    assert client.client.counters()["requests"] < 60


def test_gather_raises_the_first_error_or_gives_them_all(connect: Connect) -> None:
    client = connect()
    calls = [("functions", "add", [1]), ("functions", "nothing"), ("functions", "fail", ["ValueError"])]
    with pytest.raises((errors.UnknownFunction, backwater.RemoteError)):
        client.gather(*calls)
    results = client.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [int, errors.UnknownFunction, backwater.RemoteError]
    with pytest.raises(errors.CallFailed, match="a call is"):
        client.gather(("functions",))


@pytest.mark.parametrize("face", [Awaiting, AwaitingCurl, AwaitingSimple], ids=["own", "curl", "simple"])
def test_a_slow_call_holds_back_no_other(server: RunningServer, functions: Functions, face: type[Awaiting]) -> None:
    """They travel in one request; the slow one ends only after the others were answered."""
    client = face(server.url, server.secret, timeout=30.0)

    async def run(real: backwater.AsyncClient) -> tuple[list[int], str, int]:
        slow = asyncio.ensure_future(real.call("functions", "wait"))
        quick = [asyncio.ensure_future(real.call("functions", "add", number)) for number in range(10)]
        results = await asyncio.gather(*quick)
        assert not slow.done()
        requests = real.counters()["requests"]
        functions.go.set()
        return results, await slow, requests

    try:
        assert client.using(run) == (list(range(10)), "waited", 1)
    finally:
        client.close()


def test_the_server_answers_each_call_as_it_ends(server: RunningServer, functions: Functions) -> None:
    """Within one request of the blocking client, too: what was cut off later is not asked for again."""
    with BadNetwork("127.0.0.1", server.port, Script([])) as proxy, ThreadPoolExecutor(1) as pool:
        client = backwater.Client(f"http://127.0.0.1:{proxy.port}", server.secret, timeout=30.0)
        calls = [("functions", "wait"), *[("functions", "note", [number]) for number in range(10)]]
        gathering = pool.submit(client.gather, *calls)
        assert functions.entered.acquire(timeout=10)
        functions.go.set()
        assert gathering.result(20)[0] == "waited"
        assert len(proxy.seen) == 1
    assert sorted(functions.noted) == list(range(10))


def test_from_many_threads(connect: Connect) -> None:
    client = connect(timeout=40.0)
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda number: client.call("functions", "add", number), range(240)))
    assert results == list(range(240))
    assert client.client.counters()["calls"] == 240


# Options -------------------------------------------------------------------------------------------------------------


def test_counters_count(connect: Connect) -> None:
    client = connect()
    client.call("functions", "echo", "x" * 1000)
    with pytest.raises(errors.UnknownFunction):
        client.call("functions", "nothing")
    counters = client.client.counters()
    assert (counters["calls"], counters["failures"], counters["requests"], counters["retries"]) == (2, 1, 2, 0)
    assert 0 < counters["bytes_out"] < 200  # compressed
    assert counters["bytes_in"] > 0


def test_options_of_one_call_leave_the_client_alone(connect: Connect, functions: Functions) -> None:
    client = connect(timeout=20.0)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    hurried = client.client.with_options(timeout=0.5, traceparent=trace)
    assert client.using(lambda _: hurried.call("functions", "trace")) == trace
    assert client.call("functions", "trace") is None
    assert client.using(lambda _: hurried.call("functions", "remaining")) <= 0.5
    assert client.call("functions", "remaining") > 10
    assert hurried.counters() == client.client.counters()
    with pytest.raises(errors.InvalidOption, match="there are: idempotent, returns, timeout, traceparent"):
        client.client.with_options(hurry=True)


def test_a_call_ends_at_its_deadline(connect: Connect, functions: Functions) -> None:
    client = connect(timeout=0.4)
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        client.call("functions", "wait")
    assert time.monotonic() - began < 3
    functions.go.set()


def test_a_call_ends_at_its_deadline_while_others_hold_the_line(connect: Connect, functions: Functions) -> None:
    """One connection is allowed, and a slow call has it."""
    client = connect(max_connections=1, timeout=20.0, recv_timeout=10.0)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(client.call, "functions", "wait")
        assert functions.entered.acquire(timeout=10)
        hurried = client.client.with_options(timeout=0.4)
        began = time.monotonic()
        if isinstance(client, Blocking):
            assert client.using(lambda _: hurried.call("functions", "add", 1)) == 1
        else:
            with pytest.raises(errors.DeadlineExceeded):
                client.using(lambda _: hurried.call("functions", "add", 1))
        assert time.monotonic() - began < 3
        functions.go.set()
        assert slow.result(10) == "waited"


def test_a_call_ends_at_its_deadline_beside_a_patient_one(connect: Connect, server: RunningServer) -> None:
    """Both share a request, and the link is dead."""
    with BadNetwork("127.0.0.1", server.port, Script([], DROP)) as proxy:
        client = connect(f"http://127.0.0.1:{proxy.port}", recv_timeout=8.0, timeout=20.0)
        if isinstance(client, Blocking):
            return  # its calls share no request but in a gather, where they have one deadline

        async def run(real: backwater.AsyncClient) -> float:
            patient = asyncio.ensure_future(real.call("functions", "add", 1))
            began = time.monotonic()
            with pytest.raises(errors.DeadlineExceeded):
                await real.with_options(timeout=0.4).call("functions", "add", 2)
            taken = time.monotonic() - began
            patient.cancel()
            return taken

        assert client.using(run) < 3


# Trouble on the way --------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_asked_for_again(connect: Connect, server: RunningServer, functions: Functions) -> None:
    with BadNetwork("127.0.0.1", server.port, Script([CUT_AFTER_REQUEST, CUT_BEFORE_REQUEST, PASS])) as proxy:
        client = connect(f"http://127.0.0.1:{proxy.port}", timeout=20.0)
        assert client.call("functions", "note", 1) == 1
    assert functions.noted == [1]
    counters = client.client.counters()
    assert (counters["requests"], counters["retries"], counters["failures"]) == (3, 2, 0)


def test_a_server_that_is_down_is_passed_over(connect: Connect, server: RunningServer) -> None:
    client = connect(["http://127.0.0.1:1", server.url], timeout=20.0)
    if not _knows_what_was_sent(client):
        # Its pauses are drawn: either its attempts or its time is over first.
        with pytest.raises((errors.OutcomeUnknown, errors.DeadlineExceeded)):
            client.using(lambda real: real.with_options(timeout=2.0).call("functions", "add", 1))
        idempotent = client.client.with_options(idempotent=True)
        assert client.using(lambda _: idempotent.call("functions", "add", 1)) == 1
        return
    for number in range(5):
        assert client.call("functions", "add", number) == number
    # The dead one is tried once, and then left alone for a while.
    assert client.client.counters()["retries"] == 1


def test_an_endpoint_that_fails_is_left_alone_until_it_answers_again(
    connect: Connect, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "backwater.client")
    with BadNetwork("127.0.0.1", 1, Script([])) as proxy:  # nobody is behind it
        client = connect([f"http://127.0.0.1:{proxy.port}", server.url], timeout=20.0, endpoint_rest=30.0)
        idempotent = client.client.with_options(idempotent=True)
        for number in range(8):
            assert client.using(lambda _: idempotent.call("functions", "add", number)) == number  # noqa: B023
        first, second = client.client.endpoints()
        assert (first["state"], second["state"], second["failures"]) == ("open", "closed", 0)
        assert first["failures"] < 8
        assert 10 < first["retry_in"] <= 30
        proxy.upstream = "127.0.0.1", server.port
        client.client._session.targets[0].breaker.retry_at = 0.0  # its rest is over
        for number in range(3):
            assert client.using(lambda _: idempotent.call("functions", "add", number)) == number  # noqa: B023
        assert [each["state"] for each in client.client.endpoints()] == ["closed", "closed"]
        told = [record.levelname for record in caplog.records if str(proxy.port) in record.message]
        assert told == ["WARNING", "INFO"]


def test_one_endpoint_alone_is_asked_however_often_it_has_failed(connect: Connect, server: RunningServer) -> None:
    with BadNetwork("127.0.0.1", server.port, Script([CUT_BEFORE_REQUEST] * 6)) as proxy:
        client = connect(f"http://127.0.0.1:{proxy.port}", timeout=20.0, endpoint_rest=30.0)
        idempotent = client.client.with_options(idempotent=True)
        assert client.using(lambda _: idempotent.call("functions", "add", 1)) == 1
        assert client.client.endpoints()[0]["state"] == "closed"


def test_calls_are_spread_over_endpoints(connect: Connect, server: RunningServer, functions: Functions) -> None:
    with running_server({"functions": functions}, server.secret) as second:
        seen: list[set[int]] = []
        for spread in (True, False):
            client = connect([server.url, second.url], spread=spread)
            before = [_admitted(each) for each in (server, second)]
            for number in range(40):
                client.call("functions", "add", number)
            after = [_admitted(each) for each in (server, second)]
            seen.append({at for at in (0, 1) if after[at] > before[at]})
        assert seen == [{0, 1}, {0}]


def _admitted(server: RunningServer) -> int:
    """How many clients the server has heard of: each has a stream."""
    memory = server.server.service.serving.memory
    return server.run(lambda: sum(len(of.windows) for of in memory._keys.values()))  # type: ignore[attr-defined]


class Gateway:
    """A policy that answers as a gateway would, once: by a server of its own."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answer = answer
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            connection.sendall(self._answer)
            connection.settimeout(10)
            while connection.recv(65536):
                pass

    def close(self) -> None:
        self._thread.join(10)


@pytest.mark.parametrize(("status", "retry_after"), [(429, 0), (502, 0), (503, 1), (504, 0)])
def test_a_gateways_trouble_is_waited_out(
    connect: Connect, server: RunningServer, status: int, retry_after: int
) -> None:
    """As long as it asks for, and no longer."""
    head = b"HTTP/1.1 %d X\r\nRetry-After: %d\r\n" % (status, retry_after)
    gateway = Gateway(head + b"Content-Length: 2\r\nConnection: close\r\n\r\nno")
    with BadNetwork("127.0.0.1", gateway.port, Script([])) as proxy:

        def then_the_server(seen: Seen) -> Any:
            if seen.number == 1:
                proxy.upstream = ("127.0.0.1", server.port)
            return PASS

        proxy.policy = then_the_server
        client = connect(f"http://127.0.0.1:{proxy.port}", timeout=20.0)
        began = time.monotonic()
        assert client.call("functions", "add", 1) == 1
        assert retry_after <= time.monotonic() - began < retry_after + 5
    gateway.close()


def test_clocks_apart_are_settled_between_the_two(connect: Connect, server: RunningServer) -> None:
    client = connect()
    client.client._session.targets[0].offset = 3600.0
    assert client.call("functions", "add", 1) == 1
    assert client.client._session.targets[0].offset == 0.0
    assert client.client.counters()["requests"] == 2


def test_a_closed_client_lets_nothing_hang(connect: Connect, functions: Functions) -> None:
    client = connect(timeout=20.0)
    if isinstance(client, Blocking):
        client.client.close()
        assert client.call("functions", "add", 1) == 1
        return

    async def run(real: backwater.AsyncClient) -> list[Any]:
        calls = [asyncio.ensure_future(real.call("functions", "wait")) for _ in range(3)]
        await asyncio.get_running_loop().run_in_executor(None, functions.entered.acquire)
        waiting = asyncio.ensure_future(real.call("functions", "add", 1))
        real.close()
        return list(await asyncio.gather(*calls, waiting, return_exceptions=True))

    began = time.monotonic()
    results = client.using(run)
    assert time.monotonic() - began < 3
    assert {type(result) for result in results} <= {errors.OutcomeUnknown, errors.Unreachable}


def test_an_awaited_call_can_be_cancelled(connect: Connect, functions: Functions) -> None:
    client = connect(timeout=20.0)
    if isinstance(client, Blocking):
        return  # there is nothing to cancel

    async def run(real: backwater.AsyncClient) -> int:
        task = asyncio.ensure_future(real.call("functions", "wait"))
        await asyncio.get_running_loop().run_in_executor(None, functions.entered.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        functions.go.set()
        # Its number is settled: the server need not keep it in mind.
        return (await real.call("functions", "add", 1)) + len(real._session.stream._open)

    assert client.using(run) == 1
