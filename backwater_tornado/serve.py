"""Serving in the foreground of a process, until a signal ends it.

SIGTERM and SIGINT: no more connections, calls in progress have `grace` seconds to end; a second one cuts them. SIGHUP:
the file of keys is read again; a file that cannot be used changes nothing. A process that a supervisor started
(`supervisor`) has a channel to it, and stops when the channel closes: so it never outlives its parent, `kill -9` of
that included.

Rule: one process, one loop, one server; whoever wants several starts this several times.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from .broker_server import BrokerServer, start_broker
from .errors import ConfigurationError, InvalidOption
from .exposure import Exposure
from .keyfiles import read_keys
from .loading import load_exposure, project_files
from .options import CLEAR_PORT, TLS_PORT, ErlangOptions
from .server import Server, start_clear_server, start_tls_server

log = logging.getLogger("backwater.serve")

#: What a child process is told: a plan of plain values.
P = TypeVar("P")

#: A process that should have ended is ended by force after this, beyond the grace period, seconds.
PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to serve and how: plain values, so that a child process can be told."""

    modules: tuple[str, ...]
    secret_file: str
    port: int | None = None
    address: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None
    state: str | None = None
    #: The URL of a broker's store: serve a broker, with or without modules beside.
    store: str | None = None
    #: Where a broker tells Prometheus what it is doing.
    metrics_port: int | None = None
    metrics_address: str = "127.0.0.1"
    grace: float = 30.0
    log_level: str = "info"
    erlang: bool = False
    erlang_secret_file: str | None = None
    erlang_modules: tuple[str, ...] = ()
    erlang_replay_window: float = 60.0
    erlang_none: str = "undefined"
    #: Fields of `ServerOptions`, `ListenerOptions` and `Limits`.
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.modules and self.store is None:
            load_exposure(self.modules)  # says what to name
        if not self.secret_file:
            read_keys(self.secret_file)
        if bool(self.tls_cert) != bool(self.tls_key):
            missing = "tls_key" if self.tls_cert else "tls_cert"
            raise InvalidOption(f"TLS needs tls_cert and tls_key; {missing} is missing")
        if self.client_ca and not self.tls_cert:
            raise InvalidOption("client_ca needs TLS: give tls_cert and tls_key")
        if not 0 <= self.listening_port < 65536:
            raise InvalidOption(f"port is between 0 and 65535, not {self.port}")
        if not 0 <= self.grace < 86400:
            raise InvalidOption(f"grace is between 0 and 86400 seconds, not {self.grace:g}")
        if not self.erlang and (self.erlang_secret_file or self.erlang_modules):
            raise InvalidOption("erlang_secret_file and erlang_modules need erlang: give --erlang")

    def erlang_options(self) -> ErlangOptions | bool:
        """How Erlang nodes are answered, if at all; reads their keys and imports their modules."""
        if not self.erlang:
            return False
        return ErlangOptions(
            secret=read_keys(self.erlang_secret_file) if self.erlang_secret_file else None,
            exposed=load_exposure(self.erlang_modules) if self.erlang_modules else None,
            replay_window=self.erlang_replay_window,
            none=self.erlang_none,
        )

    @property
    def listening_port(self) -> int:
        """The port, or the usual one."""
        if self.port is None:
            return TLS_PORT if self.tls_cert else CLEAR_PORT
        return self.port

    def url(self, port: int) -> str:
        """Where callers on this machine find it."""
        host = self.address if self.address not in (None, "", "0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared
        return f"{'https' if self.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


class ParentChannel:
    """The way from a child to its supervisor: a socket that closes when either dies."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._file = self._socket.makefile("rb")

    def read_plan(self, kind: type[P]) -> P:
        """What the parent says to do."""
        return kind(**json.loads(self._file.readline()))

    def ready(self, exposure: Exposure) -> None:
        """Tell the parent."""
        with suppress(OSError):
            self._socket.sendall(json.dumps(project_files(exposure)).encode() + b"\n")

    def wait_closed(self) -> None:
        """Block until the parent is gone; it never writes again."""
        with suppress(OSError):
            self._file.read()


async def start_server(plan: Plan, exposure: Exposure) -> Server | BrokerServer:
    """Listen as the plan says.

    Raises:
        ConfigurationError: keys, options, certificate, store or port.
    """
    keys = read_keys(plan.secret_file)
    options: dict[str, Any] = {"port": plan.listening_port, "address": plan.address, **plan.options}
    options["erlang"] = plan.erlang_options()
    if plan.state is not None:
        options["state"] = plan.state
    if plan.tls_cert is not None:
        options |= {"certfile": plan.tls_cert, "keyfile": plan.tls_key, "client_ca": plan.client_ca}
    try:
        if plan.store is not None:
            metrics = None if plan.metrics_port is None else (plan.metrics_address, plan.metrics_port)
            return await start_broker(keys, plan.store, exposed=exposure, metrics=metrics, **options)
        start: Callable[..., Server] = start_clear_server if plan.tls_cert is None else start_tls_server
        return start(keys, exposure, **options)
    except ConfigurationError:
        raise
    except OSError as error:
        raise port_trouble(plan, error) from error


def port_trouble(plan: Plan, error: OSError) -> InvalidOption:
    """Why a port cannot be used, and what to do."""
    where = f"port {plan.listening_port} of {plan.address or 'all addresses'}"
    return InvalidOption(
        f"{where} cannot be used: {error.strerror or error}; choose another --port (0: any) or --address"
    )


def serve(plan: Plan, channel: ParentChannel | None = None) -> int:
    """Serve until told to stop; gives the exit code."""
    exposure = load_exposure(plan.modules) if plan.modules else Exposure()
    return asyncio.run(_Serving(plan, exposure, channel).run())


class _Serving:
    """The life of a serving process, from listening to the end."""

    def __init__(self, plan: Plan, exposure: Exposure, channel: ParentChannel | None) -> None:
        self._plan = plan
        self._exposure = exposure
        self._channel = channel
        self._asked = asyncio.Event()
        self._insisted = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        server = await start_server(self._plan, self._exposure)
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_keys, server)
        if self._channel is None:
            announce(self._plan, server.port)
            if isinstance(server, BrokerServer) and server.metrics_port is not None:
                log.info("metrics on http://%s:%d/metrics", self._plan.metrics_address, server.metrics_port)
        else:
            self._channel.ready(self._exposure)
            watch_parent(self._channel, loop, self._stop, self._plan.grace)
        await self._asked.wait()
        if await self._drain(server):
            return 0
        log.warning("stopped: calls in progress were cut")
        return end_now(1)

    def _stop(self) -> None:
        (self._insisted if self._asked.is_set() else self._asked).set()

    def _reload_keys(self, server: Server | BrokerServer) -> None:
        try:
            keys = read_keys(self._plan.secret_file)
            file = self._plan.erlang_secret_file
            erlang = read_keys(file) if file else None
        except ConfigurationError as error:
            log.error("the keys stay as they were: %s", error)  # noqa: TRY400 - the text says it all
            return
        server.reload_keys(keys, erlang=erlang)
        log.info("keys reloaded: %s", ", ".join(keys.ids))

    async def _drain(self, server: Server | BrokerServer) -> bool:
        """Stop gracefully; at once when a second signal comes."""
        draining = asyncio.ensure_future(server.stop(self._plan.grace))
        await asyncio.sleep(0)  # it has begun: no more connections by the time this is said
        log.info("stopping: calls in progress have %g s to end; a second signal cuts them", self._plan.grace)
        insisting = asyncio.ensure_future(self._insisted.wait())
        await asyncio.wait({draining, insisting}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            insisting.cancel()
            return draining.result()
        draining.cancel()
        return await server.stop(0.0)


def announce(plan: Plan, port: int, processes: int = 1) -> None:
    """The line that scripts wait for."""
    several = f" with {processes} processes" if processes > 1 else ""
    log.info("serving on %s%s", plan.url(port), several)


def end_now(code: int) -> NoReturn:
    """End this process whatever threads and tasks may still be doing."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def watch_parent(
    channel: ParentChannel, loop: asyncio.AbstractEventLoop, stop: Callable[[], None], grace: float
) -> None:
    """Stop when the supervisor is gone; a thread, so that a blocked loop does not keep the process alive."""

    def wait() -> None:
        channel.wait_closed()
        loop.call_soon_threadsafe(stop)
        time.sleep(grace + PATIENCE)
        end_now(1)

    threading.Thread(target=wait, name="backwater-supervisor", daemon=True).start()
