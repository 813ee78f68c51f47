"""A campaign of bad links: what 1 000 tasks come to while their links, their broker or their worker fail.

    python -m tests.faults.link_campaign                         # all scenarios; about half an hour
    python -m tests.faults.link_campaign "blackhole, drain"      # one of them
    python -m tests.faults.link_campaign --short                 # all harms in one go, about half a minute

A producer with an outbox, a broker and a worker run as processes, and a bad network (`testing.BadNetwork`) is between
the broker and each of the others. It prints, and writes with `--json`, for each scenario:

    raised             calls that raised
    lost               tasks that were sent and never ran, or have no result
    twice (in flight)  tasks that ran more than once though no worker had them when it was killed (and those it had)
    delay p99, longest what a call took, ms
    first              seconds from the end of the harm to the next task that began
    done               seconds from the end of the harm until all have ended
    met                whether all targets are met

Targets: nothing raised, nothing lost, nothing twice, p99 at most 50 ms, the first task within 3 s. It ends with 1 if
one is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.link_rig import Rig

#: Targets, seconds.
DELAY, FIRST = 0.050, 3.0


@dataclass(frozen=True)
class Scenario:
    """What is done to whom.

    Attributes:
        harm: does it; when it returns, all is well again.
        seconds: that sending takes.
        nap: that a task takes.
        drain: all is sent before a worker starts and the harm begins; else the worker runs from the beginning.
    """

    name: str
    harm: Callable[[Rig], None]
    seconds: float = 0.0
    nap: float = 0.0
    drain: bool = False


@dataclass(frozen=True)
class Report:
    """What a scenario came to; see the head of this module."""

    scenario: str
    tasks: int
    raised: int
    lost: int
    twice: list[int]
    in_flight: int
    p99: float
    longest: float
    first: float | None
    done: float
    seconds: float

    def misses(self) -> list[str]:
        """The targets that are missed."""
        found = {
            "raised": self.raised,
            "lost": self.lost,
            "twice": self.twice,
            "delay": self.p99 > DELAY,
            "first": self.first is not None and self.first > FIRST,
        }
        return [name for name, missed in found.items() if missed]


# Harms ---------------------------------------------------------------------------------------------------------------


def _pause(rig: Rig, seconds: float) -> None:
    rig.until(lambda: False, seconds)


def cuts(side: str, every: float, seconds: float) -> Callable[[Rig], None]:
    """All connections of one side are cut every so many seconds, for so long."""

    def harm(rig: Rig) -> None:
        network = getattr(rig, side)
        network.cut_every(every)
        _pause(rig, seconds)
        network.heal()
        network.cut_all()

    return harm


def blackhole(side: str, seconds: float) -> Callable[[Rig], None]:
    """Nothing gets through, and nobody is told."""

    def harm(rig: Rig) -> None:
        network = getattr(rig, side)
        network.blackhole()
        _pause(rig, seconds)
        network.heal()

    return harm


def dropped(share: float, seconds: float) -> Callable[[Rig], None]:
    """A share of the answers is dropped."""

    def harm(rig: Rig) -> None:
        rig.drop(share)
        _pause(rig, seconds)
        rig.drop(0.0)

    return harm


def jump(side: str, seconds: float) -> Callable[[Rig], None]:
    """The clock of one is put forward by an hour, and back."""

    def harm(rig: Rig) -> None:
        rig.jump(side)
        _pause(rig, seconds)
        rig.jump(side, back=True)

    return harm


def in_turn(harms: list[Callable[[Rig], None]], rest: float) -> Callable[[Rig], None]:
    """One after the other, with a rest between."""

    def harm(rig: Rig) -> None:
        for each in harms:
            each(rig)
            _pause(rig, rest)

    return harm


def at_random(harms: list[Callable[[Rig], None]], seconds: float, rest: float, seed: int) -> Callable[[Rig], None]:
    """Any of them, for so long."""

    def harm(rig: Rig) -> None:
        dice, end = random.Random(seed), time.monotonic() + seconds
        while time.monotonic() < end:
            dice.choice(harms)(rig)
            _pause(rig, dice.uniform(0, rest))

    return harm


def several(harm: Callable[[Rig], None], times: int, rest: float) -> Callable[[Rig], None]:
    """Again and again."""
    return in_turn([harm] * times, rest)


ALL: list[Callable[[Rig], None]] = [
    *(cuts(side, 2.0, 10.0) for side in ("near", "far")),
    *(blackhole(side, 15.0) for side in ("near", "far")),
    dropped(0.2, 10.0),
    *(jump(side, 10.0) for side in ("producer", "broker", "worker")),
    Rig.kill_broker,
    Rig.kill_worker,
]
LONG = (
    Scenario("cuts every 2 s, enqueue", cuts("near", 2.0, 30.0), seconds=32.0),
    Scenario("cuts every 2 s, drain", cuts("far", 2.0, 30.0), nap=0.16, drain=True),
    Scenario("cuts every 20 s, drain", cuts("far", 20.0, 50.0), nap=0.24, drain=True),
    Scenario("blackhole, enqueue", blackhole("near", 60.0), seconds=65.0),
    Scenario("blackhole, drain", blackhole("far", 60.0), nap=0.04, drain=True),
    Scenario("20 % of responses dropped", dropped(0.2, 30.0), seconds=28.0, nap=0.05),
    Scenario("broker killed", several(Rig.kill_broker, 5, 4.0), seconds=28.0, nap=0.05),
    Scenario("worker killed", several(Rig.kill_worker, 3, 4.0), seconds=20.0, nap=0.05),
    *(Scenario(f"clock of the {side}", jump(side, 20.0), 25.0, 0.05) for side in ("producer", "broker", "worker")),
    Scenario("all in random turn", at_random(ALL, 600.0, 5.0, 1), seconds=595.0, nap=0.05),
)
SHORT = Scenario(
    "all in turn",
    in_turn(
        [
            Rig.kill_worker,
            *(cuts(side, 0.3, 1.0) for side in ("near", "far")),
            *(jump(side, 1.0) for side in ("producer", "broker", "worker")),
            dropped(0.2, 2.0),
            Rig.kill_broker,
            *(blackhole(side, 2.0) for side in ("near", "far")),
        ],
        0.2,
    ),
    seconds=20.0,
    nap=0.02,
)


def run(scenario: Scenario, folder: Path, tasks: int, ttl: float = 30.0) -> Report:
    """One scenario from its beginning to its end."""
    began = time.monotonic()
    rig = Rig(folder, ttl)
    try:
        if not scenario.drain:
            rig.start_worker()
        rig.start_producer(tasks, scenario.seconds, scenario.nap)
        if scenario.drain:
            rig.until(lambda: rig.has_said("flushed"))
            rig.start_worker()
        rig.until(lambda: bool(rig.journal()))
        scenario.harm(rig)
        healed = time.monotonic()
        is_complete = rig.until(lambda: rig.has_said("flushed")) and rig.until_ended(tasks)
        results = rig.results(tasks) if is_complete else 0
        if not is_complete:
            sys.stderr.write(rig.said())
        return _report(scenario.name, rig, (began, healed), tasks, results)
    finally:
        rig.close()


def _report(name: str, rig: Rig, times: tuple[float, float], tasks: int, results: int) -> Report:
    began, healed = times
    journal, sent, begun = rig.journal(), rig.sent(), rig.begun()
    twice = {number for number, count in begun.items() if count > 1}
    took = sorted(sent["took"])
    ended: dict[int, float] = {}
    for line in journal:
        if line.what == "ended":
            ended.setdefault(line.number, line.at)
    return Report(
        name,
        tasks,
        raised=len(sent["raised"]),
        lost=tasks - min(len(begun), results),
        twice=sorted(twice - rig.in_flight),
        in_flight=len(twice & rig.in_flight),
        p99=took[int(len(took) * 0.99)],
        longest=took[-1],
        first=min((line.at - healed for line in journal if line.what == "begun" and line.at > healed), default=None),
        done=max(0.0, max(ended.values()) - healed),
        seconds=time.monotonic() - began,
    )


def table(reports: list[Report]) -> Table:
    """For the eye."""
    found = Table(
        "scenario", "tasks", "raised", "lost", "twice (in flight)", "delay p99", "longest", "first", "done", "met"
    )
    for each in reports:
        found.add_row(
            *(each.scenario, str(each.tasks), str(each.raised), str(each.lost)),
            f"{len(each.twice)} ({each.in_flight})",
            *(f"{each.p99 * 1e3:.1f} ms", f"{each.longest * 1e3:.1f} ms"),
            "-" if each.first is None else f"{each.first:.2f} s",
            f"{each.done:.1f} s",
            "yes" if not each.misses() else f"not {', '.join(each.misses())}",
        )
    return found


def main() -> int:
    """See the head of this module."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.link_campaign")
    parser.add_argument("scenarios", nargs="*", choices=[[], *(each.name for each in LONG)], metavar="SCENARIO")
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--json", type=Path, metavar="PATH")
    given = parser.parse_args()
    chosen = [SHORT] if given.short else [each for each in LONG if each.name in (given.scenarios or each.name)]
    reports = []
    console = Console(width=160)
    for scenario in chosen:
        with tempfile.TemporaryDirectory(prefix="backwater-links-") as folder:
            reports.append(run(scenario, Path(folder), given.tasks))
        console.print(table(reports[-1:]))
        if given.json is not None:
            given.json.write_text(json.dumps([asdict(each) for each in reports], indent=1) + "\n")
    console.print(table(reports))
    return int(any(each.misses() for each in reports))


if __name__ == "__main__":
    sys.exit(main())
