"""Messages captured between the genuine Erlang backwater and its clients: "backwater" wire version 1, byte for byte.

The answers are all the genuine server's. The requests are its own client's, or that client's with something changed,
or crafted by an independent signer. Nothing in them depends on the time: they can be sent again as they are.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "erlang" / "version1.json"

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Request:
    """A request taken apart; the body is all that was sent after the head, be it too short or in chunks."""

    method: str
    target: str
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Response:
    """A response taken apart."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Server:
    """How a captured server was set up; times in seconds, sizes in bytes."""

    label: str
    exposed: str  # as Erlang writes it, as is `options`
    options: str
    compression_threshold: int = 300
    decode_unsafe_terms: bool = True
    max_encoded_args_size: int = 8_388_608
    recv_timeout: float = 5.0
    return_exception_stacktraces: bool = True


@dataclass(frozen=True)
class Captured:
    """One exchange; without a response, the client went away before there was one."""

    name: str
    what: str
    by: str  # "client", "client with changes" or "crafted"
    server: Server
    secret: bytes  # the server's
    client_secret: bytes  # the same but for e401_bad_secret
    client_options: str  # as Erlang writes them
    request: bytes
    response: bytes | None
    status: int | None
    signed: bool | None  # whether the response is
    args: str | None  # as Erlang prints them; None where they do not decode, or are very long
    term: str | None  # what a response of status 200 holds, as Erlang prints it; None where it is very long
    client_result: str | None  # what the genuine client made of it, as Erlang prints it; None for crafted requests
    notes: str = ""

    @cached_property
    def asked(self) -> Request:
        """The request taken apart."""
        return parse_request(self.request)

    @cached_property
    def answered(self) -> Response:
        """The response taken apart."""
        assert self.response is not None, f"{self.name} has no response"
        return parse_response(self.response)


def parse_request(raw: bytes) -> Request:
    """The parts of a request, with blanks around values taken off."""
    first, headers, body = _take_apart(raw)
    method, target, _ = first.split(" ")
    return Request(method, target, headers, body)


def parse_response(raw: bytes) -> Response:
    """The parts of a response."""
    first, headers, body = _take_apart(raw)
    return Response(int(first.split(" ")[1]), headers, body)


def _take_apart(raw: bytes) -> tuple[str, Headers, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return first, [(name, value.strip(" \t")) for name, value in pairs], body


#: What the tuned server was given; the other two keep the defaults but for stack traces.
_SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "tuned": {
        "compression_threshold": 50,
        "decode_unsafe_terms": False,
        "max_encoded_args_size": 1000,
        "recv_timeout": 1.0,
    },
    "nostack": {"return_exception_stacktraces": False},
}


def load() -> dict[str, Captured]:
    """All exchanges by name."""
    document = json.loads(FILE.read_text())
    secret = bytes.fromhex(document["secret"])
    servers = {
        label: Server(label, shown["exposed"], shown["options"], **_SETTINGS[label])
        for label, shown in document["servers"].items()
    }
    return {name: _captured(name, shown, servers, secret) for name, shown in document["vectors"].items()}


def _captured(name: str, shown: dict[str, Any], servers: dict[str, Server], secret: bytes) -> Captured:
    client_secret = shown.get("client_secret")
    return Captured(
        name=name,
        what=shown["what"],
        by=shown["by"],
        server=servers[shown["server"]],
        secret=secret,
        client_secret=bytes.fromhex(client_secret) if client_secret else secret,
        client_options=shown.get("client_options", "#{}"),
        request=base64.b64decode(shown["request"]),
        response=base64.b64decode(shown["response"]) if shown["response"] else None,
        status=shown["status"],
        signed=shown["signed"],
        args=shown.get("args"),
        term=shown.get("term"),
        client_result=shown.get("client_result"),
        notes=shown.get("notes", ""),
    )


CAPTURED = load()
