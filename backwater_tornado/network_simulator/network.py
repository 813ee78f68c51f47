"""A bad network between a client and a server: a TCP proxy on a port of its own, in a thread and a loop of its own.

Two levels. Any protocol over TCP goes through, late, slowly, or not at all::

    with BadNetwork("127.0.0.1", broker.port, delay=0.05, bandwidth=1e6) as network:
        app = App(network.url, secret)
        ...
        network.blackhole()
        ...
        network.heal()

With a policy, HTTP/1.1 is understood just enough to do harm at a chosen moment of a chosen request. The policy is asked
for every request that has been read whole::

    with BadNetwork("127.0.0.1", server.port, Script([CUT_AFTER_REQUEST, PASS])) as network:
        ...
    assert network.faults() == [CUT_AFTER_REQUEST, PASS]

What breaks inside is kept, and raised when the with-block ends, so that a fault of the simulator is never taken for one
of the client. Nothing is modelled of TCP's slow start, and a connection is always accepted at once: what a real one
waits for its handshake, its first bytes wait here.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

from .conditions import Conditions, Counts, Side, Stalls
from .connections import Connection, Link, relay
from .faults import Fault, Policy, Seen
from .paths import End, Way
from .requests import Requests

T = TypeVar("T")


class BadNetwork:
    """See the head of this module; entering starts it, leaving ends every connection and raises what broke inside.

    Args:
        host, port: the server.
        policy: what happens to HTTP requests; None does not look into what goes through.
        delay, bandwidth, stalls, drip: see `Conditions`.

    Attributes:
        policy: may be changed while it runs, from one to another.
        port: where it listens on 127.0.0.1, once it is entered.
        seen: every request with what was done to it, in order of arrival.
    """

    def __init__(
        self,
        host: str,
        port: int,
        policy: Policy | None = None,
        *,
        delay: float = 0.0,
        bandwidth: float | None = None,
        stalls: Stalls | None = None,
        drip: float | None = None,
    ) -> None:
        conditions = Conditions(delay, bandwidth, stalls, drip)
        self._link = Link(Way(conditions, "up"), Way(conditions, "down"), (host, port))
        self.policy = policy
        self.port = 0
        self.seen: list[tuple[Seen, Fault]] = []
        self._accepted = 0
        self._connections: set[Connection] = set()
        self._taking: set[asyncio.Task[None]] = set()
        self._cutting: asyncio.Task[None] | None = None
        self._broken: list[Exception] = []
        self._arrived = threading.Condition()

    @property
    def url(self) -> str:
        """For an HTTP client."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def upstream(self) -> tuple[str, int]:
        """The server; may be changed while it runs (one that came back on another port): new connections go there."""
        return self._link.upstream

    @upstream.setter
    def upstream(self, upstream: tuple[str, int]) -> None:
        self._link.upstream = upstream

    def counts(self) -> Counts:
        """What has gone over it."""
        return Counts(self._link.up.bytes, self._link.down.bytes, self._accepted, len(self._connections))

    def faults(self) -> list[Fault]:
        """What was done to each request, in order of arrival."""
        return [fault for _, fault in list(self.seen)]

    def wait_for(self, requests: int, timeout: float = 10.0) -> None:
        """Blocks until that many requests have been read whole."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.seen) >= requests, timeout):
                raise TimeoutError(f"{len(self.seen)} of {requests} requests came within {timeout} s")

    # What can be done to it while it runs

    def change(self, **conditions: Any) -> None:
        """Change fields of its `Conditions`, for what is sent from now on."""
        changed = replace(self._link.up.conditions, **conditions)
        for way in self._ways():
            self._call(partial(way.set, changed))

    def cut_all(self, *, reset: bool = False) -> None:
        """End every connection that is open now, at once, by FIN or by RST; new ones are taken as before."""
        self._call(lambda: self._cut(reset=reset))

    def cut_every(self, seconds: float, *, reset: bool = False) -> None:
        """From now on `cut_all` every so many seconds, until `heal`."""

        async def cut() -> None:
            while True:
                await asyncio.sleep(seconds)
                self._cut(reset=reset)

        def begin() -> None:
            self._end_cutting()
            self._cutting = self._loop.create_task(cut())

        self._call(begin)

    def stall(self) -> None:
        """Hold all bytes back, until `heal`: nothing gets lost, as when the link is away for a while."""
        self._call(lambda: self._set(is_held=True))

    def blackhole(self) -> None:
        """Swallow all bytes, without a FIN or an RST, until `heal`.

        Nothing comes any more, ever, of a connection that has tried to say something meanwhile: as when a router in
        between has forgotten it. New connections are accepted, and the server never hears of them.
        """
        self._call(lambda: self._set(is_dead=True))

    def forget(self, side: Side) -> None:
        """Make every connection half-open: that side's end is closed, and the other hears nothing, now or later."""

        def forget() -> None:
            for each in list(self._connections):
                each.forget(client=side is Side.CLIENT)

        self._call(forget)

    def heal(self) -> None:
        """All goes through again: no cutting, stalling or swallowing any more; `Conditions` stay."""

        def heal() -> None:
            self._end_cutting()
            self._set()
            for each in list(self._connections):
                each.let_out()

        self._call(heal)

    # Running

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bad-network", daemon=True)
        self._thread.start()
        self._call(lambda: self._loop.add_reader(self._listener, self._accept))
        return self

    def __exit__(self, kind: object, raised: BaseException | None, traceback: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._broken and raised is None:
            raise ExceptionGroup("the network simulator itself broke", self._broken)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _accept(self) -> None:
        # Neither awaiting it nor `create_server` is safe: both may lose what they have just accepted when they end.
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock.setblocking(False)
        self._taking.add(task := self._loop.create_task(self._take(sock)))
        task.add_done_callback(self._taking.discard)

    async def _take(self, sock: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._connection, sock)

    def _connection(self) -> End:
        connection = Connection(self._link, self._accepted, self._connections.discard)
        self._accepted += 1
        self._connections.add(connection)
        work = relay(connection) if self.policy is None else Requests(connection, self._decide).serve()
        connection.work(work).add_done_callback(self._ended)
        return connection.client

    def _ended(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and isinstance(failure := work.exception(), Exception):
            self._broken.append(failure)

    def _decide(self, connection: int, on_connection: int, head: bytes, body: bytes) -> tuple[Seen, Fault]:
        assert self.policy is not None
        seen = Seen(len(self.seen), connection, on_connection, head, body)
        fault = self.policy(seen)
        with self._arrived:
            self.seen.append((seen, fault))
            self._arrived.notify_all()
        return seen, fault

    def _ways(self) -> tuple[Way, Way]:
        return self._link.up, self._link.down

    def _set(self, *, is_held: bool = False, is_dead: bool = False) -> None:
        for way in self._ways():
            way.is_held, way.is_dead = is_held, is_dead

    def _cut(self, *, reset: bool = False) -> None:
        for each in list(self._connections):
            each.cut(reset=reset)

    def _end_cutting(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None

    async def _stop(self) -> None:
        self._end_cutting()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        # What was accepted a moment ago becomes a connection in the loop's next turns; then it is cut as well.
        while self._connections or asyncio.all_tasks() != {asyncio.current_task()}:
            self._cut()
            await asyncio.sleep(0)
        await self._loop.shutdown_default_executor()
