"""The doctor with real servers, a real proxy and real silence."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pycurl
import pytest
import trustme

from backwater_tornado import Key, KeyRing, Scopes
from backwater_tornado.doctor import Examination, examine, failed_hop, look
from backwater_tornado.findings import Finding, Verdict
from backwater_tornado.options import ClientOptions, Endpoint
from backwater_tornado.testing import running_server

SECRET = b"a secret of the doctor's tests"
KEYS = KeyRing.of(SECRET)


def seen(url: str, keys: KeyRing | None = KEYS, **given: Any) -> dict[str, Finding]:
    own = {name: given.pop(name) for name in ("calls", "body_size", "clock") if name in given}
    options = {"proxy": "", "connect_timeout": 2.0, "recv_timeout": 2.0, **given}
    return {each.check: each for each in examine(Examination(url, keys, options, **own))}


def verdicts(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: each.verdict.value for name, each in findings.items()}


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A port where every request is answered alike, or, with b"", by hanging up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificates(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    paths = {name: str(tmp_path / name) for name in ("ca", "certfile", "keyfile", "client", "client_key")}
    authority.cert_pem.write_to_path(paths["ca"])
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example")
    server.cert_chain_pems[0].write_to_path(paths["certfile"])
    server.private_key_pem.write_to_path(paths["keyfile"])
    client.cert_chain_pems[0].write_to_path(paths["client"])
    client.private_key_pem.write_to_path(paths["client_key"])
    return paths


# All is well ---------------------------------------------------------------------------------------------------------


def test_a_good_server_gets_an_ok_for_everything() -> None:
    with running_server("math", SECRET) as server:
        found = seen(server.url)
    assert verdicts(found) == dict.fromkeys(
        (
            *("DNS", "TCP", "TLS", "healthz", "keys", "signature", "clock", "latency", "body"),
            *("link", "batches", "worker"),
        ),
        "ok",
    )
    assert found["signature"].message.startswith(KEYS.ids[0])
    assert "over 5" in found["latency"].message


def test_calls_and_bodies_may_be_left_out() -> None:
    with running_server("math", SECRET) as server:
        assert not {"latency", "body", "link", "batches", "worker"} & set(seen(server.url, calls=0, body_size=0))
        without = seen(server.url, calls=1, body_size=0)["link"].message
    assert "/s down" in without
    assert "/s up" not in without


def test_the_link_is_measured_both_ways_and_with_its_handshake(certificates: dict[str, str]) -> None:
    tls = {name: certificates[name] for name in ("certfile", "keyfile")}
    with running_server("math", SECRET, **tls) as server:
        found = seen(server.url, ca_file=certificates["ca"])
    assert re.fullmatch(
        r"[\d.]+ ms round trip \(connecting [\d.]+ ms, TLS [\d.]+ ms\); at least .*B/s up and .*B/s down",
        found["link"].message,
    )
    alone, among = re.findall(r"([\d.]+) (?:kB|bytes)", found["batches"].message)
    assert float(alone) * 1000 > 5 * float(among)


def test_where_many_calls_are_not_answered_nothing_is_said_of_them() -> None:
    with running_server("math", SECRET, max_calls_per_request=10) as server:
        found = seen(server.url)
    assert "batches" not in found
    assert "/s down" not in found["link"].message


def test_a_key_whose_calls_are_refused_measures_as_well() -> None:
    key = Key(SECRET, scopes=Scopes(call=("tasks.*",)))
    with running_server("math", key) as server:
        assert "/s down" in seen(server.url)["link"].message


def test_proxies_on_the_way_name_themselves() -> None:
    answer = b"HTTP/1.1 204 No Content\r\nVia: 1.1 edge (nginx)\r\n\r\n"
    with answering(answer) as port:
        sight = look(Endpoint("http", "127.0.0.1", port), ClientOptions(proxy=""))
    assert (sight.status, sight.via) == (204, "1.1 edge (nginx)")


def test_without_keys_the_connection_is_looked_at() -> None:
    with running_server("math", SECRET) as server:
        found = verdicts(seen(server.url, None))
    assert found["healthz"] == "ok"
    assert found["signature"] == "warn"
    assert "clock" not in found


def test_a_key_with_other_scopes_is_a_good_key() -> None:
    key = Key(SECRET, scopes=Scopes(call=("tasks.*",)))
    with running_server("math", key) as server:
        assert seen(server.url)["signature"].verdict is Verdict.OK


def test_tls_tells_version_and_certificate(certificates: dict[str, str]) -> None:
    tls = {name: certificates[name] for name in ("certfile", "keyfile")}
    with running_server("math", SECRET, **tls) as server:
        found = seen(server.url, ca_file=certificates["ca"])
    assert found["body"].verdict is Verdict.OK
    assert found["TLS"].message.startswith("TLSv1.")
    assert "days" in found["TLS"].message


# What is wrong -------------------------------------------------------------------------------------------------------


def test_a_name_that_does_not_exist_fails_at_dns() -> None:
    found = seen("http://no-such-host.invalid:1")
    assert verdicts(found) == {"DNS": "fail"}


def test_a_port_without_a_server_fails_at_tcp() -> None:
    assert verdicts(seen(f"http://127.0.0.1:{free_port()}")) == {"DNS": "ok", "TCP": "fail"}


def test_an_unknown_authority_fails_at_tls(certificates: dict[str, str]) -> None:
    tls = {name: certificates[name] for name in ("certfile", "keyfile")}
    with running_server("math", SECRET, **tls) as server:
        found = seen(server.url)
    assert verdicts(found) == {"DNS": "ok", "TCP": "ok", "TLS": "fail"}
    assert "--ca-file" in found["TLS"].advice


def test_a_server_that_wants_a_certificate_fails_without_one(certificates: dict[str, str]) -> None:
    tls = {name: certificates[name] for name in ("certfile", "keyfile")}
    with running_server("math", SECRET, **tls, client_ca=certificates["ca"]) as server:
        without = seen(server.url, ca_file=certificates["ca"])
        mine = {"client_cert": certificates["client"], "client_key": certificates["client_key"]}
        with_one = seen(server.url, ca_file=certificates["ca"], **mine)
    last = list(without.values())[-1]
    assert last.verdict is Verdict.FAIL
    assert "--client-cert" in last.advice
    assert with_one["body"].verdict is Verdict.OK


def test_https_to_a_plain_port_says_so() -> None:
    with running_server("math", SECRET) as server:
        found = seen(server.url.replace("http:", "https:"))
    assert found["TLS"].verdict is Verdict.FAIL
    assert "healthz" not in found


def test_a_server_that_never_finishes_the_handshake_fails_at_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = seen(f"https://127.0.0.1:{listening.getsockname()[1]}", timeout=0.3)
    assert verdicts(found) == {"DNS": "ok", "TCP": "ok", "TLS": "fail"}


def test_a_server_that_hangs_up_fails_at_healthz() -> None:
    with answering(b"") as port:
        assert seen(f"http://127.0.0.1:{port}")["healthz"].verdict is Verdict.FAIL


def test_another_kind_of_server_fails_at_the_signature() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as port:
        found = seen(f"http://127.0.0.1:{port}")
    assert found["signature"].verdict is Verdict.FAIL
    assert "something else answered" in found["signature"].advice
    assert "clock" not in found


def test_an_unknown_key_and_another_secret_are_told_apart() -> None:
    with running_server("math", Key(SECRET, "mine")) as server:
        unknown = seen(server.url, KeyRing.of(Key(SECRET, "yours")))["signature"]
        other = seen(server.url, KeyRing.of(Key(b"another secret of them", "mine")))["signature"]
    assert unknown.message.startswith("unknown_key")
    assert other.message.startswith("signature_invalid")


def test_a_ring_without_a_valid_key_ends_the_way_before_it_signs() -> None:
    with running_server("math", SECRET) as server:
        found = seen(server.url, KeyRing.of(Key(SECRET, not_after=1)))
    assert found["keys"].verdict is Verdict.FAIL
    assert "signature" not in found


def test_a_body_beyond_the_servers_limit_is_worth_a_word() -> None:
    with running_server("math", SECRET, max_encoded_args_size=30_000) as server:
        found = seen(server.url, body_size=40_000)
    assert found["body"].verdict is Verdict.WARN
    assert "max_encoded_args_size" in found["body"].advice


# Through a proxy -----------------------------------------------------------------------------------------------------


def test_a_proxy_that_refuses_fails_at_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as port:
        found = seen("https://dc1.example", proxy=f"http://user:word@127.0.0.1:{port}")
        assert verdicts(found) == {"DNS": "ok", "proxy": "fail"}
        monkeypatch.setenv("https_proxy", f"http://user:word@127.0.0.1:{port}")
        found = seen("https://dc1.example", proxy=None)
    assert verdicts(found) == {"DNS": "ok", "proxy": "fail"}


def test_a_proxy_that_is_not_there_fails_at_the_proxy() -> None:
    found = seen("http://dc1.example", proxy=f"http://127.0.0.1:{free_port()}")
    assert verdicts(found) == {"DNS": "ok", "proxy": "fail"}


def test_the_password_of_a_proxy_is_not_shown() -> None:
    with answering(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as port:
        found = seen("http://dc1.example", None, proxy=f"http://user:word@127.0.0.1:{port}")
    assert found["proxy"].message == f"through http://…@127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("code", "text", "hop"),
    [
        (pycurl.E_COULDNT_RESOLVE_PROXY, "", "proxy"),
        (97, "", "proxy"),
        (pycurl.E_RECV_ERROR, "CONNECT tunnel failed, response 403", "proxy"),
        (pycurl.E_COULDNT_RESOLVE_HOST, "", "DNS"),
        (pycurl.E_PEER_FAILED_VERIFICATION, "", "TLS"),
        (pycurl.E_SSL_CONNECT_ERROR, "", "TLS"),
        (pycurl.E_RECV_ERROR, "alert certificate required", "TLS"),
        (pycurl.E_OPERATION_TIMEDOUT, "", "reached"),
    ],
)
def test_what_curl_says_is_about_one_hop(code: int, text: str, hop: str) -> None:
    assert failed_hop(code, text, "reached") == hop
