"""Our queue beside Celery, dramatiq, huey, arq, taskiq and RQ in one run: rates, round trips, CPU, memory, bytes.

    pip install -e '.[benchmarks]'
    apt-get install redis-server rabbitmq-server
    python benchmarks/queues.py --install .venvs/queues   # a virtual environment for each rival
    python benchmarks/queues.py                           # about ten minutes
    python benchmarks/queues.py --quick                   # about two, to see that all works

It starts and ends every server itself, on free ports and in folders of its own. How it is measured and what to think
of it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measures
import queue_growth
import queue_report
import queue_rivals
import queue_rounds
from queue_rivals import LIBRARIES, RIVALS
from queue_rounds import Fleet, Plan
from rich.console import Console

VENVS = Path(__file__).resolve().parents[1] / ".venvs" / "queues"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", type=Path, metavar="DIR", help="make the rivals' environments there, and end")
    parser.add_argument("--venvs", type=Path, default=VENVS, metavar="DIR", help="where they are (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--variants", default="", metavar="A,B", help=f"only these, of: {', '.join(RIVALS)}")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth: no numbers to quote")
    parser.add_argument("--growth", action="store_true", help="instead: how ours grows, with up to a million waiting")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there as well")
    chosen = parser.parse_args()
    chosen.venvs = chosen.venvs.resolve()  # programs are started elsewhere
    try:
        chosen.variants = queue_rivals.chosen(chosen.variants)
    except ValueError as error:
        parser.error(str(error))
    return chosen


def install(folder: Path) -> None:
    """A virtual environment for each library; says every command, so that it can be done by hand."""
    for library, packages in LIBRARIES.items():
        place = folder / library
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [str(place / "bin" / "pip"), "install", "--quiet", *packages],
        ):
            print(shlex.join(command), flush=True)
            subprocess.run(command, check=True)


def plan(chosen: argparse.Namespace) -> Plan:
    """What is enqueued in a visit makes the 10 000 to drain."""
    if chosen.quick:
        return Plan(1, one=200, crowd=160, bulk=640, trips=20, trip_seconds=2, drain_seconds=5)
    return Plan(chosen.rounds, one=1000, crowd=1600, bulk=7400, trips=200, trip_seconds=4, drain_seconds=15)


def versions(fleet: Fleet) -> dict[str, list[str]]:
    """What pip finds in each environment."""
    found = {}
    for library in sorted({fleet.rivals[name].library for name in fleet.names}):
        python = str(fleet.venvs / library / "bin" / "python") if library else sys.executable
        command = [python, "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"]
        found[library or "ours"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return found


def surroundings(chosen: argparse.Namespace, fleet: Fleet) -> dict[str, Any]:
    """Where, when and with what."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "versions": versions(fleet),
        },
        "settings": {name: str(value) for name, value in vars(chosen).items()},
        "problems": fleet.problems,
    }


def compare(chosen: argparse.Namespace, fleet: Fleet, console: Console) -> dict[str, Any]:
    """All rivals, side by side."""
    scale = plan(chosen)
    visits = queue_rounds.interleaved(fleet, scale)
    wire = queue_rounds.count_bytes(fleet, min(200, scale.one), min(1000, scale.bulk))
    queue_report.print_all(console, visits, wire)
    if visits:
        heard = measures.spread([visit.drain.foreign_cpu / visit.drain.elapsed for visit in visits])
        sync = measures.spread([visit.sync * 1e3 for visit in visits])
        console.print(f"CPU used by others in drains: {heard.median:.2f} cores in the median, {heard.most:.2f} at most")
        console.print(
            f"4 KiB appended and synced: {sync.median:.2f} ms in the median, {sync.least:.2f}-{sync.most:.2f}"
        )
    return {
        "plan": asdict(scale),
        "rivals": {name: asdict(RIVALS[name]) for name in fleet.names},
        "verdicts": [one.as_dict() for one in queue_report.verdicts(visits)],
        "wire": [asdict(one) for one in wire],
        "visits": [asdict(one) for one in visits],
    }


def grow(chosen: argparse.Namespace, fleet: Fleet, console: Console) -> dict[str, Any]:
    """Ours alone."""
    cells = [cell for name in list(fleet.names) for cell in queue_growth.measure(fleet, name, quick=chosen.quick)]
    queue_growth.print_growth(console, cells)
    return {"growth": [asdict(one) for one in cells]}


def main() -> None:
    """Run, print, write."""
    chosen = options()
    if chosen.install:
        install(chosen.install)
        return
    began, console = time.monotonic(), Console(width=170)
    names = [name for name in chosen.variants if RIVALS[name].ours or not chosen.growth]
    fleet = Fleet(names, chosen.venvs)
    try:
        found = (grow if chosen.growth else compare)(chosen, fleet, console)
    finally:
        fleet.stop()
    for name, problem in fleet.problems.items():
        console.print(f"{name}: {problem}", markup=False)
    console.print(f"took {time.monotonic() - began:.0f} s")
    if chosen.json:
        chosen.json.write_text(json.dumps(surroundings(chosen, fleet) | found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
