"""How ours grows: rates with few and with very many messages waiting, and with many idle workers polling.

Only ours, each cell with a new broker: what another queue does at a million is no measure of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import footprint
import measures
from processes import Process
from queue_rounds import PATIENCE, Fleet, Spent, Stage, say, staged
from rich.console import Console
from rich.table import Table

MIB = 1 << 20
DEPTHS = (10, 10_000, 1_000_000)
CROWDS = (1, 10, 100)
#: Tasks taken from a depth at most, and the time for them in seconds.
TAKEN, SECONDS = 5000, 20.0
#: Of a depth below this, tasks are sent and awaited again and again.
FEW, TIMES = 100, 50


@dataclass(frozen=True)
class Growth:
    """One cell: so many messages wait, so many workers of another queue are idle. Memory in bytes, times in seconds."""

    rival: str
    waiting: int
    idle_workers: int
    enqueue_rate: float
    drain_rate: float
    worker_cpu: float
    broker_cpu: float
    broker_memory: int
    broker_file: int
    #: CPU seconds of the broker in a second in which nothing happens.
    idle_cpu: float
    round_trip: float


def measure(fleet: Fleet, name: str, *, quick: bool) -> list[Growth]:
    """All cells of one variant of ours."""
    scale = 100 if quick else 1
    found = [_attempt(fleet, name, max(10, depth // scale), 0) for depth in DEPTHS]
    found += [_attempt(fleet, name, 1000, crowd) for crowd in (CROWDS[:2] if quick else CROWDS)]
    return [one for one in found if one is not None]


def _attempt(fleet: Fleet, name: str, depth: int, crowd: int) -> Growth | None:
    if name not in fleet.names:
        return None
    say(f"growth of {name}: {depth:,} waiting, {crowd} idle workers")
    found: Growth | None = fleet.attempt(name, lambda: _cell(fleet, name, depth, crowd))
    return found


def _cell(fleet: Fleet, name: str, depth: int, crowd: int) -> Growth:
    with staged(fleet, name) as stage, _idle(stage, crowd):
        with stage.working():
            stage.order("trips", 1, PATIENCE)
            trips = stage.order("trips", 100, 5)["histogram"]
        idle_cpu = _idle_cpu(stage, 3)
        enqueued, drained = _few(stage, depth) if depth < FEW else _many(stage, depth)
        return Growth(
            rival=name,
            waiting=depth,
            idle_workers=crowd,
            enqueue_rate=enqueued.rate,
            drain_rate=drained.rate,
            worker_cpu=drained.worker_cpu / drained.count,
            broker_cpu=drained.broker_cpu / drained.count,
            broker_memory=footprint.memory(stage.site.pids),
            broker_file=sum(file.stat().st_size for file in stage.site.folder.glob("broker.db*")),
            idle_cpu=idle_cpu,
            round_trip=measures.percentile({int(bucket): count for bucket, count in trips.items()}, 0.5),
        )


def _many(stage: Stage, depth: int) -> tuple[Spent, Spent]:
    enqueued = stage.enqueue("bulk", depth, 600)
    stage.forget()
    with stage.working() as worker:
        return enqueued, stage.drain(worker, min(depth, TAKEN), SECONDS)


def _few(stage: Stage, depth: int) -> tuple[Spent, Spent]:
    """Sent and awaited, again and again: enqueued and drained at once, so it is one rate."""
    with stage.working() as worker:
        stage.order("trips", 1, PATIENCE)
        stage.forget()
        before = footprint.cpu_seconds([worker.pid]), footprint.cpu_seconds(stage.site.pids)
        began = time.perf_counter()
        for number in range(TIMES):
            stage.order("bulk", depth)
            stage.await_marks(worker, depth * (number + 1), SECONDS)
        elapsed = time.perf_counter() - began
        work, broker = (
            footprint.cpu_seconds([worker.pid]) - before[0],
            footprint.cpu_seconds(stage.site.pids) - before[1],
        )
    both = Spent(depth * TIMES, elapsed, 0, work, broker, 0)
    return both, both


def _idle_cpu(stage: Stage, seconds: float) -> float:
    before = footprint.cpu_seconds(stage.site.pids)
    time.sleep(seconds)
    return (footprint.cpu_seconds(stage.site.pids) - before) / seconds


@contextlib.contextmanager
def _idle(stage: Stage, crowd: int) -> Iterator[None]:
    """So many receivers of another queue, each with a session and a connection of its own."""
    if not crowd:
        yield
        return
    pollers = Process("idle workers", "queue_pollers.py", crowd, environment=stage.environment(stage.site.url))
    try:
        pollers.ask(None, PATIENCE)
        yield
    finally:
        pollers.stop()


def print_growth(console: Console, cells: Sequence[Growth]) -> None:
    """A table."""
    shown = Table(title="growth of ours", title_justify="left")
    shown.add_column("variant")
    for head in (
        "waiting", "idle workers", "enqueue in bulk", "drain", "worker CPU us", "broker CPU us", "broker MiB",
        "file MiB", "idle CPU", "round trip p50",
    ):  # fmt: skip
        shown.add_column(head, justify="right")
    for one in cells:
        shown.add_row(
            one.rival,
            f"{one.waiting:,}",
            str(one.idle_workers),
            f"{one.enqueue_rate:,.0f}/s",
            f"{one.drain_rate:,.0f}/s",
            f"{one.worker_cpu * 1e6:,.0f}",
            f"{one.broker_cpu * 1e6:,.0f}",
            f"{one.broker_memory / MIB:,.1f}",
            f"{one.broker_file / MIB:,.1f}",
            f"{one.idle_cpu:.1%}",
            f"{one.round_trip * 1e3:.2f} ms",
        )
    console.print(shown)
