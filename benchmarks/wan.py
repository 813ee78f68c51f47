"""Our queue beside Celery and dramatiq over a slow link: enqueueing, draining, round trips, bytes, in one run.

    pip install -e '.[benchmarks]'
    apt-get install redis-server rabbitmq-server
    python benchmarks/queues.py --install .venvs/queues   # a virtual environment for each rival
    python benchmarks/wan.py                              # about eight minutes
    python benchmarks/wan.py --quick                      # about three, to see that all works

Producer and worker are processes behind a relay each that holds everything up for 50 ms each way; the broker is beside
neither. How it is measured and what to think of it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import queue_rivals
import wan_report
import wan_rounds
from queue_rivals.wan import WAN_RIVALS
from queue_rounds import Fleet
from queues import VENVS, surroundings
from rich.console import Console
from wan_rounds import Plan


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=VENVS, metavar="DIR", help="where they are (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds (default %(default)s)")
    parser.add_argument("--delay", type=float, default=0.05, metavar="SECONDS", help="each way (default %(default)s)")
    parser.add_argument("--variants", default="", metavar="A,B", help=f"only these, of: {', '.join(WAN_RIVALS)}")
    parser.add_argument("--quick", action="store_true", help="a fifth of it: no numbers to quote")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there as well")
    chosen = parser.parse_args()
    try:
        chosen.variants = queue_rivals.chosen(chosen.variants, WAN_RIVALS)
    except ValueError as error:
        parser.error(str(error))
    return chosen


def plan(chosen: argparse.Namespace) -> Plan:
    """What is enqueued over the link is part of the backlog that is drained."""
    scale = Plan(
        rounds=chosen.rounds, delay=chosen.delay, one=5000, one_seconds=3, bulk=5000,
        trips=20, trip_seconds=5, records=50, backlog=6000, drain_seconds=6,
    )  # fmt: skip
    if chosen.quick:
        return Plan(1, chosen.delay, 1000, 1, 1000, 5, 3, 20, 2000, 3)
    return scale


def main() -> None:
    """Run, print, write."""
    chosen = options()
    began, console = time.monotonic(), Console(width=170)
    fleet, scale = Fleet(chosen.variants, chosen.venvs, WAN_RIVALS), plan(chosen)
    link = wan_rounds.round_trip(scale.delay)
    try:
        visits = wan_rounds.interleaved(fleet, scale)
    finally:
        fleet.stop()
    wan_report.print_all(console, visits, link)
    for name, problem in fleet.problems.items():
        console.print(f"{name}: {problem}", markup=False)
    console.print(f"took {time.monotonic() - began:.0f} s")
    if chosen.json:
        found = wan_report.medians(visits)
        report = {
            "plan": asdict(scale),
            "link": link,
            "rivals": {name: asdict(WAN_RIVALS[name]) for name in fleet.names},
            "medians": found,
            "verdicts": [one.as_dict() for one in wan_report.verdicts(found, link)],
            "visits": [asdict(one) for one in visits],
        }
        chosen.json.write_text(json.dumps(surroundings(chosen, fleet) | report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
