"""Our clients call a server in an Erlang VM, over real sockets."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import backwater_tornado as backwater
from backwater_tornado import Exposed, errors
from backwater_tornado.options import ErlangOptions, ErlangTerms
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.terms import Atom, Charlist, ImproperList
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
    PASS,
    BadNetwork,
    Script,
    running_server,
)
from tests.contracts.test_client import Awaiting, AwaitingCurl, Blocking
from tests.erlang.vm import PATIENCE, Erlang, Peer

SECRET = bytes(range(1, 33))

Face = Blocking | Awaiting
FACES: dict[str, type[Face]] = {
    "blocking": Blocking,
    "awaitable": Awaiting,
    "Tornado's curl client": AwaitingCurl,
}


@pytest.fixture(scope="module")
def peer(erlang: Erlang) -> Iterator[Peer]:
    with erlang.serving(secret=SECRET) as peer:
        yield peer


@pytest.fixture
def proxy(peer: Peer) -> Iterator[BadNetwork]:
    with BadNetwork("127.0.0.1", peer.port, Script([])) as proxy:
        yield proxy


Connect = Callable[..., Face]


@pytest.fixture(params=list(FACES.values()), ids=list(FACES))
def connect(request: pytest.FixtureRequest, peer: Peer) -> Iterator[Connect]:
    """Makes clients, of the peer unless told otherwise; they are closed after the test."""
    made: list[Face] = []

    def make(endpoints: object = None, secret: object = SECRET, **options: Any) -> Face:
        options = {"backoff": 0.005, "wire": "erlang", "timeout": 20.0, **options}
        made.append(request.param(endpoints or peer.url, secret, **options))
        return made[-1]

    yield make
    for face in made:
        face.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> bytes:
    """Of what a test counts or holds in the VM."""
    return request.node.nodeid.encode()


def having(face: Face, **options: Any) -> Callable[..., Any]:
    """The call of a client with options for it."""
    return lambda *args: face.using(lambda real: real.with_options(**options).call(*args))


def url_of(proxy: BadNetwork) -> str:
    return f"http://127.0.0.1:{proxy.port}"


def counted(erlang: Erlang, name: bytes) -> int:
    return int(erlang.ask("peer_functions:counted(Name)", Name=name))


# Calls ---------------------------------------------------------------------------------------------------------------


def test_a_call_gives_the_functions_result(connect: Connect) -> None:
    face = connect()
    assert face.call("erlang", "+", 1, 2) == 3
    assert face.call("lists", "reverse", [1, "two", None, Atom("four")]) == [Atom("four"), None, b"two", 1]
    assert face.call("peer_functions", "nothing") == Atom("ok")
    assert face.call("string", "uppercase", Charlist("hello")) == list(b"HELLO")
    assert face.using(lambda real: real.module("lists").max([3, 5, 4])) == 5
    counters = face.client.counters()
    assert (counters["calls"], counters["requests"], counters["retries"]) == (5, 5, 0)


def test_the_endpoint_may_name_the_wire(connect: Connect, peer: Peer) -> None:
    face = connect(f"erlang+{peer.url}", wire="backwater")
    assert face.call("erlang", "+", 1, 2) == 3
    assert repr(face.client).endswith(f"({peer.url})")


def test_a_large_call_is_gzipped_both_ways(connect: Connect, proxy: BadNetwork) -> None:
    face = connect(url_of(proxy))
    text = "0123456789é" * 100_000
    assert face.call("peer_functions", "echo", text) == text.encode()
    ((seen, _),) = proxy.seen
    assert seen.headers["content-encoding"] == "gzip"
    assert seen.headers["accept-encoding"] == "gzip"
    counters = face.client.counters()
    assert 0 < counters["bytes_out"] < 20_000
    assert 0 < counters["bytes_in"] < 20_000


def test_a_result_is_converted_where_the_caller_says_so(connect: Connect) -> None:
    face = connect()
    assert having(face, returns=str)("peer_functions", "echo", "é") == "é"
    assert having(face, returns=str)("string", "uppercase", Charlist("hello")) == "HELLO"
    assert having(face, returns=str)("erlang", "node") == "nonode@nohost"
    assert having(face, returns=list[int])("peer_functions", "echo", Charlist("ab")) == [97, 98]
    assert having(face, returns=dict[str, int])("peer_functions", "echo", {"a": 1, Atom("b"): 2}) == {"a": 1, "b": 2}
    with pytest.raises(errors.ResponseUndecodable, match="returns"):
        having(face, returns=int)("peer_functions", "echo", "one")


def test_none_is_nil_for_elixir(connect: Connect) -> None:
    face = connect(terms=ErlangTerms(none="nil"))
    assert face.call("peer_functions", "echo", [None, Atom("undefined")]) == [None, Atom("undefined")]
    assert having(face, returns=str)("erlang", "atom_to_list", None) == "nil"
    assert having(connect(), returns=str)("erlang", "atom_to_list", None) == "undefined"


def test_terms_of_every_kind_come_back_as_they_were(connect: Connect) -> None:
    face = connect()
    for seed in range(10):
        terms = face.call("peer_terms", "terms", seed, 200)
        assert len(terms) == 200
        echoed = face.call("peer_functions", "echo", terms)
        assert encode_term(echoed) == encode_term(terms)
        # A closure is told apart by the process that made it, which was another one.
        wrong = [each for each in face.call("peer_terms", "check", seed, terms) if "#Fun<peer_terms." not in repr(each)]
        assert wrong == []


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error_class", ["error", "exit", "throw"])
def test_an_exception_tells_class_and_reason(connect: Connect, error_class: str) -> None:
    with pytest.raises(errors.ErlangError) as raised:
        connect().call("peer_functions", "raise", Atom(error_class), (Atom("why"), 1, "text"))
    error = raised.value
    assert (error.error_class, error.reason, error.stack) == (error_class, (Atom("why"), 1, b"text"), ())
    assert str(error) == f'{error_class}: {{why,1,<<"text">>}}'


def test_an_exception_tells_its_stack(connect: Connect) -> None:
    with pytest.raises(errors.ErlangError) as raised:
        connect().call("lists", "nth", 4, [])
    error = raised.value
    assert (error.error_class, error.reason) == ("error", Atom("function_clause"))
    module, function, args, _place = error.stack[0]
    assert (module, function, args) == (Atom("lists"), Atom("nth"), [4, []])
    assert error.traceback is not None
    assert "{lists,nth,[4,[]]" in error.traceback


def test_a_server_may_keep_stacks_to_itself(connect: Connect, erlang: Erlang) -> None:
    with erlang.serving(options="#{return_exception_stacktraces => false}", secret=SECRET) as quiet:
        with pytest.raises(errors.ErlangError) as raised:
            connect(quiet.url).call("lists", "nth", 4, [])
        assert (raised.value.stack, raised.value.traceback) == ((), None)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("nowhere", "add", 1), errors.NotExposed),
        (("io", "format", "a"), errors.NotExposed),
        (("erlang", "no_such", 1), errors.UnknownFunction),
        (("erlang", "abs", 1, 2), errors.UnknownFunction),
        (("erlang", "a/b c%é", 1), errors.UnknownFunction),
        (("erlang", "abs", "one"), errors.ErlangError),
        (("erlang", "apply", Atom("no_such_module"), Atom("f"), []), errors.ErlangError),
    ],
)
def test_an_error_is_its_own_class(connect: Connect, call: tuple[Any, ...], error: type[Exception]) -> None:
    face = connect()
    with pytest.raises(error) as raised:
        face.call(*call)
    assert type(raised.value) is error
    assert face.call("erlang", "abs", -1) == 1
    assert face.client.counters()["requests"] == 2


def test_what_erlang_cannot_take_is_not_sent(connect: Connect) -> None:
    face = connect()
    with pytest.raises(errors.Unserializable):
        face.call("peer_functions", "echo", object())
    with pytest.raises(errors.InvalidArguments, match="no named arguments"):
        face.using(lambda real: real.call("peer_functions", "echo", value=1))
    with pytest.raises(errors.InvalidArguments, match="at most 255"):
        face.call("peer_functions", "echo", *range(256))
    assert face.client.counters()["requests"] == 0


def test_another_secret_is_not_believed(connect: Connect) -> None:
    face = connect(secret=b"another secret, long enough")
    with pytest.raises(errors.ResponseUnsigned, match="invalid_signature") as raised:
        face.call("erlang", "abs", 1)
    assert isinstance(raised.value.hint, errors.SignatureInvalid)
    assert face.client.counters()["requests"] == 1


def test_a_result_beyond_the_limit_is_not_read(connect: Connect) -> None:
    face = connect(max_encoded_result_size=10_000)
    with pytest.raises(errors.ResponseUndecodable, match="max_encoded_result_size"):
        face.call("peer_functions", "big", 1_000_000)
    assert len(face.call("peer_functions", "big", 9_000)) >= 9_000


def test_arguments_beyond_the_servers_limit_are_refused(connect: Connect, erlang: Erlang) -> None:
    with erlang.serving(options="#{max_encoded_args_size => 1000}", secret=SECRET) as small:
        with pytest.raises(errors.BodyTooLarge):
            connect(small.url).call("peer_functions", "echo", os.urandom(2000))
        with pytest.raises(errors.BodyTooLarge):
            connect(small.url).call("peer_functions", "echo", bytes(2000))


# Once, or more often -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [CUT_AFTER_REQUEST, CUT_AFTER_REQUEST.with_reset(), CUT_MID_RESPONSE], ids=["cut", "reset", "half"]
)
def test_a_call_whose_answer_is_lost_is_not_made_again(
    connect: Connect, erlang: Erlang, proxy: BadNetwork, name: bytes, fault: Any
) -> None:
    face = connect(url_of(proxy))
    assert face.call("erlang", "abs", -1) == 1  # so that the connection is a used one
    proxy.policy = Script([fault])
    with pytest.raises(errors.OutcomeUnknown):
        face.call("peer_functions", "count", name)
    assert counted(erlang, name) == 1
    assert face.call("erlang", "abs", -1) == 1
    assert proxy.faults() == [PASS, fault, PASS]


def test_a_call_that_may_run_twice_is_made_again(
    connect: Connect, erlang: Erlang, proxy: BadNetwork, name: bytes
) -> None:
    proxy.policy = Script([CUT_AFTER_REQUEST, CUT_BEFORE_REQUEST, CUT_MID_RESPONSE, PASS])
    face = connect(url_of(proxy))
    assert having(face, idempotent=True)("peer_functions", "count", name) == 3
    assert counted(erlang, name) == 3
    ids = [seen.headers["x-request-id"] for seen, _ in proxy.seen]
    assert len(set(ids)) == 4


def test_a_call_that_may_run_twice_may_be_made_elsewhere(connect: Connect, peer: Peer, name: bytes) -> None:
    with BadNetwork("127.0.0.1", peer.port, Script([], CUT_BEFORE_REQUEST)) as dead:
        face = connect([url_of(dead), peer.url])
        assert having(face, idempotent=True)("peer_functions", "count", name) == 1
        with pytest.raises(errors.OutcomeUnknown):
            connect([url_of(dead), peer.url]).call("peer_functions", "count", name)
        assert len(dead.seen) == 2


def test_what_was_not_sent_is_sent_elsewhere(connect: Connect, erlang: Erlang, proxy: BadNetwork, name: bytes) -> None:
    face = connect(["http://127.0.0.1:1", url_of(proxy)])
    if isinstance(face, AwaitingCurl):  # it does not tell what was sent
        with pytest.raises(errors.OutcomeUnknown):
            face.call("peer_functions", "count", name)
        assert counted(erlang, name) == 0
        return
    assert [face.call("peer_functions", "count", name) for _ in range(3)] == [1, 2, 3]
    assert len(proxy.seen) == 3
    # The dead one is tried once, and then left alone for a while.
    assert face.client.counters()["retries"] == 1


def test_a_server_that_ends_while_it_runs_a_call_leaves_the_outcome_open(
    connect: Connect, erlang: Erlang, name: bytes
) -> None:
    port = int(erlang.ask("peer_server:start(Secret, [peer_functions], #{})", Secret=SECRET))
    face = connect(f"http://127.0.0.1:{port}")
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(face.call, "peer_functions", "hold", name)
        erlang.ask("peer_meetings:holder(Name)", Name=name)
        erlang.ask("peer_server:stop(Port)", Port=port)
        with pytest.raises(errors.OutcomeUnknown):
            calling.result(PATIENCE)


# Time ----------------------------------------------------------------------------------------------------------------


def test_a_call_that_takes_longer_than_the_client_waits_ends(connect: Connect, erlang: Erlang, name: bytes) -> None:
    face = connect(recv_timeout=0.3, timeout=1.0)
    ending = erlang.ask_later("peer_meetings:ended(Name)", Name=name)
    with pytest.raises(errors.OutcomeUnknown):
        face.call("peer_functions", "hold", name)
    assert ending.result(PATIENCE) == b"killed"
    assert face.client.counters()["requests"] == 1
    assert face.call("erlang", "abs", -1) == 1


# Many calls ----------------------------------------------------------------------------------------------------------


def test_gather_gives_results_in_order(connect: Connect, proxy: BadNetwork) -> None:
    face = connect(url_of(proxy))
    assert face.gather() == []
    calls = [("erlang", "+", [number, 1]) for number in range(200)]
    assert face.gather(*calls) == list(range(1, 201))
    assert len(proxy.seen) == face.client.counters()["requests"] == 200


def test_gather_gives_errors_in_their_places(connect: Connect) -> None:
    face = connect()
    calls = [("erlang", "abs", [-1]), ("erlang", "no_such"), ("erlang", "abs", ["one"]), ("erlang", "abs", [-2])]
    found = face.gather(*calls, return_exceptions=True)
    assert [type(each) for each in found] == [int, errors.UnknownFunction, errors.ErlangError, int]
    with pytest.raises((errors.UnknownFunction, errors.ErlangError)):
        face.gather(*calls)


def test_many_threads_share_a_client(connect: Connect) -> None:
    face = connect()
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda number: face.call("erlang", "*", number, 2), range(120))
        assert list(found) == [number * 2 for number in range(120)]


def test_calls_share_a_connection_up_to_its_last_request(erlang: Erlang) -> None:
    with erlang.serving(options="#{max_keepalive => 50}", secret=SECRET) as peer:
        with backwater.Client(peer.url, SECRET, wire="erlang") as client:
            for number in range(200):
                assert client.call("peer_functions", "echo", number) == number
        assert peer.stats() == (4, 200)


# Values --------------------------------------------------------------------------------------------------------------

KEYS = st.integers() | st.binary(max_size=20) | st.text(max_size=20) | st.builds(Atom, st.text(max_size=20))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=400)
    | st.text(max_size=400)
    | st.builds(Atom, st.text(max_size=255))
    | st.builds(Charlist, st.text(max_size=40))
)


def as_it_comes_back(value: Any) -> Any:
    """The documented conversions: a text is a binary of UTF-8, a charlist a list of code points."""
    match value:
        case Atom():
            # What stands for Python's own values is read as these.
            return {"true": True, "false": False, "undefined": None}.get(value, value)
        case Charlist():
            return [ord(each) for each in value]
        case str():
            return value.encode()
        case list():
            return [as_it_comes_back(each) for each in value]
        case tuple():
            return tuple(as_it_comes_back(each) for each in value)
        case dict():
            return {as_it_comes_back(key): as_it_comes_back(each) for key, each in value.items()}
        case ImproperList(items=items, tail=tail):
            return ImproperList(as_it_comes_back(items), tail)
    return value


def stays_apart(made: dict[Any, Any]) -> bool:
    """Whether no two keys become the same."""
    return len({as_it_comes_back(key) for key in made}) == len(made)


VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=5).filter(stays_apart)
        | st.lists(inner, min_size=1, max_size=3).map(lambda items: ImproperList(tuple(items), Atom("end")))
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_values_come_back_after_the_documented_conversions(peer: Peer, value: Any) -> None:
    expected = as_it_comes_back(value)
    found = backwater.call((peer.url, SECRET), "peer_functions", "echo", [value], wire="erlang")
    assert found == expected
    assert repr(found) == repr(expected) or "{" in repr(found)


# Surroundings --------------------------------------------------------------------------------------------------------


def test_a_script_calls_with_a_function(peer: Peer) -> None:
    server = (f"erlang+{peer.url}", SECRET)
    assert backwater.call(server, "erlang", "+", [1, 2]) == 3
    assert backwater.call(server, "peer_functions", "echo", ["é"], returns=str) == "é"
    assert backwater.call((peer.url, SECRET), "erlang", "+", [1, 2], wire="erlang", idempotent=True) == 3
    with pytest.raises(errors.InvalidArguments):
        backwater.call(server, "erlang", "+", [1], {"y": 2})
    with pytest.raises(errors.InvalidEndpoint, match="one wire"):
        backwater.call(([f"erlang+{peer.url}", peer.url], SECRET), "erlang", "+", [1, 2])


def test_a_client_is_not_pickled_with_its_secret(peer: Peer) -> None:
    refusals = (TypeError, AttributeError, pickle.PicklingError)
    with backwater.Client(peer.url, SECRET, wire="erlang") as client, pytest.raises(refusals):
        pickle.dumps(client)


def test_an_error_of_erlang_can_be_pickled() -> None:
    error = errors.ErlangError(reason=(Atom("badarg"), 1), error_class="exit", stack=[(Atom("m"), Atom("f"), 1, [])])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.ErlangError
    assert (again.error_class, again.reason, again.stack) == (error.error_class, error.reason, error.stack)
    assert str(again) == str(error)


def test_after_a_fork_both_sides_go_on(peer: Peer) -> None:
    with backwater.Client(peer.url, SECRET, wire="erlang", timeout=20.0) as client:
        assert client.call("erlang", "+", 1, 1) == 2
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert client.call("erlang", "+", 1, 2) == 3
                assert client.gather(("erlang", "+", [2, 2]), ("erlang", "+", [2, 3])) == [4, 5]
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert client.call("erlang", "+", 3, 3) == 6


def test_a_call_over_tls_is_made_only_to_whom_the_client_trusts(
    connect: Connect, erlang: Erlang, tmp_path: Path
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    paths = {each: str(tmp_path / f"{each}.pem") for each in ("Cert", "Key", "Ca", "Other")}
    Path(paths["Cert"]).write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(paths["Key"])
    authority.cert_pem.write_to_path(paths["Ca"])
    stranger.cert_pem.write_to_path(paths["Other"])
    with erlang.serving(
        options="#{certfile => Cert, keyfile => Key}",
        secret=SECRET,
        scheme="https",
        Cert=paths["Cert"],
        Key=paths["Key"],
    ) as peer:
        named = peer.url.replace("127.0.0.1", "localhost")
        if connect(peer.url).__class__ is not AwaitingCurl:  # it takes its authorities from its own settings
            face = connect(named, ca_file=paths["Ca"])
            assert face.call("erlang", "+", 1, 2) == 3
            assert face.call("peer_functions", "echo", "x" * 100_000) == b"x" * 100_000
            for url, file in ((named, paths["Other"]), (peer.url, paths["Ca"])):
                with pytest.raises(errors.TLSFailed):
                    connect(url, ca_file=file).call("erlang", "+", 1, 2)


# Both ends are ours --------------------------------------------------------------------------------------------------


class Echo:
    def echo(self, value: Any) -> Any:
        return value

    async def add(self, x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    def fail(self, text: str) -> None:
        raise LookupError(text)


def test_an_exception_of_a_python_server_is_told_by_name(connect: Connect) -> None:
    with running_server(Exposed(echo=Echo()), SECRET, erlang=True) as server:
        with pytest.raises(errors.ErlangError) as raised:
            connect(server.url).call("echo", "fail", "no")
        error = raised.value
        assert (error.type, error.message, error.exception_args) == ("LookupError", "no", ("no",))
        assert error.reason == (Atom("LookupError"), b"no")
        assert error.traceback is not None
        with pytest.raises(LookupError, match="no"):
            connect(server.url, rethrow_remote_exceptions=True).call("echo", "fail", "no")


def test_a_path_may_come_first() -> None:
    """For a server in a Tornado application."""

    async def run() -> list[Any]:
        routes = backwater.routes(SECRET, Exposed(echo=Echo()), prefix="/to/it", erlang=True)
        server = HTTPServer(Application(routes))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        try:
            async with backwater.AsyncClient(f"erlang+{url}/to/it/", SECRET) as client:
                found = [await client.call("echo", "add", 1, 2), await client.call("echo", "echo", "x" * 10_000)]
            async with backwater.AsyncClient(f"erlang+{url}", SECRET) as client:
                found += await client.gather(("echo", "add", [1, 2]), return_exceptions=True)
        finally:
            server.stop()
            await server.close_all_connections()
        return found

    added, echoed, error = asyncio.run(run())
    assert (added, echoed) == (3, b"x" * 10_000)
    assert isinstance(error, errors.ResponseUnsigned)
    assert isinstance(error.hint, errors.PathNotFound)


def test_an_address_may_be_of_version_6(connect: Connect) -> None:
    if not _has_ipv6():
        pytest.skip("no IPv6 here")
    options = ErlangOptions(secret=SECRET)
    with running_server(Exposed(echo=Echo()), erlang=options, address="::1") as server:
        face = connect(f"erlang+http://[::1]:{server.port}")
        assert face.call("echo", "add", 1, 2) == 3
        assert connect(("::1", server.port)).call("echo", "echo", "é") == "é".encode()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
