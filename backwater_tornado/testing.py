"""For tests of programs that use this package: a real server, broker or worker in a with-block; and a bad network.

Each runs on its own loop in a thread of this process, listens on a free port of 127.0.0.1, and speaks the true
protocol: encoding, signatures, limits and memory are those of production.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

from .app import AsyncApp
from .broker_server import BrokerServer, start_broker
from .errors import InvalidOption
from .exposure import Exposure
from .network_simulator.conditions import Conditions, Counts, Side, Stalls
from .network_simulator.faults import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
    DROP,
    DUPLICATE,
    DUPLICATE_ANSWERED,
    PASS,
    STALL_FOREVER,
    TRUNCATE_REQUEST,
    Fault,
    Kind,
    Mix,
    Policy,
    Script,
    Seen,
    stall,
)
from .network_simulator.network import BadNetwork
from .relay.options import RelayOptions
from .relay.relay import Relay
from .relay_process import check_ways, connect_line, make_relays, read_queues
from .server import Server, start_clear_server, start_tls_server
from .worker.hooks import Hooks
from .worker.line import SplitLink
from .worker.options import WorkerOptions
from .worker.worker import Worker
from .worker_plan import WorkPlan, queues_of
from .worker_pools import make_pool
from .worker_process import CLIENT, declare_missing

__all__ = [
    "CUT_AFTER_REQUEST",
    "CUT_BEFORE_REQUEST",
    "CUT_MID_RESPONSE",
    "DROP",
    "DUPLICATE",
    "DUPLICATE_ANSWERED",
    "PASS",
    "STALL_FOREVER",
    "TRUNCATE_REQUEST",
    "BadNetwork",
    "Clock",
    "Conditions",
    "Counts",
    "Fault",
    "Kind",
    "Mix",
    "Policy",
    "RunningBroker",
    "RunningServer",
    "RunningWorker",
    "Script",
    "Seen",
    "Side",
    "Stalls",
    "running_broker",
    "running_server",
    "running_worker",
    "stall",
]

#: Seconds; how long a worker under test waits for what runs is said when it is stopped.
_LONG = 3600.0

T = TypeVar("T")
R = TypeVar("R", bound="_Running")


class _Running:
    """What runs on a loop in a thread of its own."""

    def __init__(self, stop: Callable[[float], Coroutine[Any, Any, bool]]) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()

    def run(self, function: Callable[[], T]) -> T:
        """Run a function on that loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(_call(function), self._loop).result(10)

    def stop(self, grace: float = 5.0) -> bool:
        """Drain and stop before the block ends; False when what ran had to be cut after `grace` seconds."""
        return asyncio.run_coroutine_threadsafe(self._stop(grace), self._loop).result(grace + 10)


class RunningServer(_Running):
    """A server under test."""

    def __init__(self, serving: Server | BrokerServer, secret: object, scheme: str) -> None:
        super().__init__(serving.stop)
        self.server = serving.server if isinstance(serving, BrokerServer) else serving
        self.secret = secret
        self.port = serving.port
        self.url = f"{scheme}://127.0.0.1:{serving.port}"


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
        super().__init__(serving, secret, scheme)
        self.broker = serving.broker
        self._clock = clock

    def advance(self, seconds: float) -> None:
        """Move the broker's clock; what is due by then, or has expired, is so when this returns. Needs a `Clock`."""
        if not isinstance(self._clock, Clock):
            raise InvalidOption("only a Clock can be moved: running_broker(clock=Clock())")
        self._clock.now += seconds
        asyncio.run_coroutine_threadsafe(self.broker.sweep(), self._loop).result(10)


class RunningWorker(_Running):
    """A worker under test."""

    def __init__(self, worker: Worker, links: Iterable[AsyncApp]) -> None:
        super().__init__(self._end)
        self.worker = worker
        self._links = links
        self._work = asyncio.ensure_future(worker.run())
        self._declare = asyncio.ensure_future(declare_missing(worker.line, worker.options.queues))

    async def _end(self, grace: float) -> bool:
        self.worker.stop()
        await asyncio.wait([self._work], timeout=grace)
        if not self._work.done():
            self.worker.stop()
        complete = await self._work
        self._declare.cancel()
        for link in self._links:
            link.close()
        return complete


class RunningRelay(_Running):
    """A relay under test: one for each direction."""

    def __init__(self, relays: Sequence[Relay], links: AsyncExitStack) -> None:
        super().__init__(self._end)
        self.relays = relays
        self._links = links
        self._work = asyncio.gather(*(each.run() for each in relays))

    async def _end(self, grace: float) -> bool:
        for each in self.relays:
            each.stop()
        await self._work
        await self._links.aclose()
        return True


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
    options = _free_place() | options

    async def start() -> RunningServer:
        if certfile:
            tls = {"certfile": certfile, "keyfile": keyfile}
            return RunningServer(start_tls_server(secret, exposed, **tls, **options), secret, "https")
        return RunningServer(start_clear_server(secret, exposed, **options), secret, "http")

    with _running(start) as running:
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
    secret = secrets.token_bytes(32) if secret is None else secret
    options = _free_place() | options

    async def start() -> RunningBroker:
        scheme = "https" if "certfile" in options else "http"
        return RunningBroker(await start_broker(secret, store, clock=clock, **options), secret, scheme, clock)

    with _running(start) as running:
        yield running


@contextmanager
def running_worker(
    broker: RunningBroker,
    modules: object,
    *,
    concurrency: int = 4,
    pool: str = "threads",
    queues: Iterable[str] = (),
    hooks: Hooks | None = None,
    **options: Any,
) -> Iterator[RunningWorker]:
    """Run tasks of a broker for the length of a with-block, over HTTP, as `backwater worker` does.

    Args:
        broker: where tasks come from.
        modules: their functions, as what `start_clear_server` exposes.
        concurrency: tasks that run at once.
        pool: `threads`, or `processes` for functions of modules that can be imported.
        queues: to take tasks from; `default`, and those that the functions name, if empty.
        hooks: told of what happens.
        options: fields of `WorkerOptions`.

    A task that runs when the block ends is interrupted, and goes back to the broker. Periodic tasks are not sent.
    """
    exposure = Exposure.of(modules)  # type: ignore[arg-type]
    names = tuple(dict.fromkeys(each.module for each in exposure.functions()))
    plan = WorkPlan(modules=names, pool=pool, concurrency=concurrency)
    chosen = WorkerOptions(**{"queues": tuple(queues) or queues_of(exposure.functions()), "grace": _LONG, **options})

    async def start() -> RunningWorker:
        links = [AsyncApp(broker.url, broker.secret, proxy="", **CLIENT) for _ in range(2)]
        places = make_pool(plan)
        return RunningWorker(Worker(SplitLink(*links), exposure, lambda _: places, chosen, hooks), links)

    with _running(start) as running:
        yield running


@contextmanager
def running_relay(
    near: RunningBroker, far: RunningBroker, *, queues: Iterable[str] = (), back: Iterable[str] = (), **options: Any
) -> Iterator[RunningRelay]:
    """Relay between two brokers for the length of a with-block, over HTTP, as `backwater relay` does.

    Args:
        near, far: the brokers.
        queues: taken from `near` and handed over to `far`: `name`, or `name=other` where it has another name there.
        back: as `queues`, the other way.
        options: fields of `RelayOptions`.
    """
    ways = read_queues(queues), read_queues(back)
    check_ways(*ways)
    chosen = RelayOptions(**options)

    async def start() -> RunningRelay:
        links = AsyncExitStack()
        lines = [await connect_line(links, each.url, each.secret, {"proxy": ""}) for each in (near, far)]
        return RunningRelay(make_relays(lines, *ways, chosen), links)

    with _running(start) as running:
        yield running


def _free_place() -> dict[str, Any]:
    """Where to listen, and a name of its own."""
    return {"port": 0, "address": "127.0.0.1", "ref": f"testing-{secrets.token_hex(4)}"}


@contextmanager
def _running(start: Callable[[], Coroutine[Any, Any, R]]) -> Iterator[R]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="backwater-testing", daemon=True)
    thread.start()
    try:
        running = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield running
        finally:
            running.stop(0.0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
