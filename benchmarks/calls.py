"""Ours beside grpcio, aiohttp, Pyro5, rpyc and xmlrpc in one run: speed, CPU, bytes, and a link of 100 ms.

    pip install -e '.[benchmarks]'
    python benchmarks/calls.py            # about a quarter of an hour
    python benchmarks/calls.py --quick    # about three minutes, to see that all works

Every server and every client is a process of its own. Only one variant works at a time; the others sleep. How it is
measured and what to think of it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measures
import payload
import report
import rivals
import rounds
import rtt
from processes import Link
from rich.console import Console
from rounds import Fleet, Plan, Sample, Wire

#: Seconds each way on the delaying link.
DELAY = 0.05
PACKAGES = (
    "backwater-tornado", "tornado", "pycurl", "grpcio", "protobuf", "aiohttp", "Pyro5", "msgpack", "rpyc", "uvloop",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    loopback: list[Sample]
    link: list[Sample]
    wire: list[Wire]
    round_trip: rtt.RoundTrip | None


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="rounds on loopback (default %(default)s)")
    parser.add_argument("--slice", type=float, default=0.3, metavar="SECONDS", help="a slice (default %(default)s)")
    parser.add_argument("--link-rounds", type=int, default=3, help="rounds through the link; 0: none (default 3)")
    parser.add_argument("--link-slice", type=float, default=1.5, metavar="SECONDS", help="(default %(default)s)")
    parser.add_argument("--variants", default="", metavar="A,B", help=f"only these, of: {', '.join(rivals.MODULES)}")
    parser.add_argument("--quick", action="store_true", help="two short rounds of everything: no numbers to quote")
    parser.add_argument("--one-core", action="store_true", help="all processes on one core (no cross-core wake-ups)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there as well")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.slice, chosen.link_rounds, chosen.link_slice = 2, 0.1, min(1, chosen.link_rounds), 0.5
    chosen.variants = [name.strip() for name in chosen.variants.split(",") if name.strip()] or list(rivals.MODULES)
    unknown = [name for name in chosen.variants if name not in rivals.MODULES]
    if unknown:
        parser.error(f"no such variant: {', '.join(unknown)}")
    return chosen


def measure(chosen: argparse.Namespace, fleet: Fleet) -> Results:
    """Loopback, then bytes, then the slow link."""
    loopback = rounds.interleaved(fleet, Plan(chosen.rounds, chosen.slice, 0.05, 1_000_000), None)
    wire = rounds.count_bytes(fleet, 100 if chosen.quick else 400)
    if not chosen.link_rounds or not fleet.servers:
        return Results(loopback, [], wire, None)
    round_trip = rtt.measure(DELAY)
    rounds.say(f"the link's round trip: {round_trip.byte * 1e3:.1f} ms")
    link = Link([server.port for server in fleet.servers.values()], DELAY)
    try:
        slow = rounds.interleaved(fleet, Plan(chosen.link_rounds, chosen.link_slice, 5, 2), link)
    finally:
        link.stop()
    return Results(loopback, slow, wire, round_trip)


def machine() -> dict[str, Any]:
    """Where and with what."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "cpus_used": len(os.sched_getaffinity(0)),
        "versions": versions,
    }


def noise(samples: Sequence[Sample]) -> dict[str, float]:
    """CPU that others used meanwhile, in cores: what the numbers have to be forgiven."""
    shares = [sample.foreign_cpu / sample.elapsed for sample in samples]
    return {
        "median": measures.spread(shares).median,
        "most": max(shares),
        "slices_above_a_quarter_core": sum(share > 0.25 for share in shares) / len(shares),
    }


def as_json(chosen: argparse.Namespace, results: Results, problems: dict[str, str]) -> dict[str, Any]:
    """Everything, slices included."""
    sizes = {kind: payload.json_size(kind) for kind in payload.KINDS}
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "settings": {name: value for name, value in vars(chosen).items() if name != "json"},
        "payload_json_bytes": sizes,
        "problems": problems,
        "noise": noise(results.loopback) if results.loopback else {},
        "targets": [one.as_dict() for one in report.verdicts(report.rows(results.loopback), results.wire)],
        "wire": [asdict(one) | {"total": one.total} for one in results.wire],
        "link": {"delay_each_way": DELAY, "measured": results.round_trip and results.round_trip.as_dict()},
        **{
            place: [
                {"case": case, "callers": callers, **asdict(row)}
                for (case, callers), found in report.rows(samples).items()
                for row in found
            ]
            for place, samples in (("loopback_rows", results.loopback), ("link_rows", results.link))
        },
        "slices": [
            {"place": place, **{k: v for k, v in asdict(sample).items() if k != "histogram"}}
            for place, samples in (("loopback", results.loopback), ("link", results.link))
            for sample in samples
        ],
    }


def show(console: Console, results: Results, problems: dict[str, str]) -> None:
    """The tables."""
    table = report.rows(results.loopback)
    report.print_rows(console, "loopback", table)
    if results.round_trip:
        report.print_rows(console, f"link of {results.round_trip.byte * 1e3:.1f} ms", report.rows(results.link))
    report.print_wire(console, results.wire)
    report.print_verdicts(console, report.verdicts(table, results.wire))
    if results.loopback:
        heard = noise(results.loopback)
        console.print(
            f"CPU used by others meanwhile: {heard['median']:.2f} cores in the median, {heard['most']:.2f} at most"
            f", above 0.25 in {heard['slices_above_a_quarter_core']:.0%} of slices"
        )
    for name, problem in problems.items():
        console.print(f"{name}: {problem}", markup=False)


def main() -> None:
    """Run, print, write."""
    chosen = options()
    if chosen.one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    began = time.monotonic()
    fleet = Fleet(chosen.variants)
    try:
        results = measure(chosen, fleet)
    finally:
        fleet.stop()
    console = Console(width=170)
    show(console, results, fleet.problems)
    console.print(f"took {time.monotonic() - began:.0f} s")
    if chosen.json:
        chosen.json.write_text(json.dumps(as_json(chosen, results, fleet.problems), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
