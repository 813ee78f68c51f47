"""A producer process of one rival: it sleeps until it is told to enqueue or to wait for results.

Written as `queue_producer.py MODULE`, run by the rival's own Python. One command a line on standard input, as JSON:
{"do", "count", "seconds"}; one answer a line: how many, wall clock, CPU, latencies. Ends when standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import measures
from queue_rivals.contract import Awaiting, Blocking, record

#: Tasks in one call of a rival's bulk API.
CHUNK = 1000
#: Callers at once in a crowd: threads, or tasks of the loop.
CROWD = 16
#: Of the last bulk so many results are looked at, to see that all are there: who works in batches ends with them.
LAST = 8


@dataclass(frozen=True)
class Order:
    """What to do, for `seconds` at most.

    `one` by one, by a `crowd` at once, in `bulk`, round `trips`, `records` and their results, or see that all is
    `settled`, or `accepted` by the broker.
    """

    do: str
    count: int
    seconds: float


class Producer:
    """The orders, for a rival that blocks."""

    def __init__(self, rival: Blocking) -> None:
        self.rival = rival
        self.last: Sequence[Any] = []
        self.threads = ThreadPoolExecutor(CROWD)

    def one(self, order: Order) -> list[int]:
        """Each waits for its answer before the next is sent."""
        send = self.rival.send
        self.last = [send() for _ in range(order.count)][-LAST:]
        return []

    def crowd(self, order: Order) -> list[int]:
        """As `one`, in each of CROWD threads."""

        def some(count: int) -> None:
            for _ in range(count):
                self.rival.send()

        list(self.threads.map(some, shares(order.count)))
        return []

    def bulk(self, order: Order) -> list[int]:
        """In calls of CHUNK."""
        for size in chunks(order.count):
            self.last = self.rival.send_many(size)[-LAST:]
        return []

    def trips(self, order: Order) -> list[int]:
        """Latencies from sending to having the result."""
        latencies: list[int] = []
        until = time.monotonic() + order.seconds
        while len(latencies) < order.count and time.monotonic() < until:
            began = time.perf_counter_ns()
            self.rival.wait(self.rival.send())
            latencies.append(time.perf_counter_ns() - began)
        return latencies

    def records(self, order: Order) -> list[int]:
        """Tasks with arguments, one by one, and then all their results."""
        send = self.rival.send_record
        assert send is not None
        for result in [send(record(number)) for number in range(order.count)]:
            self.rival.wait(result)
        return []

    def accepted(self, order: Order) -> list[int]:
        """The broker has all that was sent."""
        if self.rival.accepted is not None:
            self.rival.accepted()
        return []

    def settled(self, order: Order) -> list[int]:
        """The results of the last are there."""
        until, ready = time.monotonic() + order.seconds, self.rival.ready
        for result in self.last if ready else ():
            while ready and not ready(result) and time.monotonic() < until:
                time.sleep(0.002)
        return []


class AwaitingProducer:
    """The same for one that awaits."""

    def __init__(self, rival: Awaiting) -> None:
        self.rival = rival
        self.last: Sequence[Any] = []

    async def one(self, order: Order) -> list[int]:
        """As the blocking one."""
        send = self.rival.send
        self.last = [await send() for _ in range(order.count)][-LAST:]
        return []

    async def crowd(self, order: Order) -> list[int]:
        """As `one`, in each of CROWD tasks."""

        async def some(count: int) -> None:
            for _ in range(count):
                await self.rival.send()

        await asyncio.gather(*map(some, shares(order.count)))
        return []

    async def bulk(self, order: Order) -> list[int]:
        """As the blocking one."""
        for size in chunks(order.count):
            self.last = (await self.rival.send_many(size))[-LAST:]
        return []

    async def trips(self, order: Order) -> list[int]:
        """As the blocking one."""
        latencies: list[int] = []
        until = time.monotonic() + order.seconds
        while len(latencies) < order.count and time.monotonic() < until:
            began = time.perf_counter_ns()
            await self.rival.wait(await self.rival.send())
            latencies.append(time.perf_counter_ns() - began)
        return latencies

    async def settled(self, order: Order) -> list[int]:
        """As the blocking one."""
        until = time.monotonic() + order.seconds
        for result in self.last:
            while not await self.rival.ready(result) and time.monotonic() < until:  # noqa: ASYNC110 - they poll
                await asyncio.sleep(0.002)
        return []


def chunks(count: int) -> list[int]:
    """Sizes that make up that count."""
    return [min(CHUNK, count - done) for done in range(0, count, CHUNK)]


def shares(count: int) -> list[int]:
    """What each of a crowd sends of so many."""
    return [count // CROWD + (place < count % CROWD) for place in range(CROWD)]


def answer(order: Order, work: Callable[[], list[int]]) -> dict[str, Any]:
    """Do it, and say what it took."""
    cpu, clock = time.process_time(), time.perf_counter()
    latencies = work()
    return {
        "count": len(latencies) or order.count,
        "elapsed": time.perf_counter() - clock,
        "cpu": time.process_time() - cpu,
        "histogram": measures.histogram(latencies),
    }


def serve(perform: Callable[[Order], list[int]]) -> None:
    """Answer orders until there are no more."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        try:
            said = answer(order, lambda order=order: perform(order))  # type: ignore[misc]
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(said), file=out, flush=True)


def main() -> None:
    """Import the rival, connect, serve."""
    made: Blocking | Awaitable[Awaiting] = import_module(f"queue_rivals.{sys.argv[1]}").producer()
    if isinstance(made, Blocking):
        producer = Producer(made)
        serve(lambda order: getattr(producer, order.do)(order))
        return
    with asyncio.Runner() as runner:
        awaiting = AwaitingProducer(runner.run(connected(made)))
        serve(lambda order: runner.run(getattr(awaiting, order.do)(order)))


async def connected(made: Awaitable[Awaiting]) -> Awaiting:
    """For Runner, which takes coroutines only."""
    return await made


if __name__ == "__main__":
    main()
