"""For tests of programs that use this package: a real server, or broker, in a with-block.

It runs on its own loop in a thread of this process, listens on a free port of 127.0.0.1, and speaks the true
protocol: encoding, signatures, limits and memory are those of production.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .broker_server import BrokerServer, start_broker
from .errors import InvalidOption
from .server import Server, start_clear_server, start_tls_server

T = TypeVar("T")
R = TypeVar("R", bound="RunningServer")


class RunningServer:
    """A server under test."""

    def __init__(self, server: Server, secret: object, scheme: str) -> None:
        self.server = server
        self.secret = secret
        self.port = server.port
        self.url = f"{scheme}://127.0.0.1:{server.port}"
        self._loop = asyncio.get_running_loop()
        self._serving: Server | BrokerServer = server

    def run(self, function: Callable[[], T]) -> T:
        """Run a function on the server's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(_call(function), self._loop).result(10)

    def stop(self, grace: float = 5.0) -> bool:
        """Drain and stop the server before the block ends; False when calls were cut."""
        return asyncio.run_coroutine_threadsafe(self._serving.stop(grace), self._loop).result(grace + 10)


class Clock:
    """A clock that a test moves by hand: `running_broker(clock=Clock())`. Safe across threads."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        """Unix seconds."""
        return self.now


class RunningBroker(RunningServer):
    """A server under test with a broker behind it."""

    def __init__(self, serving: BrokerServer, secret: object, scheme: str, clock: Callable[[], float]) -> None:
        super().__init__(serving.server, secret, scheme)
        self.broker = serving.broker
        self._serving = serving
        self._clock = clock

    def advance(self, seconds: float) -> None:
        """Move the broker's clock; what is due by then, or has expired, is so when this returns. Needs a `Clock`."""
        if not isinstance(self._clock, Clock):
            raise InvalidOption("only a Clock can be moved: running_broker(clock=Clock())")
        self._clock.now += seconds
        asyncio.run_coroutine_threadsafe(self.broker.sweep(), self._loop).result(10)


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

    async def start(secret: object, **options: Any) -> RunningServer:
        if certfile:
            tls = {"certfile": certfile, "keyfile": keyfile}
            return RunningServer(start_tls_server(secret, exposed, **tls, **options), secret, "https")
        return RunningServer(start_clear_server(secret, exposed, **options), secret, "http")

    with _running(start, secret, options) as running:
        yield running


@contextmanager
def running_broker(
    store: str = "memory://", secret: object = None, *, clock: Callable[[], float] = time.time, **options: Any
) -> Iterator[RunningBroker]:
    """Serve a broker for the length of a with-block; in memory unless `store` says otherwise.

    Args:
        store: as `start_broker`.
        secret: a random one by default, see `RunningServer.secret`.
        clock: the broker's own; a test may give a `Clock`, and move it with `RunningBroker.advance`.
        options: as `start_broker`; the port is chosen by the system unless `port` is given.
    """

    async def start(secret: object, **options: Any) -> RunningBroker:
        scheme = "https" if "certfile" in options else "http"
        return RunningBroker(await start_broker(secret, store, clock=clock, **options), secret, scheme, clock)

    with _running(start, secret, options) as running:
        yield running


@contextmanager
def _running(start: Callable[..., Coroutine[Any, Any, R]], secret: object, options: dict[str, Any]) -> Iterator[R]:
    secret = secrets.token_bytes(32) if secret is None else secret
    options = {"port": 0, "address": "127.0.0.1", "ref": f"testing-{secrets.token_hex(4)}", **options}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="backwater-testing", daemon=True)
    thread.start()
    try:
        running = asyncio.run_coroutine_threadsafe(start(secret, **options), loop).result(10)
        try:
            yield running
        finally:
            running.stop(0.0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
