"""A worker with a broker in the same process, a pool that is worked by hand, and a link that can be cut."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct
from backwater_tornado.broker.values import Delivery, Message, Poll, Publication, Queue, Result, unpack
from backwater_tornado.errors import OutcomeUnknown, Unreachable
from backwater_tornado.exposure import Exposed, Exposure, Function
from backwater_tornado.marks import expose
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.messages import TaskHeaders, encode_headers
from backwater_tornado.tasks.outcomes import failed, read_outcome, revoked, succeeded
from backwater_tornado.worker.hooks import Hooks
from backwater_tornado.worker.jobs import End, Ending, Job, Stop
from backwater_tornado.worker.options import WorkerOptions
from backwater_tornado.worker.pools import Done, Tell
from backwater_tornado.worker.spool import Spool
from backwater_tornado.worker.worker import Worker

T = TypeVar("T")
#: Longer than any test: what waits so long waits for an event.
LONG = 40.0
PATIENCE = 20.0


class Clock:
    """The broker's time, which stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class InPlace:
    """Asks a broker in this process; what is asked may be lost on its way, or its answer.

    Attributes:
        faults: what happens to the next asks of a verb: `before` it arrives, `after` it was done, or `twice`.
        down: nothing arrives.
        asked: every verb that was tried.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.down = False
        self.asked: list[Ask[Any]] = []
        self.news = asyncio.Condition()

    async def ask(self, ask: Ask[T]) -> T:
        self.asked.append(ask)
        async with self.news:
            self.news.notify_all()
        await asyncio.sleep(0)
        fault = self.faults[ask.verb].pop(0) if self.faults[ask.verb] else ""
        if self.down or fault == "before":
            raise Unreachable("the link is cut")
        if fault == "twice":
            await self._perform(ask)
        answer = await self._perform(ask)
        if fault == "after" or self.down:
            raise OutcomeUnknown("the answer was lost")
        return answer

    async def _perform(self, ask: Ask[T]) -> T:
        answer = await getattr(self.broker, ask.verb)(*ask.args)
        return unpack(answer, ask.returns) if ask.packed else answer  # type: ignore[no-any-return]

    async def until(self, verb: str, times: int = 1) -> None:
        """Wait until it was asked so often, from now on."""
        wanted = self.count(verb) + times
        async with self.news:
            await self.news.wait_for(lambda: self.count(verb) >= wanted)

    def count(self, verb: str) -> int:
        return sum(ask.verb == verb for ask in self.asked)

    def polls(self) -> list[Poll]:
        return [ask.args[1] for ask in self.asked if ask.verb == "receive"]


class HandPool:
    """Runs functions at once, or as it is told to: `by_hand` has them wait for `end`."""

    def __init__(self, size: int = 4, *, by_hand: bool = False) -> None:
        self.size = size
        self.by_hand = by_hand
        self.running: dict[int, tuple[Job, Function, Done, Tell]] = {}
        self.begun: list[str] = []
        self.stopped: list[tuple[str, Stop]] = []
        self.closed: list[float] = []
        #: It cannot stop what runs, as with threads.
        self.deaf = False
        self.news = asyncio.Condition()
        self._side: list[asyncio.Future[None]] = []

    def start(self, job: Job, function: Function, done: Done, tell: Tell) -> None:
        self.running[job.token] = job, function, done, tell
        self.begun.append(job.id)
        loop = asyncio.get_running_loop()
        self._note()
        if not self.by_hand:
            loop.call_soon(self._run, job.token)

    def _note(self) -> None:
        self._side.append(asyncio.ensure_future(self._notify()))

    async def _notify(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def until_begun(self, *ids: str) -> None:
        async with self.news:
            await self.news.wait_for(lambda: set(ids) <= set(self.begun))

    async def until_stopped(self, *ids: str) -> None:
        async with self.news:
            await self.news.wait_for(lambda: set(ids) <= {name for name, _ in self.stopped})

    def _run(self, token: int) -> None:
        if token not in self.running:
            return
        job, function, _, _ = self.running[token]
        args, kwargs = MSGPACK.decode(job.arguments)
        try:
            outcome = succeeded(function.call(*args, **kwargs))
        except Exception as raised:
            outcome = failed(raised)
        self._done(token, Ending(End.DONE, outcome))

    def job(self, id: str) -> Job:
        return next(job for job, *_ in self.running.values() if job.id == id)

    def end(self, id: str, ending: Ending | None = None) -> None:
        """It ends: as it would, or as it is said."""
        token = self.job(id).token
        if ending is None:
            self._run(token)
        else:
            self._done(token, ending)

    def tell(self, id: str, outcome: Any) -> None:
        job, _, _, tell = self.running[self.job(id).token]
        tell(job, outcome)

    def _done(self, token: int, ending: Ending) -> None:
        job, _, done, _ = self.running.pop(token)
        done(job, ending)

    def stop(self, token: int, why: Stop) -> None:
        if token not in self.running:
            return
        self.stopped.append((self.running[token][0].id, why))
        self._note()
        if not self.deaf:
            ending = Ending(End.DONE, revoked()) if why is Stop.REVOKED else Ending(End.RETURN)
            asyncio.get_running_loop().call_soon(self._done, token, ending)

    async def close(self, grace: float) -> None:
        self.closed.append(grace)
        for token in list(self.running):
            self._done(token, Ending(End.RETURN))

    def about(self) -> Mapping[str, Any]:
        return {"kind": "by hand", "size": self.size}


class Bench:
    """All of it, with words for what tests do."""

    def __init__(self, pool: HandPool, options: dict[str, Any], hooks: Hooks, spool: Path | None = None) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.broker = Broker(Direct(self.store), None, self.clock)
        self.link = InPlace(self.broker)
        self.pool = pool
        self.options = WorkerOptions(**{"wait": 20.0, **options})
        self.exposure = Exposure.of(Exposed(t=Functions()))
        self.hooks = hooks
        self.spool = spool
        self.worker = self.make_worker()
        self.task: asyncio.Task[bool] | None = None
        self._sent = 0

    def make_worker(self) -> Worker:
        spool = None if self.spool is None else Spool(self.spool)
        return Worker(self.link, self.exposure, lambda function: self.pool, self.options, self.hooks, spool=spool)

    def start(self) -> None:
        self.task = asyncio.ensure_future(self.worker.run())

    async def stop(self) -> bool:
        assert self.task is not None
        self.worker.stop()
        return await self.task

    def later(self, seconds: float) -> None:
        """Time passes at the broker, and the worker looks."""
        self.clock.now += seconds
        self.worker.consumer.overtake()

    async def send(self, task: str, *args: Any, id: str = "", queue: str = "default", **more: Any) -> str:
        """Publish a task; fields of headers and of messages are told apart."""
        self._sent += 1
        name = id or f"id{self._sent}"
        fields = {each: more.pop(each) for each in list(more) if each in TaskHeaders.__struct_fields__}
        headers = more.pop("raw_headers", None) or encode_headers(TaskHeaders(f"t.{task}", **fields))
        body = more.pop("body", MSGPACK.encode([args, {}]))
        message = Message(name, body, headers, **{"keep_result": 1000.0, **more})
        await self.broker.publish([Publication(message, queue)], None, True)
        return name

    async def result(self, id: str) -> Result:
        """Its final result, when it is there."""
        while True:
            (found,) = await self.broker.results([id], LONG)
            if found is not None and found.final:
                return found

    async def value(self, id: str) -> Any:
        return read_outcome((await self.result(id)).outcome)

    async def known(self, id: str, state: str) -> Result:
        """The result when it is in this state, which need not be final."""
        while True:
            (found,) = await self.broker.results([id])
            if found is not None and found.outcome.state == state:
                return found
            await asyncio.sleep(0)

    async def counts(self, queue: str = "default") -> tuple[int, int, int, int]:
        """Ready, delayed, leased, dead."""
        (stats,) = await self.broker.stats([queue])
        return stats.ready, stats.delayed, stats.leased, stats.dead

    async def until_counts(self, *wanted: int, queue: str = "default") -> None:
        while await self.counts(queue) != wanted:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)

    async def take(self, queue: str = "default", session: str = "other") -> list[Delivery]:
        """What another worker gets."""
        await self.broker.open_session(session, 1000.0)
        batch = await self.broker.receive(session, Poll(((queue, 100),), 100))
        assert not isinstance(batch, bytes)
        return list(batch.deliveries)

    def lose_session(self) -> None:
        """The broker has not heard of the worker for too long."""
        self.store.close_session(f"\n{self.worker.consumer.session}", self.clock.now)


class Functions:
    """What the worker runs, as the module `t`."""

    @expose
    def add(self, x: int, y: int = 0) -> int:
        return x + y

    @expose
    def echo(self, *args: Any) -> list[Any]:
        return list(args)

    @expose
    def fail(self) -> None:
        raise ValueError("as told")

    @expose(track_started=True)
    def tracked(self) -> str:
        return "done"

    @expose(acks_late=False)
    def once(self) -> str:
        return "done"

    @expose(max_concurrency=1)
    def alone(self) -> str:
        return "done"

    @expose(rate_limit="60/m")
    def rarely(self) -> str:
        return "done"

    @expose
    def large(self, size: int) -> str:
        return "x" * size


def working(
    test: Callable[[Bench], Awaitable[None]],
    pool: Callable[[], HandPool] = HandPool,
    hooks: Hooks | None = None,
    start: bool = True,
    spool: Path | None = None,
    **options: Any,
) -> None:
    """Run a test with a worker at work."""

    async def main() -> None:
        bench = Bench(pool(), options, hooks or Hooks(), spool)
        await bench.broker.declare([], [Queue("default"), Queue("other", max_deliveries=2)], [])
        if start:
            bench.start()
        async with asyncio.timeout(PATIENCE):
            await test(bench)
            if bench.task is not None and not bench.task.done():
                bench.worker.stop()
                bench.worker.stop()
                await bench.task
        await bench.broker.close()

    logging.getLogger("backwater.worker").setLevel(logging.DEBUG)
    asyncio.run(main())
