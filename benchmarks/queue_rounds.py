"""The measuring: every rival is visited once a round, in shuffled order, so that a ratio compares neighbours.

A visit: the service starts empty, a worker runs single tasks (round trips) and ends; tasks are enqueued one by one and
in bulk with no worker there; a worker starts and drains them. What a worker needs to start is in none of the numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import footprint
import measures
import queue_services
from processes import HERE, BenchmarkError, Link, Process
from queue_rivals import LIBRARIES, RIVALS
from queue_rivals.contract import Rival
from queue_services import SERVICES, Program, Site

#: Seconds that a worker may take to start and run its first task.
PATIENCE = 60.0


@dataclass(frozen=True)
class Plan:
    """How many and how long; the seconds end what a slow rival would take for ever."""

    rounds: int
    one: int
    crowd: int
    bulk: int
    trips: int
    trip_seconds: float
    drain_seconds: float


@dataclass(frozen=True)
class Spent:
    """A number of tasks, and what they took; CPU in seconds for all of them."""

    count: int
    elapsed: float
    client_cpu: float
    worker_cpu: float
    broker_cpu: float
    foreign_cpu: float

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return self.count / self.elapsed


@dataclass(frozen=True)
class Memory:
    """Bytes: the worker after it has drained; the broker at first, with all waiting, and with all results."""

    worker: int
    broker_idle: int
    broker_waiting: int
    broker_after: int


@dataclass(frozen=True)
class Visit:
    """All that one visit found. `trips` is a histogram of latencies; `sync` the seconds of a sync at its beginning."""

    round: int
    rival: str
    one: Spent
    crowd: Spent
    bulk: Spent
    drain: Spent
    trips: Mapping[int, int]
    memory: Memory
    sync: float


@dataclass(frozen=True)
class Wire:
    """Bytes of TCP payload for a task, up and down: enqueued one by one, in bulk, and taken, run and settled."""

    rival: str
    one: tuple[float, float]
    bulk: tuple[float, float]
    worker: tuple[float, float]


class Fleet:
    """The rivals that can run here, and the one service that is shared by all visits."""

    def __init__(self, names: list[str], venvs: Path, rivals: Mapping[str, Rival] = RIVALS) -> None:
        self.venvs, self.rivals = venvs, rivals
        self.problems: dict[str, str] = {}
        self.shared: dict[str, Site] = {}
        self.names = [name for name in names if self._installed(name)]

    def _installed(self, name: str) -> bool:
        rival = self.rivals[name]
        absent = queue_services.missing(rival.service)
        if absent is None and not self.python(rival).exists():
            absent = f"{', '.join(LIBRARIES[rival.library])} (benchmarks/queues.py --install {self.venvs})"
        if absent is not None:
            self.problems[name] = f"skipped, not installed: {absent}"
        return absent is None

    def python(self, rival: Rival) -> Path:
        """That imports it."""
        return self.venvs / rival.library / "bin" / "python" if rival.library else Path(sys.executable)

    @contextlib.contextmanager
    def site(self, rival: Rival) -> Iterator[Site]:
        """Its service: a new one, but RabbitMQ, which takes seconds of CPU to start."""
        if rival.service == "rabbitmq":
            if "rabbitmq" not in self.shared:
                self.shared["rabbitmq"] = SERVICES["rabbitmq"]()
            yield self.shared["rabbitmq"]
            return
        site = SERVICES[rival.service]()
        try:
            yield site
        finally:
            site.stop()

    def attempt(self, name: str, work: Callable[[], Any]) -> Any:
        """Its result; on failure None, and the rival is out."""
        try:
            return work()
        except BenchmarkError as error:
            self.problems[name] = str(error)
            self.names.remove(name)
            return None

    def stop(self) -> None:
        """End what is shared."""
        for site in self.shared.values():
            site.stop()


class Stage:
    """A rival with its service and its producer; workers come and go."""

    def __init__(self, name: str, rival: Rival, python: Path, site: Site, marks: Path) -> None:
        self.name, self.rival, self.python, self.site, self.marks = name, rival, python, site, marks
        self.producer = self.produce(site.url)

    def environment(self, url: str) -> dict[str, str]:
        """What producers and workers are told."""
        return {
            "BENCHMARK_MARKS": str(self.marks),
            "BENCHMARK_SECRET": str(self.site.secret),
            "BENCHMARK_SETTINGS": self.rival.settings,
            "BENCHMARK_URL": url,
            "PYTHONPATH": str(HERE),
        }

    def produce(self, url: str) -> Process:
        """A producer, ready."""
        made = Process(
            f"producer of {self.name}", "queue_producer.py", self.rival.module,
            python=self.python, environment=self.environment(url),
        )  # fmt: skip
        made.ask(None, PATIENCE)
        return made

    @contextlib.contextmanager
    def working(self, url: str | None = None) -> Iterator[Program]:
        """A worker."""
        values = {
            "bin": str(self.python.parent), "module": f"queue_rivals.{self.rival.module}",
            "url": url or self.site.url, "secret": str(self.site.secret),
        }  # fmt: skip
        command = [part.format(**values) for part in self.rival.worker]
        worker = Program(f"worker of {self.name}", command, self.environment(values["url"]))
        try:
            yield worker
        finally:
            worker.stop()

    def order(self, do: str, count: int, seconds: float = 120) -> dict[str, Any]:
        """Tell the producer."""
        return tell(self.producer, do, count, seconds)

    def ran(self) -> int:
        """Tasks that have run since the marks were emptied."""
        return self.marks.stat().st_size

    def forget(self) -> None:
        """Empty the marks."""
        os.truncate(self.marks, 0)

    def enqueue(self, do: str, count: int, seconds: float = 120) -> Spent:
        """Without a worker."""
        broker, busy = footprint.cpu_seconds(self.site.pids), measures.busy_seconds()
        answer = self.order(do, count, seconds)
        broker, busy = footprint.cpu_seconds(self.site.pids) - broker, measures.busy_seconds() - busy
        foreign = max(0.0, busy - broker - answer["cpu"])
        return Spent(answer["count"], answer["elapsed"], answer["cpu"], 0, broker, foreign)

    def drain(self, worker: Program, count: int, seconds: float) -> Spent:
        """From the first task that has run to the last whose result is there, or until the time is over."""
        self.await_marks(worker, 1, PATIENCE)
        before, began = self.ran(), time.perf_counter()
        cpu = footprint.cpu_seconds([worker.pid]), footprint.cpu_seconds(self.site.pids), measures.busy_seconds()
        done = self.await_marks(worker, count, seconds)
        if done >= count:
            self.order("settled", 1, seconds)
        elapsed = time.perf_counter() - began
        after = footprint.cpu_seconds([worker.pid]), footprint.cpu_seconds(self.site.pids), measures.busy_seconds()
        work, broker, busy = (late - early for late, early in zip(after, cpu, strict=True))
        return Spent(done - before, elapsed, 0, work, broker, max(0.0, busy - work - broker))

    def await_marks(self, worker: Program, count: int, seconds: float) -> int:
        """Until so many have run, or the time is over; the first must come."""
        until = time.monotonic() + seconds
        while (ran := self.ran()) < count and time.monotonic() < until:
            worker.check()
            time.sleep(0.002)
        if not ran:
            raise worker.failure(f"ran nothing within {seconds:g} s")
        return ran

    def close(self) -> None:
        """End the producer."""
        self.producer.stop()


@contextlib.contextmanager
def staged(fleet: Fleet, name: str) -> Iterator[Stage]:
    """A rival with a service and a producer."""
    marks = tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: SIM115
    rival = fleet.rivals[name]
    with marks, fleet.site(rival) as site:
        stage = Stage(name, rival, fleet.python(rival), site, Path(marks.name))
        try:
            yield stage
        finally:
            stage.close()


def visit(fleet: Fleet, name: str, number: int, plan: Plan) -> Visit:
    """All cells of one rival, once."""
    with staged(fleet, name) as stage:
        sync = footprint.sync_seconds(stage.site.folder)
        with stage.working():
            stage.order("trips", 1, PATIENCE)
            trips = stage.order("trips", plan.trips, plan.trip_seconds)["histogram"]
        idle = footprint.memory(stage.site.pids)
        one, crowd = stage.enqueue("one", plan.one), stage.enqueue("crowd", plan.crowd)
        bulk = stage.enqueue("bulk", plan.bulk)
        waiting = footprint.memory(stage.site.pids)
        stage.forget()
        with stage.working() as worker:
            drain = stage.drain(worker, plan.one + plan.crowd + plan.bulk, plan.drain_seconds)
            memory = Memory(footprint.memory([worker.pid]), idle, waiting, footprint.memory(stage.site.pids))
    histogram = {int(bucket): count for bucket, count in trips.items()}
    return Visit(number, name, one, crowd, bulk, drain, histogram, memory, sync)


def interleaved(fleet: Fleet, plan: Plan) -> list[Visit]:
    """All rounds, or as many as there were until an interrupt (Ctrl-C): what was measured is reported."""
    draw = random.Random(time.time_ns())
    found: list[Visit] = []
    try:
        for number in range(plan.rounds):
            for name in draw.sample(fleet.names, len(fleet.names)):
                began = time.monotonic()
                one = fleet.attempt(name, lambda name=name, number=number: visit(fleet, name, number, plan))
                found += [one] if one else []
                say(f"round {number + 1} of {plan.rounds}: {name}, {time.monotonic() - began:.0f} s")
    except KeyboardInterrupt:
        say("interrupted: no more rounds")
    return found


def count_bytes(fleet: Fleet, one: int, bulk: int) -> list[Wire]:
    """The pass through the counting relays, of rivals that use the network."""
    found: list[Wire] = []
    for name in list(fleet.names):
        if RIVALS[name].service != "file":
            wire = fleet.attempt(name, lambda name=name: _counted(fleet, name, one, bulk))
            found += [wire] if wire else []
            say(f"bytes on the wire: {name}")
    return found


def _counted(fleet: Fleet, name: str, one: int, bulk: int) -> Wire:
    with staged(fleet, name) as stage:
        port = stage.site.port
        assert port is not None
        producing, working = Link([port]), Link([port])
        try:
            stage.producer.stop()
            stage.producer = stage.produce(stage.site.address(producing.ports[port]))
            stage.order("one", 10)  # connections and declarations belong to none
            singly = _bytes(producing, port, one, lambda: stage.order("one", one))
            in_bulk = _bytes(producing, port, bulk, lambda: stage.order("bulk", bulk))
            with stage.working(stage.site.address(working.ports[port])) as worker:
                stage.await_marks(worker, 1, PATIENCE)
                before = stage.ran()
                working.counts(reset=True)
                done = stage.await_marks(worker, 10 + one + bulk, PATIENCE)
                time.sleep(0.2)  # the last results are on their way
                up, down = working.counts()[port]
        finally:
            producing.stop()
            working.stop()
    return Wire(name, singly, in_bulk, (up / (done - before), down / (done - before)))


def _bytes(link: Link, port: int, count: int, work: Callable[[], object]) -> tuple[float, float]:
    link.counts(reset=True)
    work()
    time.sleep(0.05)
    up, down = link.counts()[port]
    return up / count, down / count


def tell(producer: Process, do: str, count: int, seconds: float) -> dict[str, Any]:
    """Have a producer do something; gives its answer."""
    return producer.ask(json.dumps({"do": do, "count": count, "seconds": seconds}), seconds + 60)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
