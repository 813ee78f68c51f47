"""The measuring of wan.py: producer and worker each have a slow link to the broker; a round visits every rival once.

A visit: a worker runs single tasks (round trips), then some with arguments, whose bytes on both links are counted;
it ends; tasks are enqueued one by one and in bulk; a producer beside the broker adds to them; a worker drains them.
What has to be opened and declared is open and declared before anything counts.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import rtt
from processes import Link, Process
from queue_rounds import PATIENCE, Fleet, Spent, Stage, say, staged, tell
from queue_services import Program


@dataclass(frozen=True)
class Plan:
    """How many at most and for how long, seconds: who is slow does fewer."""

    rounds: int
    delay: float
    one: int
    one_seconds: float
    bulk: int
    trips: int
    trip_seconds: float
    records: int
    backlog: int
    drain_seconds: float


@dataclass(frozen=True)
class Sent:
    """Tasks of one producer, and the seconds until all were sent, and until the broker had them all."""

    count: int
    sending: float
    accepting: float

    @property
    def rate(self) -> float:
        """Sent in a second."""
        return self.count / self.sending

    @property
    def accepted(self) -> float:
        """Sent and accepted in a second."""
        return self.count / self.accepting


@dataclass(frozen=True)
class Visit:
    """All that one visit found. `trips` is a histogram of latencies; `bytes` are of a task with arguments, both ways.

    Of who keeps no results there are no trips and no bytes.
    """

    round: int
    rival: str
    one: Sent
    bulk: Sent
    drain: Spent
    trips: Mapping[int, int]
    producer_bytes: float | None
    worker_bytes: float | None

    @property
    def wire(self) -> float | None:
        """Bytes for a task on both links together."""
        if self.producer_bytes is None or self.worker_bytes is None:
            return None
        return self.producer_bytes + self.worker_bytes


class Far:
    """A rival with its broker behind slow links: one of its producer, and one of its workers."""

    def __init__(self, stage: Stage, delay: float) -> None:
        port = stage.site.port
        assert port is not None
        self.stage, self._port = stage, port
        self._links = {side: Link([port], delay) for side in ("producer", "worker")}
        self._producer: Process = stage.produce(self._url("producer"))

    def _url(self, side: str) -> str:
        return self.stage.site.address(self._links[side].ports[self._port])

    def order(self, do: str, count: int = 1, seconds: float = 120) -> dict[str, Any]:
        """Tell the producer."""
        return tell(self._producer, do, count, seconds)

    def working(self) -> contextlib.AbstractContextManager[Program]:
        """A worker."""
        return self.stage.working(self._url("worker"))

    def bytes(self, *, reset: bool = False) -> dict[str, int]:
        """On each link, both ways, since the last reset."""
        return {side: sum(link.counts(reset=reset)[self._port]) for side, link in self._links.items()}

    def close(self) -> None:
        """End all."""
        self._producer.stop()
        for link in self._links.values():
            link.stop()


@contextlib.contextmanager
def far(fleet: Fleet, name: str, delay: float) -> Iterator[Far]:
    """A rival on its stage."""
    with staged(fleet, name) as stage:
        place = Far(stage, delay)
        try:
            yield place
        finally:
            place.close()


def visit(fleet: Fleet, name: str, number: int, plan: Plan) -> Visit:
    """All cells of one rival, once."""
    with far(fleet, name, plan.delay) as place:
        trips, counted = _with_worker(place, plan) if fleet.rivals[name].results else ({}, {})
        one, bulk = enqueue(place, "one", 3, plan.one, plan), enqueue(place, "bulk", 30, plan.bulk, plan)
        missing = max(plan.backlog - one.count - bulk.count, 100)
        place.stage.order("bulk", missing)
        place.stage.forget()
        with place.working() as worker:
            drain = place.stage.drain(worker, one.count + bulk.count + missing, plan.drain_seconds)
    return Visit(number, name, one, bulk, drain, trips, counted.get("producer"), counted.get("worker"))


def _with_worker(place: Far, plan: Plan) -> tuple[dict[int, int], dict[str, float]]:
    with place.working():
        place.order("trips", 2, PATIENCE)
        trips = place.order("trips", plan.trips, plan.trip_seconds)["histogram"]
        place.order("records", 1)
        place.bytes(reset=True)
        place.order("records", plan.records)
        time.sleep(4 * plan.delay)  # what settles the last of them
        counted = {side: count / plan.records for side, count in place.bytes().items()}
    return {int(bucket): count for bucket, count in trips.items()}, counted


def enqueue(place: Far, do: str, probe: int, most: int, plan: Plan) -> Sent:
    """As many as go in the time, by a few that come before."""
    tried = place.order(do, probe)
    place.order("accepted")
    count = min(max(int(probe / tried["elapsed"] * plan.one_seconds), probe), most)
    sending = place.order(do, count)["elapsed"]
    return Sent(count, sending, sending + place.order("accepted")["elapsed"])


def interleaved(fleet: Fleet, plan: Plan) -> list[Visit]:
    """All rounds, in shuffled order, or as many as there were until an interrupt (Ctrl-C)."""
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


def round_trip(delay: float) -> float:
    """Of the link itself, in seconds, measured with plain sockets."""
    return rtt.measure(delay).byte
