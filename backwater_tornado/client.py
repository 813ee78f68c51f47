"""The two clients: `Client` blocks, `AsyncClient` is awaited; and `call` for scripts.

Each verb is one line over a generator of `session`; what differs is how a step is performed. The blocking client uses
a curl handle in the caller's own thread (no loop, so it works anywhere, a running loop included); the awaitable one
sends what is called at the same time together (`coalescing`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary, WeakSet

from tornado.httpclient import AsyncHTTPClient

from .coalescing import Engine, Lane
from .curl import EasyTransport, MultiEngine
from .driving import drive, drive_async
from .errors import CallFailed, InvalidEndpoint, Unreachable
from .gathering import gather_blocking
from .options import CallOptions, make_options
from .protocol.calling import Answer, Attempt, Pause, Target
from .session import Session
from .tornado_engine import TornadoEngine


class Module:
    """A remote module: its functions are attributes, `client.module("tasks").add(1, 2)`."""

    def __init__(self, client: Client | AsyncClient, name: str) -> None:
        self._client = client
        self._name = name

    def __getattr__(self, function: str) -> Any:
        if function.startswith("__"):
            raise AttributeError(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._client.call(self._name, function, *args, **kwargs)

        call.__name__ = call.__qualname__ = function
        return call

    def __repr__(self) -> str:
        return f"<remote module {self._name}>"


class _Face:
    """What both clients have in common."""

    def __init__(self, endpoints: object, secret: object, **options: Any) -> None:
        self._session = Session(endpoints, secret, options)
        self._own = CallOptions()
        _FACES.add(self)  # type: ignore[arg-type]  # there are no others than the two below

    def with_options(self, **options: Any) -> Self:
        """The same client (connections, counters) with options of `CallOptions` for the calls made through it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._own = make_options(CallOptions, options)
        return other

    def module(self, name: str) -> Module:
        """A remote module as an object."""
        return Module(self, name)  # type: ignore[arg-type]

    def counters(self) -> dict[str, int]:
        """Calls, failures, requests, retries, and bytes of bodies out and in, since the client was made."""
        return self._session.counted()

    def endpoints(self) -> list[dict[str, Any]]:
        """What is known of each endpoint, in their order.

        `url`; `state`: "closed" (it is asked), "open" (it failed, and is asked only where no other can be) or
        "half-open" (one call tries it); `failures` in a row; `retry_in` how many seconds; `clock_offset`, the seconds
        that its clock is ahead; `longest_wait`, the seconds that a long poll may wait there, None while nothing on the
        way has ended one.
        """
        return self._session.endpoints()

    def patience(self, wait: float) -> float:
        """How long a poll that would wait `wait` seconds should wait now, see `CallOptions.waits`."""
        return self._session.patience(wait)

    def __repr__(self) -> str:
        urls = ", ".join(target.endpoint.url for target in self._session.targets)
        return f"{type(self).__name__}({urls})"


class Client(_Face):
    """Calls functions of a server and waits for them.

    Args:
        endpoints: a URL, host, (host, port) or IP address, or a list of them.
        secret: the secret, a `Key`, several keys from oldest to newest, or a `KeyRing`.
        options: fields of `ClientOptions` and `Limits`.

    Safe to use from many threads (each has its own connection), after a fork, and within a running loop.
    """

    def __init__(self, endpoints: object, secret: object, **options: Any) -> None:
        super().__init__(endpoints, secret, **options)
        self._transport = EasyTransport(self._session.options)

    def call(self, module: str, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function and wait for its result.

        Raises:
            RemoteError: it raised. `Refused`: it was not run. `Unreachable`, `DeadlineExceeded`, …: see `errors`.
        """
        return drive(self._session.calling(module, function, args, kwargs, self._own), self._perform)

    def gather(self, *calls: Sequence[Any], return_exceptions: bool = False) -> list[Any]:
        """Make many calls in as few requests as possible; the results in their order.

        Args:
            calls: each `(module, function)`, `(module, function, args)` or `(module, function, args, kwargs)`.
            return_exceptions: give errors in place of results, rather than raising the first one.
        """
        flows = [self._session.calling(*spread(each), self._own) for each in calls]
        return gather_blocking(self._session, self._transport, flows, return_exceptions)

    def close(self) -> None:
        """Close the connections of this thread."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _perform(self, step: Attempt | Pause) -> Answer | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        session = self._session
        sealed = session.seal([step])
        timeout = step.call.deadline - time.monotonic()
        response, received = self._transport.send(sealed.request, timeout, fresh=step.fresh)
        session.count_response(received)
        return session.open(sealed, step.target, response)

    def _hold(self) -> object:
        """What a child process must not free before `_abandon`."""
        return self._transport.hold()

    def _abandon(self) -> None:
        self._session.renew()
        self._transport.abandon()


class AsyncClient(_Face):
    """Calls functions of a server; every call is awaited.

    Calls that are made at the same time share requests, see `coalescing`. Arguments as `Client`; `http_client` may be a
    configured `tornado.httpclient.AsyncHTTPClient` to send with. Usable on several loops, each has its own connections.
    """

    def __init__(
        self, endpoints: object, secret: object, *, http_client: AsyncHTTPClient | None = None, **options: Any
    ) -> None:
        super().__init__(endpoints, secret, **options)
        self._http_client = http_client
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Engine, dict[int, Lane]]]
        self._lanes = WeakKeyDictionary()

    async def call(self, module: str, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function and wait for its result; errors as `Client.call`."""
        flow = self._session.calling(module, function, args, kwargs, self._own)
        return await drive_async(flow, self._perform)

    async def gather(self, *calls: Sequence[Any], return_exceptions: bool = False) -> list[Any]:
        """Make many calls at once; the results in their order. Arguments as `Client.gather`."""
        running = [drive_async(self._session.calling(*spread(each), self._own), self._perform) for each in calls]
        return list(await asyncio.gather(*running, return_exceptions=return_exceptions))

    def close(self) -> None:
        """Close all connections; calls in flight fail, and no more are made."""
        self._session.closed = True
        while self._lanes:
            self._end(*self._lanes.popitem()[1])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _end(engine: Engine, lanes: dict[int, Lane]) -> None:
        for lane in lanes.values():
            lane.close()
        engine.close()

    async def _perform(self, step: Attempt | Pause) -> Answer | None:
        if self._session.closed:
            closed = Unreachable("the client is closed")
            closed.retryable = False
            raise closed
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        return await self._lane(step.target).submit(step)

    def _lane(self, target: Target) -> Lane:
        loop = asyncio.get_running_loop()
        found = self._lanes.get(loop)
        if found is None:
            # A lane holds its loop, so what was left open on one that has ended would stay for ever.
            for ended in [other for other in self._lanes if other.is_closed()]:
                self._end(*self._lanes.pop(ended))
            options = self._session.options
            engine: Engine = (
                MultiEngine(loop, options) if self._http_client is None else TornadoEngine(self._http_client, options)
            )
            found = self._lanes[loop] = engine, {}
        engine, lanes = found
        lane = lanes.get(id(target))
        if lane is None:
            lane = lanes[id(target)] = Lane(self._session, engine, target, loop)
        return lane

    def _hold(self) -> object:
        """Nothing is local to a thread here."""
        return None

    def _abandon(self) -> None:
        self._session.renew()
        for engine, _ in self._lanes.values():
            engine.abandon()
        self._lanes = WeakKeyDictionary()


def spread(call: Sequence[Any]) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
    """A call as `gather` takes it: `(module, function)`, with `args`, with `kwargs`."""
    match call:
        case (str() as module, str() as function):
            return module, function, (), {}
        case (str() as module, str() as function, list() | tuple() as args):
            return module, function, args, {}
        case (str() as module, str() as function, list() | tuple() as args, dict() as kwargs):
            return module, function, args, kwargs
    raise CallFailed("a call is (module, function), (module, function, args) or (module, function, args, kwargs)")


_FACES: WeakSet[Client | AsyncClient] = WeakSet()
#: Clients of `call`, the last used at the end.
_CLIENTS: dict[object, Client] = {}
_MAX_CLIENTS = 32


def call(
    server: Any,
    module: str,
    function: str,
    args: Sequence[Any] = (),
    kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Call a function and wait for its result, for scripts: `call(("dc1.example", secret), "tasks", "add", [1, 2])`.

    Args:
        server: (endpoint, secret); the endpoint in any form that `Client` takes.
        options: fields of `ClientOptions`, `Limits` and `CallOptions`. Connections are kept between calls with the
            same server and options.
    """
    if not isinstance(server, tuple) or len(server) != 2:
        raise InvalidEndpoint("server is a pair (endpoint, secret)")
    own = {name: options.pop(name) for name in list(options) if name in CallOptions.__slots__ and name != "timeout"}
    own["timeout"] = options.pop("timeout", None)
    client = _client_for(server, options)
    return client.with_options(**own).call(module, function, *args, **({} if kwargs is None else kwargs))


def _client_for(server: tuple[object, object], options: dict[str, Any]) -> Client:
    try:
        name = (server, tuple(sorted(options.items())))
        client = _CLIENTS.pop(name, None)
    except TypeError:  # something in it cannot be compared or hashed: a client for this call alone
        return Client(*server, **options)
    if client is None:
        client = Client(*server, **options)
    _CLIENTS[name] = client
    while len(_CLIENTS) > _MAX_CLIENTS:
        # Other threads may be here, too.
        _CLIENTS.pop(next(iter(list(_CLIENTS))), None)
    return client


#: While a process forks: what the child must not free.
_HELD: list[object] = []


def _hold_all() -> None:
    _HELD.extend(face._hold() for face in list(_FACES))


def _abandon_all() -> None:
    for face in list(_FACES):
        face._abandon()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_HELD.clear, after_in_child=_abandon_all)
