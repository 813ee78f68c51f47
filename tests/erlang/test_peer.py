"""The test tool itself: the Erlang client and server agree with one another and with the genuine backwater.

Only what other tests rely on: the server answers captured requests as the genuine one did, the client writes the
genuine client's requests and makes of captured responses what the genuine one made of them.
"""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.erlang.vm import PATIENCE, Erlang, Peer, Raised
from tests.vectors.erlang import CAPTURED, Captured, Response, parse_response

SECRET = bytes(range(1, 33))
OTP_OF_CAPTURE = 25

COMPRESSED = "term_to_binary([lists:duplicate(1000, a)], [compressed])"
UNAUTHORIZED, NOT_TAKEN = "{error,{remote,{unauthorized,", "{error,{remote,{unsupported_media_type,"

ANSWERED = [name for name, captured in CAPTURED.items() if captured.response is not None]
BY_THE_CLIENT = [name for name, captured in CAPTURED.items() if captured.by == "client"]
JUDGED = [name for name in ANSWERED if CAPTURED[name].client_result is not None]


@pytest.fixture(scope="module")
def peer(erlang: Erlang) -> Iterator[Peer]:
    with erlang.serving(secret=SECRET) as peer:
        yield peer


@pytest.fixture(scope="module")
def captured_servers(erlang: Erlang) -> Iterator[dict[str, Peer]]:
    with contextlib.ExitStack() as stack:
        servers = {captured.server.label: captured for captured in CAPTURED.values()}
        yield {
            label: stack.enter_context(
                erlang.serving(captured.server.exposed, captured.server.options, secret=captured.secret)
            )
            for label, captured in servers.items()
        }


@pytest.mark.parametrize(
    ("target", "result"),
    [
        ("lists:reverse([1, two, <<3>>])", "{ok,[<<3>>,two,1]}"),
        ("erlang:'+'(1, 2)", "{ok,3}"),
        ("erlang:node()", "{ok,nonode@nohost}"),
        ("peer_functions:raise(error, {reason, 1})", "{error,{exception,{error,{reason,1},[]}}}"),
        ("peer_functions:raise(exit, bye)", "{error,{exception,{exit,bye,[]}}}"),
        ("peer_functions:raise(throw, [1.0])", "{error,{exception,{throw,[1.0],[]}}}"),
        ("erlang:apply(no_such_module, f, [])", "{error,{exception,{error,undef,[{no_such_module,f,[],[]}]}}}"),
    ],
)
def test_a_call_gives_what_the_function_gives(erlang: Erlang, peer: Peer, target: str, result: str) -> None:
    assert erlang.call(peer.url, SECRET, target) == result


@pytest.mark.parametrize(
    ("target", "options", "beginning", "body"),
    [
        ("io:format(a)", "#{}", "{error,{remote,{forbidden,", ""),
        ("erlang:no_such(a)", "#{}", "{error,{remote,{not_found,", "function_not_found"),
        ("erlang:abs(1, 2)", "#{}", "{error,{remote,{not_found,", "function_not_found"),
        ("erlang:abs(1, 2)", "#{arity => 1}", "{error,{remote,{bad_request,", "inconsistent_arguments_arity"),
        ("erlang:abs(1)", '#{headers => #{<<"accept">> => <<"*/*">>}}', "{error,{remote,{not_acceptable,", ""),
        ("erlang:abs(1)", '#{headers => #{<<"digest">> => <<"SHA-256=">>}}', UNAUTHORIZED, "wrong_arguments_digest"),
        (
            "erlang:abs(1)",
            '#{headers => #{<<"content-type">> => <<"text/plain">>}}',
            NOT_TAKEN,
            "unsupported_content_type",
        ),
        (
            "erlang:abs(1)",
            "#{body => peer_wire:encode([1 | 2])}",
            "{error,{remote,{bad_request,",
            "arguments_not_a_list",
        ),
        (
            "erlang:abs(1)",
            '#{headers => #{<<"accept-encoding">> => none}, unsigned => [{<<"accept-encoding">>, <<"gzip">>}]}',
            "{error,{{response_authentication,missing_request_id},{internal_error,",
            "",
        ),
        ("erlang:abs(1)", f"#{{body => {COMPRESSED}}}", "{error,{remote,{bad_request,", "unable_to_decode_arguments"),
        ("erlang:abs(1)", '#{body => <<"rubbish">>}', "{error,{remote,{bad_request,", "unable_to_decode_arguments"),
        (
            "erlang:abs(1)",
            '#{unsigned => [{<<"content-encoding">>, <<"gzip">>}]}',
            "{error,{{response_authentication,missing_request_id},{unauthorized,",
            '{missing_mandatorily_signed_header,<<\\"content-encoding\\">>}',
        ),
    ],
)
def test_a_refusal_says_why(erlang: Erlang, peer: Peer, target: str, options: str, beginning: str, body: str) -> None:
    result = erlang.call(peer.url, SECRET, target, options)
    assert result.startswith(beginning)
    assert result.endswith(f'],<<"{body}">>}}}}}}' if body else "],<<>>}}}")


def test_another_secret_is_refused_and_the_refusal_is_not_believed(erlang: Erlang, peer: Peer) -> None:
    result = erlang.call(peer.url, b"another", "erlang:abs(1)")
    assert result.startswith("{error,{{response_authentication,missing_request_id},{unauthorized,")
    assert result.endswith('<<"invalid_signature">>}}}')


def test_calls_share_a_connection_up_to_its_last_request(erlang: Erlang) -> None:
    with erlang.serving(options="#{max_keepalive => 4}", secret=SECRET) as peer:
        for number in range(1, 9):
            assert erlang.call(peer.url, SECRET, "peer_functions:echo(N)", N=number) == f"{{ok,{number}}}"
        assert peer.stats() == (2, 8)


def test_terms_of_every_kind_come_back_as_they_were(erlang: Erlang, peer: Peer) -> None:
    echoed = "peer_terms:echoed(Url, Secret, {peer_functions, echo}, 7, 400, #{})"
    assert erlang.ask(echoed, Url=peer.url, Secret=SECRET) == "[]"
    assert erlang.ask("peer_terms:check_encoded(7, peer_terms:encoded(7, 400))") == "[]"


def test_a_term_that_came_back_otherwise_is_named(erlang: Erlang) -> None:
    assert erlang.ask("peer_terms:check(7, ['', b])") == "[{2,a,b}]"
    zeros = "[Zero || Zero <- peer_terms:terms(7, 100), is_float(Zero), Zero == 0]"
    assert erlang.ask(f"length({zeros})") >= "2"
    changed = "[case is_float(T) andalso T == 0 of true -> 0.0; false -> T end || T <- peer_terms:terms(7, 60)]"
    assert re.fullmatch(r"\[\{\d+,-0\.0,0\.0\}\]", erlang.ask(f"peer_terms:check(7, {changed})"))


def test_a_call_ends_when_its_client_goes_away(erlang: Erlang, peer: Peer) -> None:
    waiting = erlang.call_later(peer.url, SECRET, "peer_functions:hold(gone)", "#{recv_timeout => 100}")
    assert erlang.ask("peer_meetings:ended(gone)") == "killed"
    assert waiting.result(PATIENCE) == b"{error,{transport,timeout}}"


def test_a_call_over_tls_is_made_only_to_whom_the_client_trusts(erlang: Erlang, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("Cert", "Key", "Ca", "Other")}
    for part, blobs in (("Cert", certificate.cert_chain_pems), ("Key", [certificate.private_key_pem])):
        Path(paths[part]).write_bytes(b"".join(blob.bytes() for blob in blobs))
    authority.cert_pem.write_to_path(paths["Ca"])
    stranger.cert_pem.write_to_path(paths["Other"])
    with erlang.serving(
        options="#{certfile => Cert, keyfile => Key}",
        secret=SECRET,
        scheme="https",
        Cert=paths["Cert"],
        Key=paths["Key"],
    ) as peer:
        target, named = "peer_functions:echo(over_tls)", peer.url.replace("127.0.0.1", "localhost")
        # The refused ones come first: a connection that was made is used again.
        assert "unknown_ca" in erlang.call(named, SECRET, target, "#{cacertfile => F}", F=paths["Other"])
        assert "hostname_check_failed" in erlang.call(peer.url, SECRET, target, "#{cacertfile => F}", F=paths["Ca"])
        assert erlang.call(named, SECRET, target, "#{cacertfile => F}", F=paths["Ca"]) == "{ok,over_tls}"


def test_a_client_that_asks_is_told_to_go_on_with_the_body(captured_servers: dict[str, Peer]) -> None:
    captured = CAPTURED["ok_to_upper"]
    head, _, body = captured.request.partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", captured_servers["default"].port), PATIENCE) as connection:
        connection.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_requests_in_one_go_are_answered_one_by_one(captured_servers: dict[str, Peer]) -> None:
    # The body of a request that the router refuses is not taken for the next request.
    requests = CAPTURED["ok_to_upper"].request + CAPTURED["e404_version"].request + CAPTURED["e406_star"].request
    with socket.create_connection(("127.0.0.1", captured_servers["default"].port), PATIENCE) as connection:
        connection.sendall(requests)
        received = b""
        while part := connection.recv(65536):
            received += part
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"404", b"406"]


def test_an_expression_that_fails_says_how(erlang: Erlang) -> None:
    with pytest.raises(Raised, match="badarith"):
        erlang.ask("1 / A", A=0)


# The captured messages


def exchange(port: int, request: bytes) -> bytes:
    """Send the bytes and read one response; where it says that the connection closes, see that it does."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += _some(connection)
        head = parse_response(received)
        fields = dict(head.headers)
        missing = int(fields["content-length"]) - len(head.body)
        while missing > 0:
            part = _some(connection)
            received, missing = received + part, missing - len(part)
        if fields.get("connection") == "close":
            assert connection.recv(1) == b""
        return received


def _some(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    assert part, "the connection was closed in the middle"
    return part


def same_but_for(response: Response, *names: str) -> tuple[int, list[tuple[str, str]]]:
    return response.status, [(name, value) for name, value in response.headers if name not in names]


def term_of(erlang: Erlang, response: Response) -> str:
    """What a body of status 200 holds, without the places in stack traces: they are another OTP's."""
    packed = dict(response.headers).get("content-encoding") == "gzip"
    plain = "zlib:gunzip(Body)" if packed else "Body"
    term = erlang.ask(f"binary_to_term({plain})", Body=response.body)
    return re.sub(r",\[\{[^\[\]]*,.*\]\}\}$", ",[...]}}", term) if term.startswith("{exception,") else term


@pytest.mark.parametrize("name", ANSWERED)
def test_the_server_answers_as_the_genuine_one_did(
    erlang: Erlang, captured_servers: dict[str, Peer], name: str
) -> None:
    captured = CAPTURED[name]
    if name == "x_slow_body":
        options, request = "#{recv_timeout => 20}", captured.request.removesuffix(captured.asked.body)
        with erlang.serving(captured.server.exposed, options, secret=captured.secret) as peer:
            answer = parse_response(exchange(peer.port, request))
    else:
        answer = parse_response(exchange(captured_servers[captured.server.label].port, captured.request))
    expected = captured.answered
    if answer.body == expected.body:
        assert same_but_for(answer, "date", "server") == same_but_for(expected, "date", "server")
        return
    # A unique integer, another zlib or another OTP's stack trace; all that follows from the body differs with it.
    follows = ("date", "server", "digest", "content-length", "signature")
    assert same_but_for(answer, *follows) == same_but_for(expected, *follows)
    if name != "replay_second":
        assert term_of(erlang, answer) == term_of(erlang, expected)
    if erlang.release == OTP_OF_CAPTURE:
        assert name == "replay_second" or "content-encoding" in dict(expected.headers)


def judge(erlang: Erlang, captured: Captured, response: Response) -> str:
    asked = dict(captured.asked.headers)
    pairs = ",".join(f"{{<<{list(name.encode())}>>,<<{list(value.encode())}>>}}" for name, value in response.headers)
    pairs = re.sub(r"<<\[([^\]]*)\]>>", r"<<\1>>", pairs)
    return erlang.ask(
        f"peer_client:judge(Secret, Id, Status, [{pairs}], Body, {captured.client_options})",
        Secret=captured.client_secret,
        Id=asked.get("x-request-id", "none was sent"),
        Status=response.status,
        Body=response.body,
    )


@pytest.mark.parametrize("name", JUDGED)
def test_the_client_makes_of_responses_what_the_genuine_one_did(erlang: Erlang, name: str) -> None:
    captured = CAPTURED[name]
    expected = captured.client_result
    assert judge(erlang, captured, captured.answered) == expected


@pytest.mark.parametrize(
    ("field", "old", "new", "failure"),
    [
        ("x-request-id", ".*", None, "missing_request_id"),
        ("x-request-id", "^.", "?", "mismatched_request_id"),
        ("signature", ".*", None, "missing_signature_header"),
        ("signature", "algorithm=", "algorithm", "invalid_header_params"),
        ("signature", 'keyId="default"', 'keyId="other"', "unknown_key"),
        ("signature", "hmac-sha256", "hmac-md5", "unknown_algorithm"),
        ("signature", "headers=", "names=", "missing_signed_header_list"),
        ("signature", r"\(response-status\) ", "", '{missing_mandatory_header,<<"(response-status)">>}'),
        ("signature", "digest ", "", '{missing_mandatory_header,<<"digest">>}'),
        ("signature", " x-request-id", "", '{missing_mandatory_header,<<"x-request-id">>}'),
        ("signature", "content-type ", "", '{missing_mandatorily_signed_header,<<"content-type">>}'),
        ("content-encoding", "", "gzip", '{missing_mandatorily_signed_header,<<"content-encoding">>}'),
        ("pragma", ".*", None, '{missing_header,<<"pragma">>}'),
        ("expires", "0", "1", "invalid_signature"),
        ("signature", 'signature="..', 'signature="AA', "invalid_signature"),
        ("", "", "", "wrong_body_digest"),
    ],
)
def test_the_client_believes_no_changed_response(
    erlang: Erlang, field: str, old: str, new: str | None, failure: str
) -> None:
    captured = CAPTURED["ok_to_upper"]
    fields = {field: ""} | dict(captured.answered.headers)
    if new is None:
        del fields[field]
    else:
        fields[field], changes = re.subn(old, new, fields[field], count=1)
        assert changes == 1
    body = captured.answered.body if field else captured.answered.body + b"!"
    headers = [(name, value) for name, value in fields.items() if name]
    result = judge(erlang, captured, Response(200, headers, body))
    assert result.startswith(f"{{error,{{{{response_authentication,{failure}}},{{ok,")


@pytest.mark.parametrize("name", BY_THE_CLIENT)
def test_the_client_writes_what_the_genuine_one_wrote(erlang: Erlang, name: str) -> None:
    captured = CAPTURED[name]
    asked = {name.lower(): value for name, value in captured.asked.headers}
    module, function, _arity = captured.asked.target.split("/")[-3:]
    plain = zlib.decompress(captured.asked.body, 31) if "content-encoding" in asked else captured.asked.body
    fields: tuple[str, ...] = (
        "accept",
        "accept-encoding",
        "content-encoding",
        "content-length",
        "content-type",
        "digest",
    )
    written = erlang.fetch(
        "#{path := Path, headers := Headers, body := Body} ="
        " peer_client:request(Secret, Module, uri_string:percent_decode(Function), binary_to_term(Args),"
        ' maps:merge(Options, #{headers => #{<<"x-request-id">> => Id}})),'
        " iolist_to_binary([Path, [[10, Name, 32, Value] || {Name, Value} <- Headers], 10, 10, Body])".replace(
            "Options", captured.client_options
        ),
        Secret=captured.client_secret,
        Module=module,
        Function=function,
        Args=plain,
        Id=asked["x-request-id"],
    )
    head, _, body = written.partition(b"\n\n")
    path, *lines = head.decode().split("\n")
    headers = dict(line.split(" ", 1) for line in lines)
    assert zlib.decompress(body, 31) == plain if "content-encoding" in asked else body == plain
    if body != captured.asked.body:  # another zlib
        fields = tuple(field for field in fields if field not in {"content-length", "digest"})
    assert {field: headers.get(field) for field in fields} == {field: asked.get(field) for field in fields}
    assert urllib.parse.unquote(captured.asked.target).endswith(urllib.parse.unquote(path))
    if path == captured.asked.target and body == captured.asked.body:
        assert headers["authorization"] == asked["authorization"]
    else:
        # The genuine client leaves other characters of a name as they are.
        assert name in {"e404_location", "name_punct", "name_space"} or erlang.release != OTP_OF_CAPTURE
