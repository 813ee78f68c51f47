"""A client process: it sleeps until it is told to make a slice of calls.

Written as `caller.py VARIANT PORT SERVER_PID PAYLOAD`. One command a line on standard input, as JSON: {"case",
"callers", "seconds", "limit"}; each caller calls again and again until `seconds` are over or it has made `limit`
calls. One answer a line: calls, elapsed, CPU of both sides, a histogram of latencies. Ends when standard input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TextIO

import measures
import payload
import rivals
from rivals.contract import Awaiting, Blocking, Pages, Variant

_clock = time.perf_counter_ns
#: Which page is next, for all callers of this process (`next` of a count is one step, threads or not).
_TURN = itertools.count()


@dataclass(frozen=True)
class Slice:
    """What to do."""

    case: str
    callers: int
    seconds: float
    limit: int


class Meter:
    """What a slice cost: wall clock, CPU of this process, of the server's, and of the whole machine."""

    def __init__(self, server_pid: int) -> None:
        self.server_pid = server_pid
        self.before = self.read()

    def read(self) -> tuple[float, float, float, float]:
        """The four clocks."""
        return (
            time.perf_counter(),
            time.process_time(),
            measures.cpu_seconds(self.server_pid),
            measures.busy_seconds(),
        )

    def answer(self, latencies: list[int]) -> dict[str, Any]:
        """Everything since it was made."""
        elapsed, client, server, machine = (
            after - before for before, after in zip(self.before, self.read(), strict=True)
        )
        return {
            "calls": len(latencies),
            "elapsed": elapsed,
            "client_cpu": client,
            "server_cpu": server,
            "foreign_cpu": max(0.0, machine - client - server),
            "histogram": measures.histogram(latencies),
        }


class Threads:
    """Callers that block, each in a thread of its own that lives as long as the process."""

    def __init__(self, variant: Variant, port: int, pages: Pages) -> None:
        self.variant, self.port, self.pages = variant, port, pages
        self.common = self._connect() if variant.shared else None
        self.jobs: list[queue.SimpleQueue[tuple[Slice, int]]] = []
        self.done: queue.SimpleQueue[list[int] | BaseException] = queue.SimpleQueue()

    def _connect(self) -> Blocking:
        assert self.variant.blocking is not None
        return self.variant.blocking("127.0.0.1", self.port, self.pages)

    def _live(self, jobs: queue.SimpleQueue[tuple[Slice, int]]) -> None:
        connected: Blocking | None = self.common
        while True:
            work, until = jobs.get()
            try:
                if connected is None:
                    connected = self._connect()
                    check(connected)
                self.done.put(_call_until(calling(connected, work.case), until, work.limit))
            except BaseException as error:  # whatever it was, the main thread must hear of it
                self.done.put(error)

    def run(self, work: Slice) -> list[int]:
        """All latencies of the slice."""
        while len(self.jobs) < work.callers:
            self.jobs.append(queue.SimpleQueue())
            threading.Thread(target=self._live, args=(self.jobs[-1],), daemon=True).start()
        until = _clock() + int(work.seconds * 1e9)
        for jobs in self.jobs[: work.callers]:
            jobs.put((work, until))
        latencies: list[int] = []
        failure: BaseException | None = None
        for _ in range(work.callers):
            result = self.done.get()
            if isinstance(result, BaseException):
                failure = result
            else:
                latencies += result
        if failure is not None:
            raise failure
        return latencies


def calling(connected: Any, case: str) -> Callable[[], Any]:
    """What a caller does again and again; every echo sends another page than the ones before.

    (Equal pages in flight together would compress to nothing in a request that carries several calls.)
    """
    if case == "add":
        add: Callable[[], Any] = connected.add
        return add
    echo, pages = connected.echo, connected.pages
    return lambda: echo(pages[next(_TURN) % len(pages)])


def _call_until(call: Callable[[], object], until: int, limit: int) -> list[int]:
    latencies: list[int] = []
    began = _clock()
    while True:
        call()
        ended = _clock()
        latencies.append(ended - began)
        if ended >= until or len(latencies) >= limit:
            return latencies
        began = ended


async def _await_until(call: Callable[[], Awaitable[object]], until: int, limit: int) -> list[int]:
    latencies: list[int] = []
    began = _clock()
    while True:
        await call()
        ended = _clock()
        latencies.append(ended - began)
        if ended >= until or len(latencies) >= limit:
            return latencies
        began = ended


async def run_tasks(connected: Awaiting, work: Slice) -> list[int]:
    """Callers that await, each a task. All latencies of the slice."""
    call = calling(connected, work.case)
    until = _clock() + int(work.seconds * 1e9)
    each = await asyncio.gather(*(_await_until(call, until, work.limit) for _ in range(work.callers)))
    return [latency for latencies in each for latency in latencies]


def check(connected: Blocking) -> None:
    """Nobody is measured who gives wrong answers."""
    compare(connected.add(), connected.echo(connected.pages[0]), connected.pages[0])


def compare(summed: object, echoed: object, sent: object) -> None:
    """The two answers with what they must be."""
    if summed != 3:
        raise AssertionError(f"add(1, 2) gave {summed!r}")
    if echoed != sent:
        raise AssertionError(f"echo gave {echoed!r}"[:200])


def failed(error: Exception) -> dict[str, Any]:
    """A failure is an answer too."""
    return {"error": f"{type(error).__name__}: {error}"[:500]}


def serve_blocking(threads: Threads, server_pid: int, out: TextIO) -> None:
    """Slices made by threads."""
    if threads.common is not None:
        check(threads.common)
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        work, meter = Slice(**json.loads(line)), Meter(server_pid)
        try:
            answer = meter.answer(threads.run(work))
        except Exception as error:
            answer = failed(error)
        print(json.dumps(answer), file=out, flush=True)


async def serve_awaitable(connecting: Awaitable[Awaiting], server_pid: int, out: TextIO) -> None:
    """Slices made by tasks; the loop goes on in between, as it would in a service."""
    connected = await connecting
    compare(await connected.add(), await connected.echo(connected.pages[0]), connected.pages[0])
    print(json.dumps({"ready": True}), file=out, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        work, meter = Slice(**json.loads(line)), Meter(server_pid)
        try:
            answer = meter.answer(await run_tasks(connected, work))
        except Exception as error:
            answer = failed(error)
        print(json.dumps(answer), file=out, flush=True)
    await connected.close()


def main() -> None:
    """Connect, then obey. Standard output is kept for answers: what a library prints goes to standard error."""
    name, port, server_pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    pages = payload.build(sys.argv[4])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    variant = rivals.load(name)
    if variant.uvloop:
        asyncio.set_event_loop_policy(import_module("uvloop").EventLoopPolicy())
    if variant.awaitable is not None:
        asyncio.run(serve_awaitable(variant.awaitable("127.0.0.1", port, pages), server_pid, out))
    else:
        serve_blocking(Threads(variant, port, pages), server_pid, out)
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
