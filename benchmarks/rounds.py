"""The measuring: slices of all variants in shuffled order, round after round, so that a ratio compares neighbours.

The machine may change its speed by 1.75 x within seconds. A slice of a third of a second and its neighbours
mostly meet the same speed; the median over rounds takes care of the rest.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import payload
import rivals
from processes import BenchmarkError, Caller, Link, Server

#: How many callers at once.
CROWDS = (1, 100)


@dataclass(frozen=True)
class Plan:
    """How long and how often. `warm_limit` bounds the calls each caller makes before its slice counts."""

    rounds: int
    seconds: float
    warm_seconds: float
    warm_limit: int


@dataclass(frozen=True)
class Sample:
    """One slice."""

    round: int
    case: str
    callers: int
    variant: str
    calls: int
    elapsed: float
    client_cpu: float
    server_cpu: float
    foreign_cpu: float
    histogram: Mapping[int, int]

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.elapsed


@dataclass(frozen=True)
class Wire:
    """Bytes of TCP payload for one call, both ways, handshakes left out."""

    variant: str
    case: str
    payload: str
    callers: int
    up: float
    down: float

    @property
    def total(self) -> float:
        """Both ways."""
        return self.up + self.down


class Fleet:
    """The servers of a run. A variant that fails is taken out, and its failure kept for the report."""

    def __init__(self, variants: list[str]) -> None:
        self.problems: dict[str, str] = {}
        self.servers: dict[str, Server] = {}
        for name in variants:
            absent = rivals.missing(name)
            if absent:
                self.problems[name] = f"skipped, not installed: {', '.join(absent)}"
            else:
                self.servers[name] = Server(name)
        for name, server in list(self.servers.items()):
            try:
                server.wait_until_it_listens()
            except BenchmarkError as error:
                self.drop(name, error)
        self.cases = {name: rivals.load(name).cases for name in self.servers}

    def drop(self, name: str, error: BenchmarkError) -> None:
        """Out of the run."""
        self.problems[name] = str(error)
        self.servers.pop(name).stop()

    def callers(self, link: Link | None, kind: str = payload.KINDS[0]) -> dict[str, Caller]:
        """A ready caller for each server, straight or through a relay."""
        made = {
            name: Caller(name, server.port if link is None else link.ports[server.port], server.popen.pid, kind)
            for name, server in self.servers.items()
        }
        for name, caller in list(made.items()):
            self.attempt(made, name, caller.wait_until_ready)
        return made

    def attempt(self, callers: dict[str, Caller], name: str, work: Callable[[], Any]) -> Any:
        """Its result; on failure None, and the variant is out."""
        try:
            return work()
        except BenchmarkError as error:
            callers.pop(name).stop()
            self.drop(name, error)
            return None

    def stop(self) -> None:
        """End them all."""
        for server in self.servers.values():
            server.stop()


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def interleaved(fleet: Fleet, plan: Plan, link: Link | None) -> list[Sample]:
    """All rounds of all variants, cases and crowds."""
    draw = random.Random(time.time_ns())
    callers = fleet.callers(link)
    samples: list[Sample] = []
    cells = list(itertools.product(("add", "echo"), CROWDS))
    try:
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}{' through the delaying link' if link else ''}")
            for case, crowd in draw.sample(cells, len(cells)):
                for name in draw.sample(sorted(callers), len(callers)):
                    if name in callers and case in fleet.cases[name]:
                        sample = fleet.attempt(callers, name, _slicer(callers[name], plan, (number, case, crowd, name)))
                        samples += [sample] if sample else []
    finally:
        for caller in callers.values():
            caller.stop()
    return samples


def _slicer(caller: Caller, plan: Plan, cell: tuple[int, str, int, str]) -> Callable[[], Sample]:
    def work() -> Sample:
        number, case, crowd, name = cell
        caller.run(case, crowd, plan.warm_seconds, plan.warm_limit)
        return Sample(number, case, crowd, name, **caller.run(case, crowd, plan.seconds))

    return work


def count_bytes(fleet: Fleet, calls: int) -> list[Wire]:
    """The quick pass through the counting relay, for every kind of payload. Connections are made before the count."""
    found: list[Wire] = []
    for kind in payload.KINDS:
        say(f"bytes on the wire, payload {kind!r}")
        link = Link([server.port for server in fleet.servers.values()])
        callers = fleet.callers(link, kind)
        try:
            for name, case, crowd in itertools.product(list(callers), ("add", "echo"), CROWDS):
                if name in callers and case in fleet.cases[name] and (case == "echo" or kind == payload.KINDS[0]):
                    work = _counter(link, fleet.servers[name].port, callers[name], Slot(case, crowd, calls))
                    counted = fleet.attempt(callers, name, work)
                    found += [Wire(name, case, kind, crowd, *counted)] if counted else []
        finally:
            for process in (*callers.values(), link):
                process.stop()
    return found


@dataclass(frozen=True)
class Slot:
    """What is counted: so many calls in all, shared by the crowd."""

    case: str
    crowd: int
    calls: int


def _counter(link: Link, target: int, caller: Caller, slot: Slot) -> Callable[[], tuple[float, float]]:
    def work() -> tuple[float, float]:
        caller.run(slot.case, slot.crowd, 10, 3)
        time.sleep(0.05)  # what is still under way (window updates, pings) belongs to the calls before
        link.counts(reset=True)
        made = caller.run(slot.case, slot.crowd, 60, max(1, slot.calls // slot.crowd))["calls"]
        time.sleep(0.05)
        up, down = link.counts()[target]
        return up / made, down / made

    return work
