"""For tests of programs that use this package: a real server in a with-block.

The server runs on its own loop in a thread of this process, listens on a free port of 127.0.0.1, and speaks the true
protocol: encoding, signatures, limits and memory are those of production.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .server import Server, start_clear_server, start_tls_server

T = TypeVar("T")


class RunningServer:
    """A server under test."""

    def __init__(self, server: Server, secret: object, loop: asyncio.AbstractEventLoop, scheme: str) -> None:
        self.server = server
        self.secret = secret
        self.port = server.port
        self.url = f"{scheme}://127.0.0.1:{server.port}"
        self._loop = loop

    def run(self, function: Callable[[], T]) -> T:
        """Run a function on the server's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(_call(function), self._loop).result(10)

    def stop(self, grace: float = 5.0) -> bool:
        """Drain and stop the server before the block ends; False when calls were cut."""
        return asyncio.run_coroutine_threadsafe(self.server.stop(grace), self._loop).result(grace + 10)


async def _call(function: Callable[[], T]) -> T:
    return function()


@contextmanager
def running_server(
    exposed: object, secret: object = None, *, certfile: str = "", keyfile: str = "", **options: Any
) -> Iterator[RunningServer]:
    """Serve `exposed` for the length of a with-block.

    Args:
        exposed: as `start_clear_server`.
        secret: a random one by default, see `RunningServer.secret`.
        certfile, keyfile: serve over TLS with them.
        options: as `start_clear_server`; the port is chosen by the system unless `port` is given.
    """
    secret = secrets.token_bytes(32) if secret is None else secret
    options = {"port": 0, "address": "127.0.0.1", "ref": f"testing-{secrets.token_hex(4)}", **options}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="backwater-testing", daemon=True)
    thread.start()
    start: Callable[..., Server] = start_clear_server
    if certfile:
        start, options = start_tls_server, {**options, "certfile": certfile, "keyfile": keyfile}
    try:
        starting = asyncio.run_coroutine_threadsafe(_call(lambda: start(secret, exposed, **options)), loop)
        server = starting.result(10)
        running = RunningServer(server, secret, loop, "https" if certfile else "http")
        try:
            yield running
        finally:
            running.stop(0.0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
