"""A server in a process of its own to throw bad input at: what it exposes, its keys, and how to watch its memory.

`python -m tests.end_to_end.target` serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import backwater_tornado as backwater
from backwater_tornado.protocol.codec import JSON, MSGPACK
from backwater_tornado.protocol.compression import decompress
from backwater_tornado.protocol.keys import Key, Scopes
from backwater_tornado.protocol.signatures import RequestHead, verify_response

AUTHORITY = "host:8080"
KEY = Key(bytes(range(32)), "test")
SCOPED = Key(bytes(range(2, 34)), "scoped", scopes=Scopes(call=("tasks.add",)))
EARLY = Key(bytes(range(3, 35)), "early", not_before=time.time() + 86_400)
LATE = Key(bytes(range(4, 36)), "late", not_after=time.time() - 86_400)
MIB = 1 << 20


class Tasks:
    """Exposed as `tasks`."""

    def add(self, x: int, y: int = 0) -> int:
        return x + y

    def echo(self, value: Any) -> Any:
        return value

    def unserialisable(self) -> object:
        return object()

    def large(self) -> bytes:
        return bytes(9 * MIB)

    def fail(self, text: str) -> None:
        raise ValueError(text)

    async def fail_awaited(self, text: str) -> None:
        raise ValueError(text)


class Target:
    """The process."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self._proc = Path(f"/proc/{self._process.pid}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)

    def forget_peak(self) -> int:
        """Start measuring the peak anew; gives the resident bytes of now."""
        (self._proc / "clear_refs").write_text("5")
        return self._read("VmRSS")

    def peak(self) -> int:
        """The most resident bytes since."""
        return self._read("VmHWM")

    def _read(self, name: str) -> int:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(name)


@dataclass
class Answer:
    """A response as it came."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """What the body stands for, problem details included."""
        codec = JSON if self.fields["content-type"].endswith("json") else MSGPACK
        body = decompress(self.body, 32 * MIB) if "content-encoding" in self.fields else self.body
        return codec.decode(body)

    def signed_for(self, head: RequestHead, key: Key, nonce: str) -> bool:
        """Whether it carries a good signature that answers this request; raises where it carries a bad one."""
        if "signature" not in self.fields:
            return False
        verify_response(key, head, nonce, self.status, self.fields)
        return True


def write_head(head: RequestHead) -> bytes:
    """The head as it goes over the wire."""
    target = head.path + (f"?{head.query}" if head.query else "")
    lines = [f"{head.method} {target} HTTP/1.1", f"Host: {head.authority}"]
    lines += [f"{name}: {value}" for name, value in head.fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def exchange(port: int, head: RequestHead | bytes, body: bytes = b"", timeout: float = 20.0) -> Answer:
    """Send one request over a connection of its own and read its answer."""
    with connect(port, timeout) as connection:
        sent = head if isinstance(head, bytes) else write_head(head)
        connection.send(sent + body)
        return connection.read_answer(with_body=not sent.startswith(b"HEAD "))


class Connection:
    """A connection that is spoken on byte by byte."""

    def __init__(self, port: int, timeout: float) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_answer(self, *, with_body: bool = True) -> Answer:
        """One answer; raises ConnectionError when the server has closed."""
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("the server has closed the connection")
        fields: dict[str, str] = {}
        while (field := self._file.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = field.partition(":")
            fields[name.lower()] = value.strip()
        length = int(fields.get("content-length", "0")) if with_body else 0
        return Answer(int(line.split()[1]), fields, self._file.read(length))

    @property
    def closed(self) -> bool:
        """Waits until the server sends something or closes."""
        return not self._file.peek(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()


def connect(port: int, timeout: float = 20.0) -> Connection:
    """A new connection to a server of this machine."""
    return Connection(port, timeout)


async def _serve() -> None:
    server = backwater.start_clear_server(
        backwater.KeyRing([EARLY, LATE, SCOPED, KEY]),
        backwater.Exposed(tasks=Tasks()),
        port=0,
        address="127.0.0.1",
        authorities=(AUTHORITY, "127.0.0.1"),
        return_exception_stacktraces=False,
        max_calls_per_request=100,
    )
    print(server.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    threading.stack_size(512 * 1024)
    asyncio.run(_serve())
