"""A client in an Erlang VM calls our server, over real sockets."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import backwater_tornado as backwater
from backwater_tornado import Exposed, errors, expose
from backwater_tornado.errors import ErlangError
from backwater_tornado.options import ErlangOptions
from backwater_tornado.protocol.erlang.terms import Atom
from backwater_tornado.testing import BadNetwork, RunningServer, Script, running_server
from tests.erlang.vm import PATIENCE, Erlang

#: Of the nodes of Erlang, and of everybody else.
SECRET = bytes(range(1, 33))
OTHER_SECRET = b"the secret of version 2, long enough"

BAD_SIGNATURE = "{error,{{response_authentication,missing_request_id},{unauthorized,"


class Functions:
    """Exposed to both as `functions`."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.runs: list[int] = []
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    @expose
    def add(self, x: int, y: int = 0) -> int:
        return x + y

    @expose
    async def add_awaited(self, x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    @expose
    def echo(self, value: Any) -> Any:
        return value

    @expose
    def kind(self, value: Any) -> str:
        return type(value).__name__

    @expose
    def greet(self, name: str) -> str:
        return f"Hello, {name}"

    @expose
    def fail(self, text: str) -> None:
        raise ValueError(text)

    @expose(name="raise")
    def raise_(self, error_class: str, reason: Any) -> None:
        raise ErlangError(error_class=error_class, reason=reason)

    @expose
    def wait(self) -> Atom:
        """Waits until it is let go."""
        self.entered.release()
        assert self.go.wait(PATIENCE)
        return Atom("waited")

    @expose(max_concurrency=2)
    def crowd(self, number: int) -> int:
        """Waits for one other call of it, or for none."""
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self.entered.release()
        assert self.go.wait(PATIENCE)
        with self._lock:
            self._inside -= 1
            self.runs.append(number)
        return number

    @expose
    def nothing(self) -> None:
        return None


class Private:
    """Exposed to version 2 only."""

    def secret(self) -> int:
        return 1


@pytest.fixture
def functions() -> Iterator[Functions]:
    made = Functions()
    yield made
    made.go.set()


@contextmanager
def serving(functions: Functions, *, erlang: dict[str, Any] | None = None, **options: Any) -> Iterator[RunningServer]:
    """Both versions on one port: with secrets and lists of their own."""
    settings = {"secret": SECRET, "exposed": Exposed(functions=functions), **(erlang or {})}
    exposed = Exposed(functions=functions, private=Private())
    with running_server(exposed, OTHER_SECRET, erlang=ErlangOptions(**settings), **options) as server:
        try:
            yield server
        finally:
            functions.go.set()


@pytest.fixture
def server(functions: Functions) -> Iterator[RunningServer]:
    with serving(functions) as running:
        yield running


# Calls ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "result"),
    [
        ("functions:add(1, 2)", "{ok,3}"),
        ("functions:add(1)", "{ok,1}"),
        ("functions:add_awaited(1, 2)", "{ok,3}"),
        ("functions:echo([1, two, <<3>>, 4.0, #{[a] => {b}}])", "{ok,[1,two,<<3>>,4.0,#{[a] => {b}}]}"),
        ('functions:greet(<<"é"/utf8>>)', '{ok,<<"Hello, é"/utf8>>}'),
        ('functions:greet("Joe")', '{ok,<<"Hello, Joe">>}'),
        ("functions:greet(joe)", '{ok,<<"Hello, joe">>}'),
        ("functions:nothing()", "{ok,undefined}"),
        ("functions:kind(undefined)", '{ok,<<"NoneType">>}'),
        ("functions:kind(nil)", '{ok,<<"Atom">>}'),
        ("functions:raise(error, {badarg, 1})", "{error,{exception,{error,{badarg,1},[]}}}"),
        ("functions:raise(exit, bye)", "{error,{exception,{exit,bye,[]}}}"),
        ("functions:raise(throw, [1.0])", "{error,{exception,{throw,[1.0],[]}}}"),
        ('functions:fail(<<"no">>)', "{error,{exception,{error,{'ValueError',<<\"no\">>},[]}}}"),
    ],
)
def test_a_call_gives_what_the_function_gives(erlang: Erlang, functions: Functions, target: str, result: str) -> None:
    with serving(functions, return_exception_stacktraces=False) as server:
        assert erlang.call(server.url, SECRET, target) == result


def test_an_exception_comes_with_the_frames_of_python(erlang: Erlang, server: RunningServer) -> None:
    result = erlang.call(server.url, SECRET, 'functions:fail(<<"no">>)')
    frame = rf'\{{\'?{re.escape(__name__)}\'?,fail,2,\[\{{file,"{re.escape(__file__)}"\}},\{{line,\d+\}}\]\}}'
    expected = rf"\{{error,\{{exception,\{{error,\{{'ValueError',<<\"no\">>\}},\[{frame}.*\]\}}\}}\}}"
    assert re.fullmatch(expected, result), result
    result = erlang.call(server.url, SECRET, "functions:raise(exit, bye)")
    assert re.fullmatch(r"\{error,\{exception,\{exit,bye,\[\{.*,raise_,3,.*\]\}\}\}", result), result


def test_none_is_nil_for_elixir(erlang: Erlang, functions: Functions) -> None:
    with serving(functions, erlang={"none": "nil"}) as server:
        assert erlang.call(server.url, SECRET, "functions:nothing()") == "{ok,nil}"
        assert erlang.call(server.url, SECRET, "functions:kind(nil)") == '{ok,<<"NoneType">>}'
        assert erlang.call(server.url, SECRET, "functions:echo([nil, undefined])") == "{ok,[nil,undefined]}"


def test_a_large_call_is_gzipped_both_ways(erlang: Erlang, server: RunningServer) -> None:
    with BadNetwork("127.0.0.1", server.port, Script([])) as proxy:
        url, large = f"http://127.0.0.1:{proxy.port}", 'binary:copy(<<"0123456789">>, 100000)'
        same = f"{{ok, {large}}} =:= peer_client:call(Url, Secret, functions, echo, [{large}], #{{}})"
        assert erlang.ask(same, Url=url, Secret=SECRET) == "true"
        ((seen, _),) = proxy.seen
        assert seen.headers["content-encoding"] == "gzip"
        assert len(seen.body) < 10_000
        # A genuine client's limit is for what is gzipped, and its complaint shows the head of the response.
        result = erlang.call(url, SECRET, f"functions:echo({large})", "#{max_encoded_result_size => 1000}")
        assert result.startswith("{error,{invalid_body,{ok,")
        assert '{<<"content-encoding">>,<<"gzip">>}' in result


def test_terms_of_every_kind_come_back_as_they_were(erlang: Erlang, server: RunningServer) -> None:
    echoed = "peer_terms:echoed(Url, Secret, {functions, echo}, 11, 200, #{})"
    assert erlang.ask(echoed, Url=server.url, Secret=SECRET) == "[]"
    together = (
        "[Seed || Seed <- lists:seq(1, 200), begin"
        " {ok, Back} = peer_client:call(Url, Secret, functions, echo, [peer_terms:terms(Seed, 140)], #{}),"
        " peer_terms:check(Seed, Back) =/= [] end]"
    )
    assert erlang.ask(together, Url=server.url, Secret=SECRET) == "[]"


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "beginning", "word"),
    [
        ("nowhere:add(1)", "{error,{remote,{forbidden,", ""),
        ("private:secret()", "{error,{remote,{forbidden,", ""),
        ("functions:no_such(1)", "{error,{remote,{not_found,", "function_not_found"),
        ("functions:'__init__'()", "{error,{remote,{not_found,", "function_not_found"),
        ("functions:echo(1, 2)", "{error,{remote,{not_found,", "function_not_found"),
    ],
)
def test_a_refusal_says_why(erlang: Erlang, server: RunningServer, target: str, beginning: str, word: str) -> None:
    result = erlang.call(server.url, SECRET, target)
    assert result.startswith(beginning)
    assert result.endswith(f'],<<"{word}">>}}}}}}' if word else "],<<>>}}}")


def test_arguments_of_another_type_are_an_exception(
    erlang: Erlang, server: RunningServer, functions: Functions
) -> None:
    result = erlang.call(server.url, SECRET, 'functions:add(<<"one">>)')
    assert result.startswith("{error,{exception,{error,{invalid_arguments,<<")
    assert result.endswith(">>},[]}}}")


@pytest.mark.parametrize("secret", [b"another secret, long enough", OTHER_SECRET])
def test_another_secret_is_refused(erlang: Erlang, server: RunningServer, secret: bytes) -> None:
    result = erlang.call(server.url, secret, "functions:add(1)")
    assert result.startswith(BAD_SIGNATURE)
    assert result.endswith('<<"invalid_signature">>}}}')


def test_the_secret_of_one_version_is_none_of_the_other(server: RunningServer) -> None:
    with backwater.Client(server.url, SECRET) as client, pytest.raises(errors.ResponseUnsigned):
        client.call("functions", "add", 1)
    with backwater.Client(server.url, OTHER_SECRET, wire="erlang") as client, pytest.raises(errors.ResponseUnsigned):
        client.call("functions", "add", 1)


def test_an_atom_that_nobody_named_is_refused_on_demand(erlang: Erlang, functions: Functions) -> None:
    with serving(functions, erlang={"decode_unsafe_terms": False, "atoms": ["named"]}) as server:
        assert erlang.call(server.url, SECRET, "functions:echo([named, add, true])") == "{ok,[named,add,true]}"
        result = erlang.call(server.url, SECRET, "functions:echo(unnamed)")
        assert result.startswith("{error,{remote,{bad_request,")
        assert result.endswith('<<"unable_to_decode_arguments">>}}}')


# Time ----------------------------------------------------------------------------------------------------------------


def test_a_client_that_waits_no_longer_leaves_the_server_well(
    erlang: Erlang, server: RunningServer, functions: Functions
) -> None:
    waiting = erlang.call_later(server.url, SECRET, "functions:wait()", "#{recv_timeout => 50}")
    assert functions.entered.acquire(timeout=PATIENCE)
    assert waiting.result(PATIENCE) == b"{error,{transport,timeout}}"
    assert erlang.call(server.url, SECRET, "functions:add(1)") == "{ok,1}"
    functions.go.set()
    assert erlang.call(server.url, SECRET, "functions:wait()") == "{ok,waited}"


def test_a_server_that_stops_answers_the_call_that_runs(
    erlang: Erlang, server: RunningServer, functions: Functions
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = erlang.call_later(server.url, SECRET, "functions:wait()", "#{recv_timeout => 20000}")
        assert functions.entered.acquire(timeout=PATIENCE)
        stopping = pool.submit(server.stop, PATIENCE)
        functions.go.set()
        assert stopping.result(PATIENCE) is True
        assert waiting.result(PATIENCE) == b"{ok,waited}"
    assert erlang.call(server.url, SECRET, "functions:add(1)").startswith("{error,{transport,{failed_connect,")


def test_calls_share_a_connection_up_to_its_last_request(erlang: Erlang, functions: Functions) -> None:
    calls = "[element(2, peer_client:call(Url, Secret, functions, echo, [N], #{})) || N <- lists:seq(1, 200)]"
    with serving(functions, max_keepalive=50) as server, BadNetwork("127.0.0.1", server.port, Script([])) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        assert erlang.ask(f"lists:seq(1, 200) =:= {calls}", Url=url, Secret=SECRET) == "true"
        assert len(proxy.seen) == 200
        assert {seen.connection for seen, _ in proxy.seen} == {0, 1, 2, 3}


# Both versions -------------------------------------------------------------------------------------------------------


def test_both_versions_are_served_on_one_port_at_once(erlang: Erlang, server: RunningServer) -> None:
    with backwater.Client(server.url, OTHER_SECRET) as client, ThreadPoolExecutor(4) as pool:
        theirs = [erlang.call_later(server.url, SECRET, f"functions:add({n}, 1)") for n in range(60)]
        ours = [pool.submit(client.call, "functions", "add", n, 2) for n in range(60)]
        assert [each.result(PATIENCE).decode() for each in theirs] == [f"{{ok,{n + 1}}}" for n in range(60)]
        assert [each.result(PATIENCE) for each in ours] == [n + 2 for n in range(60)]
        assert client.call("private", "secret") == 1


def test_a_functions_places_are_for_both_versions_together(
    erlang: Erlang, server: RunningServer, functions: Functions
) -> None:
    with backwater.Client(server.url, OTHER_SECRET, timeout=PATIENCE) as client, ThreadPoolExecutor(4) as pool:
        theirs = [
            erlang.call_later(server.url, SECRET, f"functions:crowd({n})", "#{recv_timeout => 30000}") for n in range(2)
        ]
        for _ in theirs:
            assert functions.entered.acquire(timeout=PATIENCE)
        ours = [pool.submit(client.call, "functions", "crowd", n) for n in range(2, 6)]
        # They have arrived, and do not run, while all else does.
        while server.run(lambda: server.server.service.dispatcher.pending) < 6:
            client.call("functions", "add", 1)
        assert not functions.entered.acquire(blocking=False)
        functions.go.set()
        assert [each.result(PATIENCE) for each in ours] == [2, 3, 4, 5]
        assert [each.result(PATIENCE) for each in theirs] == [b"{ok,0}", b"{ok,1}"]
    assert sorted(functions.runs) == list(range(6))
    assert functions.most == 2


def test_threads_are_for_both_versions_together(erlang: Erlang, functions: Functions) -> None:
    with serving(functions, threads=1) as server, backwater.Client(server.url, OTHER_SECRET) as client:
        holding = erlang.call_later(server.url, SECRET, "functions:wait()", "#{recv_timeout => 30000}")
        assert functions.entered.acquire(timeout=PATIENCE)
        with pytest.raises(errors.DeadlineExceeded):
            client.with_options(timeout=0.2).call("functions", "add", 1)
        assert client.call("functions", "add_awaited", 1, 1) == 2
        functions.go.set()
        assert holding.result(PATIENCE) == b"{ok,waited}"


def test_without_settings_of_its_own_it_has_those_of_version_2(erlang: Erlang, functions: Functions) -> None:
    with running_server(Exposed(functions=functions), SECRET, erlang=True) as server:
        assert erlang.call(server.url, SECRET, "functions:add(1, 2)") == "{ok,3}"
        with backwater.Client(server.url, SECRET) as client:
            assert client.call("functions", "add", 1, 2) == 3


def test_nobody_speaks_version_1_unless_it_is_switched_on(erlang: Erlang, functions: Functions) -> None:
    with running_server(Exposed(functions=functions), SECRET) as server:
        result = erlang.call(server.url, SECRET, "functions:add(1, 2)")
        assert result.startswith("{error,{{response_authentication,missing_request_id},{not_found,")


def test_a_call_over_tls_is_made_only_to_whom_the_client_trusts(
    erlang: Erlang, functions: Functions, tmp_path: Path
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    file = str(tmp_path / "server.pem")
    with serving(functions, certfile=file, keyfile=file) as server:
        url, options = server.url.replace("127.0.0.1", "localhost"), "#{cacertfile => File}"
        refused = erlang.call(url, SECRET, "functions:add(1)", options, File=str(tmp_path / "stranger.pem"))
        assert "unknown_ca" in refused
        for size in (1, 100_000):
            target = f'functions:echo(binary:copy(<<"ab">>, {size})) '.strip()
            result = erlang.call(url, SECRET, target, options, File=str(tmp_path / "authority.pem"))
            assert result == '{ok,<<"' + "ab" * size + '">>}'
