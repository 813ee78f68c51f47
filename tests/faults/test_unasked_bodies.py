"""Bodies of people without a key, at paths that take none: read and dropped, never kept."""

from __future__ import annotations

import socket
import tracemalloc

import pytest

from backwater_tornado.testing import running_server

SIZE = 8_000_000


@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
def test_a_body_that_nobody_wants_is_not_kept(path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n".encode()
    body = memoryview(bytes(SIZE))
    with (
        running_server("math") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
    ):
        tracemalloc.start()
        try:
            connection.sendall(head)
            connection.sendall(body)
            answer = connection.recv(100)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.startswith(b"HTTP/1.1 40")
    assert peak < SIZE / 4
