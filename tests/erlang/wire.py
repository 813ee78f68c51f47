"""Version 1 of the wire, written again without any of the package: what signs, sends and reads raw bytes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

SECRET = bytes(range(100, 132))
TYPE = "application/x-erlang-etf"
BLANKS = " \t"
_IDS = itertools.count(1)

Fields = dict[str, str]


def sha256(body: bytes) -> str:
    """The value of `digest`."""
    return "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode()


def fields_of(body: bytes, **more: str | None) -> Fields:
    """What a genuine client sends, with other fields or, None, without them; names with underscores."""
    fields: dict[str, str | None] = {
        "accept": TYPE,
        "accept-encoding": "gzip",
        "content-length": str(len(body)),
        "content-type": TYPE,
        "digest": sha256(body),
        "x-request-id": f"request-{next(_IDS)}",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return {name: value for name, value in fields.items() if value is not None}


def signed(
    fields: Mapping[str, str],
    target: str = "/backwater/1/tasks/add/2",
    *,
    method: str = "POST",
    secret: bytes = SECRET,
    names: Sequence[str] | None = None,
) -> Fields:
    """The fields and `authorization`, over all of them or over `names`."""
    names = ["(request-target)", *sorted(fields)] if names is None else names
    values = {**fields, "(request-target)": f"{method.lower()} {target.replace('?', '', 1)}"}
    text = "\n".join(f"{name}: {values[name].strip(BLANKS)}" for name in names)
    mac = base64.b64encode(hmac.digest(secret, text.encode("latin-1"), "sha256")).decode()
    shown = f'algorithm="hmac-sha256",headers="{" ".join(names)}",keyId="default",signature="{mac}"'
    return {**fields, "authorization": f"Signature {shown}"}


def signed_response(
    fields: Mapping[str, str], status: int, *, secret: bytes = SECRET, names: Sequence[str] | None = None
) -> Fields:
    """The fields of a response and `signature`, over all of them or over `names`."""
    names = ["(response-status)", *sorted(fields)] if names is None else names
    values = {**fields, "(response-status)": str(status)}
    text = "\n".join(f"{name}: {values[name]}" for name in names)
    mac = base64.b64encode(hmac.digest(secret, text.encode("latin-1"), "sha256")).decode()
    shown = f'algorithm="hmac-sha256",headers="{" ".join(names)}",keyId="default",signature="{mac}"'
    return {**fields, "signature": shown}


def request_of(
    body: bytes,
    target: str = "/backwater/1/tasks/add/2",
    *,
    method: str = "POST",
    unsigned: str = "",
    version: str = "1.1",
    sent: bytes | None = None,
    **more: str | None,
) -> bytes:
    """The bytes of a signed request, with `unsigned` lines; `sent` goes instead of the body."""
    fields = signed(fields_of(body, **more), target, method=method)
    return raw(method, target, fields, body if sent is None else sent, unsigned, version)


def raw(
    method: str, target: str, fields: Mapping[str, str], body: bytes, unsigned: str = "", version: str = "1.1"
) -> bytes:
    """A request as bytes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/{version}\r\nhost: server\r\n{lines}{unsigned}\r\n".encode("latin-1") + body


@dataclass(frozen=True)
class Answer:
    """A response taken apart; `trusted` when its signature fits."""

    status: int
    fields: Fields
    body: bytes
    trusted: bool


class Connection:
    """A connection that sends bytes and reads answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self._received = b""

    def send(self, data: bytes) -> None:
        with suppress(ConnectionError):  # of one that is refused early the answer counts
            self.socket.sendall(data)

    def read(self, *, secret: bytes = SECRET, bodiless: bool = False) -> Answer | None:
        """The next answer; None when the connection was closed without one."""
        while b"\r\n\r\n" not in self._received:
            if not self._more():
                return None
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields: Fields = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in fields, f"{name} twice"
            fields[name.lower()] = value
        length = 0 if bodiless else int(fields.get("content-length", "0"))
        while len(self._received) < length:
            assert self._more(), "an answer was cut"
        body, self._received = self._received[:length], self._received[length:]
        status = int(first.split(" ")[1])
        return Answer(status, fields, body, fits(status, fields, body, secret))

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._received += data
        return bool(data)

    def close(self) -> None:
        self.socket.close()


@contextmanager
def connected(port: int) -> Iterator[Connection]:
    """A connection for the length of a with-block."""
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.close()


def exchange(port: int, request: bytes, *, secret: bytes = SECRET, bodiless: bool = False) -> Answer | None:
    """Send bytes on a connection of their own, and read one answer."""
    with connected(port) as connection:
        connection.send(request)
        return connection.read(secret=secret, bodiless=bodiless)


def fits(status: int, fields: Fields, body: bytes, secret: bytes) -> bool:
    """Whether an answer is signed; a signature that does not fit is a failure."""
    if "signature" not in fields:
        return False
    parameters = dict(part.split("=", 1) for part in fields["signature"].split(","))
    names = parameters["headers"].strip('"').split(" ")
    values = {**fields, "(response-status)": str(status)}
    text = "\n".join(f"{name}: {values[name]}" for name in names).encode("latin-1")
    mac = base64.b64encode(hmac.digest(secret, text, "sha256")).decode()
    assert parameters["signature"] == f'"{mac}"'
    assert {"(response-status)", "digest", "x-request-id", "content-type", "content-length"} <= set(names)
    assert fields["digest"] == sha256(body)
    return True
