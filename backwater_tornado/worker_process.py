"""A worker in the foreground of a process, until a signal ends it.

SIGTERM and SIGINT: nothing more is taken, what runs has `grace` seconds to end; a second one gives it back at once. A
process that a supervisor started has a channel to it and stops when that closes.

Rule: one process, one loop, one worker; what it is told is a `WorkPlan`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from .app import App, AsyncApp
from .broker.values import Queue
from .errors import CallFailed, InvalidOption
from .periodic import AskedSchedule, Ticker
from .serve import ParentChannel, end_now, watch_parent
from .tasks import asks
from .tasks.current import has_default_sender
from .worker.health import Health
from .worker.line import Line, SplitLink
from .worker.spool import Spool
from .worker.worker import Worker
from .worker_plan import Work, WorkPlan, find_work
from .worker_pools import make_pool

log = logging.getLogger("backwater.worker")

#: How often the file of `health_file` is written, seconds.
HEALTH_PERIOD = 5.0
#: A worker's client, where nothing is said. The worker itself asks until it is answered; and a settlement waits for no
#: company, as many of them travel as one already.
CLIENT = {"max_attempts": 1, "coalesce_delay": 0.0}


def work(plan: WorkPlan, channel: ParentChannel | None = None) -> int:
    """Work until told to stop; gives the exit code."""
    found = find_work(plan)
    if not has_default_sender():  # tasks may send others
        App(found.endpoints, found.keys, **plan.options)
    return asyncio.run(_Working(plan, found, channel).run())


class _Working:
    """The life of a working process."""

    def __init__(self, plan: WorkPlan, found: Work, channel: ParentChannel | None) -> None:
        self._plan = plan
        self._found = found
        self._channel = channel

    async def run(self) -> int:
        plan, found = self._plan, self._found
        loop = asyncio.get_running_loop()
        spool = None if plan.spool is None else Spool(plan.spool, plan.spool_bytes)
        pool = make_pool(plan)
        async with self._connect() as polls, self._connect() as others:
            link, options = SplitLink(polls, others), plan.worker_options(found.queues)
            worker = Worker(link, found.exposure, lambda _: pool, options, found.hooks, self._about(), spool)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, worker.stop)
            if self._channel is not None:
                self._channel.ready(found.exposure)
                watch_parent(self._channel, loop, worker.stop, plan.grace)
            self._announce()
            port = (
                None if plan.health_port is None else HealthPort(plan.health_address, plan.health_port, worker.health)
            )
            beside = [asyncio.ensure_future(each) for each in self._beside(worker, others)]
            complete = await worker.run()
            for each in beside:
                each.cancel()
            if port is not None:
                port.close()
        if complete:
            return 0
        log.warning("stopped: what had not ended was given back")
        return end_now(1)

    def _connect(self) -> AsyncApp:
        return AsyncApp(self._found.endpoints, self._found.keys, **{**CLIENT, **self._plan.options})

    def _beside(self, worker: Worker, link: AsyncApp) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on beside the worker."""
        yield declare_missing(worker.line, self._found.queues)
        app = self._found.app
        ticker = Ticker(AskedSchedule(link.ask))
        yield run_ticker(ticker, app)
        if self._plan.health_file is not None:
            yield write_health(Path(self._plan.health_file), worker.health)

    def _about(self) -> dict[str, Any]:
        functions = [f"{each.module}.{each.name}" for each in self._found.exposure.functions()]
        return {"functions": functions, "concurrency": self._plan.slots, "version": version("backwater-tornado")}

    def _announce(self) -> None:
        """What it serves; the last line is the one that scripts wait for."""
        plan, found = self._plan, self._found
        for function in found.exposure.functions():
            begin = "async " if function.is_async else ""
            log.info("  %s%s.%s", begin, function.module, function.signature)
        prefetch = "as many as it does in a second" if plan.prefetch is None else str(plan.prefetch)
        log.info(
            "backwater-tornado %s on %s, process %d", version("backwater-tornado"), socket.gethostname(), os.getpid()
        )
        log.info("pool: %s, %d at a time; prefetch: %s", plan.pool, plan.slots, prefetch)
        where = ", ".join(map(str, found.endpoints if isinstance(found.endpoints, list) else [found.endpoints]))
        log.info("broker: %s; key: %s", where, ", ".join(found.keys.ids))
        log.info("working on the queues %s", ", ".join(found.queues))


async def declare_missing(line: Line, queues: tuple[str, ...]) -> None:
    """Make the queues that are not there; one that is there keeps its limits."""
    there = {stats.queue.name for stats in await line.insist(lambda: asks.stats(queues))}
    missing = [Queue(name) for name in queues if name not in there]
    if missing:
        await line.insist(lambda: asks.declare(queues=missing))


async def run_ticker(ticker: Ticker, app: App | None) -> None:
    """Write the periodic tasks of the application, when the broker is there, and look after all."""
    while app is not None:
        try:
            await ticker.declare(app.entries())
            break
        except CallFailed:
            await asyncio.sleep(1.0)
    await ticker.run()


# Health --------------------------------------------------------------------------------------------------------------


def _told(health: Health) -> dict[str, Any]:
    return {"status": health.status, "reasons": list(health.reasons)}


async def write_health(path: Path, health: Callable[[], Health]) -> None:
    """Write it into a file, which is never half written, until cancelled; then the file is removed."""
    try:
        while True:
            _replace(path, json.dumps(_told(health())) + "\n")
            await asyncio.sleep(HEALTH_PERIOD)
    finally:
        _remove(path)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


class _HealthHandler(RequestHandler):
    def initialize(self, health: Callable[[], Health]) -> None:
        self._health = health

    def get(self) -> None:
        found = self._health()
        self.set_status(503 if found.reasons else 200)
        self.finish(_told(found))


class HealthPort:
    """Answers probes at /healthz: 200 as long as the worker is well, else 503 with the reasons.

    Raises:
        InvalidOption: the port cannot be used.
    """

    def __init__(self, address: str, port: int, health: Callable[[], Health]) -> None:
        routes = [(r"/healthz", _HealthHandler, {"health": health})]
        self._server = HTTPServer(Application(routes, log_function=lambda _: None))
        try:
            self._server.listen(port, address)
        except OSError as error:
            raise InvalidOption(f"health_port {port} of {address} cannot be used: {error.strerror or error}") from error

    def close(self) -> None:
        """Listen no more."""
        self._server.stop()
