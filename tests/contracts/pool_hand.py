"""What the tests of pools share: jobs, those who give them to a pool, and a gate that functions wait at."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from backwater_tornado.broker.values import Outcome
from backwater_tornado.exposure import Exposure, Function
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.tasks.outcomes import error_of, read_outcome
from backwater_tornado.tasks.states import State
from backwater_tornado.worker.jobs import End, Ending, Job
from backwater_tornado.worker.pools import Pool

FUNCTIONS = "tests.contracts.pool_functions"
#: Seconds; reached only when something is broken.
PATIENCE = 40.0


@functools.cache
def _exposure() -> Exposure:
    return Exposure.of(FUNCTIONS)


def find(name: str) -> Function:
    """One of `pool_functions`."""
    return _exposure().find(FUNCTIONS, name)


@dataclass(eq=False)
class Running:
    """A job in a pool, as its worker sees it."""

    job: Job
    ended: asyncio.Future[Ending]
    told: list[Any] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    endings: int = 0

    def done(self, job: Job, ending: Ending) -> None:
        assert job is self.job
        self.endings += 1
        self.ended.set_result(ending)

    def tell(self, job: Job, outcome: Outcome) -> None:
        assert job is self.job
        assert not self.ended.done()
        assert outcome.state == State.PROGRESS
        self.told.append(read_outcome(outcome))
        self.begun.set()


class Hand:
    """Gives jobs to a pool."""

    def __init__(self, pool: Pool, flavour: str) -> None:
        self.pool = pool
        self.flavour = flavour
        self._tokens = iter(range(1, 1_000_000))
        self.started: list[Running] = []

    def start(self, name: str, *args: Any, **fields: Any) -> Running:
        name = f"{self.flavour}_{name}"
        token = next(self._tokens)
        job = Job(token, f"id-{token}", f"{FUNCTIONS}.{name}", MSGPACK.encode([args, {}]), "", **fields)
        running = Running(job, asyncio.get_running_loop().create_future())
        self.started.append(running)
        self.pool.start(job, find(name), running.done, running.tell)
        return running

    async def run(self, name: str, *args: Any, **fields: Any) -> Ending:
        return await self.start(name, *args, **fields).ended


class Gate:
    """Functions wait here until they are let go."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []
        self._arrived = asyncio.Semaphore(0)
        self.port = 0

    def _enter(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._arrived.release()

    async def entered(self) -> None:
        """Wait until one more has come."""
        await self._arrived.acquire()

    async def open(self) -> None:
        """Let all go that are there."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.close()

    @classmethod
    @asynccontextmanager
    async def made(cls) -> AsyncIterator[Gate]:
        gate = cls()
        server = await asyncio.start_server(gate._enter, "127.0.0.1", 0)
        gate.port = server.sockets[0].getsockname()[1]
        try:
            yield gate
        finally:
            await gate.open()
            server.close()


def value_of(ending: Ending) -> Any:
    assert ending.end is End.DONE
    assert ending.outcome is not None
    assert ending.outcome.state == State.SUCCESS
    return read_outcome(ending.outcome)


def error_in(ending: Ending, state: State = State.FAILURE) -> Exception:
    assert ending.outcome is not None
    assert ending.outcome.state == state
    return error_of(ending.outcome)
