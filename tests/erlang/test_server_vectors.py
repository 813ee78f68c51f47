"""Every captured message of version 1, sent to a server of ours: the answer of the genuine server, or a better one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from backwater_tornado.options import ErlangOptions
from backwater_tornado.protocol.erlang.decoding import decode_term
from backwater_tornado.protocol.erlang.http import gunzip
from backwater_tornado.testing import RunningServer, running_server
from tests.erlang.functions import EXPOSED
from tests.vectors.erlang import CAPTURED, Response, Server, parse_response

#: Exchanges that had no answer to compare with; and a body that does not come, which ends the connection here.
UNANSWERED = {"client_recv_timeout", "x_kill_self", "x_slow_body"}

#: Where this server answers otherwise than a genuine one, on purpose: status, body, signed, and why.
DIFFERENT: dict[str, tuple[int, str | None, bool, str]] = {
    "e404_exposed_module_missing": (403, "", True, "what cannot be loaded is not exposed here in the first place"),
    "e404_location": (404, None, False, "told as problem details, like every path that is not served"),
    "e404_version": (404, None, False, "as above"),
    "e_accept_malformed": (400, "bad_accept", True, "a good signature gets a signed answer"),
    "e_content_type_malformed": (400, "bad_content_type", True, "as above"),
    "ok_query_string": (400, "invalid_path", True, "the signed text does not show where a query begins"),
    "x_query_split": (400, "invalid_path", True, "so this, which was signed as abs/12, is not run as abs/1"),
    "x_te_injected": (413, "", True, "a body without a stated length is not read"),
    "x_accept_q0": (406, "", True, "q=0 means no"),
}
#: 200 as from the genuine server, and a result that differs only as said.
DIFFERENT_TERM = {
    "exc_error_stack": "the frames of a stack are Python's",
    "exc_error_term_stack": "as above",
    "exc_exit_stack": "as above",
    "exc_throw_stack": "as above",
    "exc_function_clause_stack": "as above",
    "exc_deep_stack": "as above",
    "replay_second": "the number is another at every call",
}
#: Compressed by the genuine server, and not by this one.
NOT_GZIPPED = {
    "gzip_result_incompressible": "gzip would make it larger",
    "gzip_result_300": "our atoms are a byte shorter, and so is the result: 299 bytes",
    "client_result_over_wire_limit": "as above",
    "x_accept_encoding_q0": "q=0 means no",
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, RunningServer]]:
    settings: dict[str, Server] = {each.server.label: each.server for each in CAPTURED.values()}
    with ExitStack() as stack:
        yield {label: stack.enter_context(_serving(server)) for label, server in settings.items()}


def _serving(server: Server) -> Any:
    secret = next(each.secret for each in CAPTURED.values() if each.server.label == server.label)
    return running_server(
        EXPOSED[server.label],
        erlang=ErlangOptions(secret=secret, decode_unsafe_terms=server.decode_unsafe_terms),
        compression_threshold=server.compression_threshold,
        max_encoded_args_size=server.max_encoded_args_size,
        return_exception_stacktraces=server.return_exception_stacktraces,
        body_timeout=server.recv_timeout,
    )


def exchange(server: RunningServer, request: bytes) -> Response:
    """Send bytes, read one answer."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(request)
        received = b""
        while not _is_whole(received):
            data = connection.recv(65536)
            assert data, f"closed after {received!r}"
            received += data
    return parse_response(received)


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    lines = [line.lower() for line in head.split(b"\r\n")]
    lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
    return len(body) >= (lengths[0] if lengths else 0)


def fields_of(response: Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers}


def is_signed(response: Response, secret: bytes) -> bool:
    """Whether it has a signature; it must fit then."""
    fields = fields_of(response)
    if "signature" not in fields:
        return False
    parameters = dict(part.split("=", 1) for part in fields["signature"].split(","))
    names = parameters["headers"].strip('"').split(" ")
    values = {**fields, "(response-status)": str(response.status)}
    text = "\n".join(f"{name}: {values[name].strip()}" for name in names)
    mac = base64.b64encode(hmac.digest(secret, text.encode("latin-1"), "sha256")).decode()
    assert parameters["signature"].strip('"') == mac
    assert {"(response-status)", "digest", "x-request-id", "content-type", "content-length"} <= set(names)
    assert fields["digest"] == "SHA-256=" + base64.b64encode(hashlib.sha256(response.body).digest()).decode()
    return True


def term_of(response: Response) -> Any:
    fields = fields_of(response)
    body = gunzip(response.body, 1 << 24) if fields.get("content-encoding") == "gzip" else response.body
    return decode_term(body)


@pytest.mark.parametrize("name", [name for name in CAPTURED if name not in UNANSWERED])
def test_the_answer_is_that_of_a_genuine_server(name: str, servers: dict[str, RunningServer]) -> None:
    captured = CAPTURED[name]
    server = servers[captured.server.label]
    answer = exchange(server, captured.request)
    genuine = captured.answered
    if captured.name in DIFFERENT:
        status, body, signed, _ = DIFFERENT[captured.name]
        assert (answer.status, is_signed(answer, captured.secret)) == (status, signed)
        assert body is None or answer.body.decode() == body
        return
    assert answer.status == genuine.status, answer
    assert is_signed(answer, captured.secret) is captured.signed
    fields, expected = fields_of(answer), fields_of(genuine)
    for field in ("content-type", "x-request-id", "www-authenticate", "cache-control", "pragma", "expires"):
        assert fields.get(field) == expected.get(field), field
    if captured.name not in NOT_GZIPPED | DIFFERENT_TERM:  # how long a term is decides
        assert fields.get("content-encoding") == expected.get("content-encoding")
    if answer.status != 200:
        assert answer.body == genuine.body
    elif captured.name in DIFFERENT_TERM:
        assert term_of(answer)[0] == term_of(genuine)[0]
        if term_of(answer)[0] == "exception":
            assert term_of(answer)[1][:2] == term_of(genuine)[1][:2]
    else:
        assert term_of(answer) == term_of(genuine)
