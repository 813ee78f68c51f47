"""Half an hour of mixed load: does the memory of server and clients stay flat, and is every descriptor given back?

    python benchmarks/soak.py                 # 30 minutes
    python benchmarks/soak.py --minutes 3     # to see that it works; too short for a verdict on memory

A server, a process of blocking callers (threads) and one of awaiting callers (tasks). Calls small and large, compressed
and not, that raise, that are refused, that are slow, that time out, by clients made for one call, with a wrong key; and
connections that send nonsense. Exit code 0: flat, nothing leaked, every call ended as it should; otherwise 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measures
import psutil  # type: ignore[import-untyped,import-not-found,unused-ignore]
from processes import Process, Server
from rich.console import Console
from rich.table import Table

MIB = 1 << 20
#: Growth over the watched time that still passes as flat: this, or that share of the memory, whichever is more.
ALLOWED_BYTES, ALLOWED_SHARE = 2 * MIB, 0.03
#: Watched for less than this, seconds, a process that grows may still be filling its caches.
LONG_ENOUGH = 600
#: Descriptors a process may hold at the end beyond those at the beginning (a library's own lasting ones).
ALLOWED_DESCRIPTORS = 2


@dataclass(frozen=True)
class Sample:
    """One look at one process."""

    seconds: float
    process: str
    rss: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Verdict:
    """What became of one process; sizes in bytes, `growth` over the watched time."""

    process: str
    watched_seconds: float
    rss_median: float
    growth: float
    descriptors_before: int
    descriptors_after: int
    descriptors_growth: float
    flat: bool
    leaked: bool


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of load (default %(default)s)")
    parser.add_argument("--rate", type=float, default=300, help="calls a second in all, at most (default %(default)s)")
    parser.add_argument("--every", type=float, default=5, metavar="SECONDS", help="between samples (default 5)")
    parser.add_argument(
        "--warm-up", type=float, default=0.4, metavar="SHARE",
        help="of the time that does not count (default %(default)s: what a server remembers of calls grows until its"
        " oldest part expires)",
    )  # fmt: skip
    parser.add_argument(
        "--arenas", type=int, default=2, metavar="N",
        help="MALLOC_ARENA_MAX of the processes, as the README advises (default %(default)s; 0: as glibc has it)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="PATH", help="write samples and verdict there as well")
    return parser.parse_args()


class Watch:
    """Looks at processes."""

    def __init__(self, processes: dict[str, Process]) -> None:
        self.seen = {name: psutil.Process(process.popen.pid) for name, process in processes.items()}
        self.began = time.monotonic()
        self.before = {name: seen.num_fds() for name, seen in self.seen.items()}
        self.samples: list[Sample] = []

    def look(self) -> list[Sample]:
        """One sample of each."""
        seconds = time.monotonic() - self.began
        now = [
            Sample(seconds, name, seen.memory_info().rss, seen.num_fds(), seen.num_threads())
            for name, seen in self.seen.items()
        ]
        self.samples += now
        return now

    def descriptors_after(self) -> dict[str, int]:
        """When all is quiet; waits a little for it."""
        until = time.monotonic() + 10
        while True:
            after = {name: seen.num_fds() for name, seen in self.seen.items()}
            if all(after[name] <= self.before[name] for name in after) or time.monotonic() > until:
                return after
            time.sleep(0.2)

    def verdict(self, process: str, after: int, warm_up: float) -> Verdict:
        """Of one process, from the samples after warm-up."""
        mine = [sample for sample in self.samples if sample.process == process]
        counted = [sample for sample in mine if sample.seconds >= warm_up * mine[-1].seconds]
        watched = counted[-1].seconds - counted[0].seconds
        growth = watched * measures.slope([(one.seconds, one.rss) for one in counted])
        descriptors = watched * measures.slope([(one.seconds, one.descriptors) for one in counted])
        median = statistics.median(one.rss for one in counted)
        return Verdict(
            process=process,
            watched_seconds=watched,
            rss_median=median,
            growth=growth,
            descriptors_before=self.before[process],
            descriptors_after=after,
            descriptors_growth=descriptors,
            flat=growth <= max(ALLOWED_BYTES, ALLOWED_SHARE * median),
            leaked=after > self.before[process] + ALLOWED_DESCRIPTORS or descriptors > ALLOWED_DESCRIPTORS,
        )


def start(rate: float) -> dict[str, Process]:
    """The three processes."""
    server = Server("ours-blocking")
    server.wait_until_it_listens()
    faces = ("blocking", "awaitable")
    return {"server": server} | {
        face: Process(f"{face} callers", "soak_load.py", face, server.port, rate / len(faces)) for face in faces
    }


def load(chosen: argparse.Namespace, watch: Watch, console: Console) -> None:
    """Sample until the time is over; a line for every minute."""
    until = watch.began + 60 * chosen.minutes
    line_due = 0.0
    console.print("minute   " + "".join(f"{name:>30}" for name in watch.seen))
    while (now := time.monotonic()) < until:
        samples = watch.look()
        if now - watch.began >= line_due:
            shown = (f"{s.rss / MIB:.1f} MiB {s.descriptors} fds {s.threads} thr" for s in samples)
            console.print(f"{(now - watch.began) / 60:6.1f}   " + "".join(f"{text:>30}" for text in shown))
            line_due += 60 if chosen.minutes > 5 else 15
        time.sleep(min(chosen.every, max(0.0, until - now)))


def print_verdicts(console: Console, verdicts: list[Verdict]) -> None:
    """A table."""
    shown = Table(title="after warm-up", title_justify="left")
    for head in ("process", "watched", "memory", "growth", "descriptors before, after", "trend", "verdict"):
        shown.add_column(head)
    for one in verdicts:
        shown.add_row(
            one.process,
            f"{one.watched_seconds / 60:.1f} min",
            f"{one.rss_median / MIB:.1f} MiB",
            f"{one.growth / MIB:+.2f} MiB",
            f"{one.descriptors_before}, {one.descriptors_after}",
            f"{one.descriptors_growth:+.1f}",
            _memory(one) + (", DESCRIPTORS LEAKED" if one.leaked else ", nothing leaked"),
        )
    console.print(shown)


def _memory(one: Verdict) -> str:
    if one.flat:
        return "flat"
    return "GROWING" if one.watched_seconds >= LONG_ENOUGH else "not flat yet (watched too short to tell)"


def print_counts(console: Console, counts: dict[str, dict[str, Any]]) -> int:
    """How calls ended; gives the number of those that ended otherwise than they should."""
    shown = Table(title="calls", title_justify="left")
    for head in ("kind", *(f"{face}: as expected / otherwise" for face in counts)):
        shown.add_column(head, justify="right" if head != "kind" else "left")
    kinds = next(iter(counts.values()))
    for kind in kinds:
        each = [counts[face][kind] for face in counts]
        shown.add_row(kind, *(f"{one['expected']:,} / {one['otherwise']:,}" for one in each))
    console.print(shown)
    wrong = [(face, kind, one) for face, all_kinds in counts.items() for kind, one in all_kinds.items()]
    for face, kind, one in wrong:
        for example in one["examples"]:
            console.print(f"{face}, {kind}: {example}", markup=False)
    return sum(one["otherwise"] for _, _, one in wrong)


def main() -> int:
    """Run, print, write."""
    chosen = options()
    if chosen.arenas:
        os.environ["MALLOC_ARENA_MAX"] = str(chosen.arenas)
    console = Console(width=130)
    processes = start(chosen.rate)
    faces = [name for name in processes if name != "server"]
    try:
        for face in faces:
            processes[face].ask(None, 30)
        watch = Watch(processes)  # nobody has called yet: the descriptors of now are the number to come back to
        for face in faces:
            processes[face].ask("go", 30)
        load(chosen, watch, console)
        counts = {face: processes[face].ask("stop", 60)["counts"] for face in faces}
        after = watch.descriptors_after()
    finally:
        for process in processes.values():
            process.stop()
    verdicts = [watch.verdict(name, after[name], chosen.warm_up) for name in processes]
    wrong = print_counts(console, counts)
    print_verdicts(console, verdicts)
    good = not wrong and all(one.flat and not one.leaked for one in verdicts)
    console.print("flat, nothing leaked, every call as expected" if good else "NOT all as it should be")
    if chosen.json:
        written = {
            "good": good,
            "settings": {name: str(value) for name, value in vars(chosen).items()},
            "counts": counts,
            "verdicts": [asdict(one) for one in verdicts],
            "samples": [asdict(one) for one in watch.samples],
        }
        chosen.json.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
