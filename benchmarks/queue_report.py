"""From visits to tables, ratios and the verdict on the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import measures
from measures import Spread
from queue_rivals import RIVALS
from queue_rounds import Visit, Wire
from rich.console import Console
from rich.table import Table

MIB = 1 << 20
#: Whom all are compared with, beside the best.
CELERY = "celery-redis"

Number = Callable[[Visit], float]


@dataclass(frozen=True)
class Cell:
    """A number of each visit; `best` picks the best of several."""

    name: str
    number: Number
    best: Callable[[Sequence[float]], float]

    def of(self, visits: Sequence[Visit], rival: str) -> dict[int, float]:
        """By round."""
        return {one.round: self.number(one) for one in visits if one.rival == rival}


CELLS = {
    cell.name: cell
    for cell in (
        Cell("one by one", lambda visit: visit.one.rate, max),
        Cell("16 at once", lambda visit: visit.crowd.rate, max),
        Cell("bulk", lambda visit: visit.bulk.rate, max),
        Cell("drain", lambda visit: visit.drain.rate, max),
        Cell("round trip", lambda visit: measures.percentile(visit.trips, 0.5), min),
    )
}


@dataclass(frozen=True)
class Target:
    """What ours is to reach: in a cell, against Celery on Redis or (None) the best of the rivals."""

    cell: str
    rival: str | None
    wanted: float


TARGETS = (
    Target("bulk", None, 5.0),
    Target("one by one", CELERY, 1.0),
    Target("drain", None, 2.0),
    Target("round trip", CELERY, 0.6),
)


@dataclass(frozen=True)
class Verdict:
    """A ratio, ours ÷ theirs, over the rounds; `reached` is None where nothing was wanted."""

    cell: str
    ours: str
    rival: str
    ratio: Spread
    wanted: float | None
    reached: bool | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def verdicts(visits: Sequence[Visit]) -> list[Verdict]:
    """Every variant of ours, in every cell, against the best rival and against Celery on Redis."""
    names = list(dict.fromkeys(visit.rival for visit in visits))
    found = []
    for ours in (name for name in names if RIVALS[name].ours):
        for cell in CELLS.values():
            for rival in (_best(cell, visits, names), CELERY if CELERY in names else None):
                if rival is not None:
                    found.append(_verdict(cell, visits, ours, rival))
    return list(dict.fromkeys(found))


def _best(cell: Cell, visits: Sequence[Visit], names: Sequence[str]) -> str | None:
    medians = {
        name: measures.spread(list(cell.of(visits, name).values())).median for name in names if not RIVALS[name].ours
    }
    best = cell.best(list(medians.values())) if medians else None
    return next((name for name, median in medians.items() if median == best), None)


def _verdict(cell: Cell, visits: Sequence[Visit], ours: str, rival: str) -> Verdict:
    mine, theirs = cell.of(visits, ours), cell.of(visits, rival)
    ratio = measures.spread([mine[number] / theirs[number] for number in mine if number in theirs])
    wanted = [one for one in TARGETS if one.cell == cell.name and (one.rival == rival or one.rival is None)]
    wanted = [one for one in wanted if one.rival is not None or rival == _best(cell, visits, _rivals(visits))]
    if not wanted:
        return Verdict(cell.name, ours, rival, ratio, None, None)
    limit = wanted[0].wanted
    return Verdict(cell.name, ours, rival, ratio, limit, cell.best([ratio.median, limit]) == ratio.median)


def _rivals(visits: Sequence[Visit]) -> list[str]:
    return list(dict.fromkeys(visit.rival for visit in visits))


def print_all(console: Console, visits: Sequence[Visit], wire: Sequence[Wire]) -> None:
    """All tables."""
    names = sorted({visit.rival for visit in visits}, key=list(RIVALS).index)
    by_name = {name: [visit for visit in visits if visit.rival == name] for name in names}
    print_rates(console, by_name)
    print_costs(console, by_name)
    print_wire(console, wire)
    print_guarantees(console, names)
    print_verdicts(console, verdicts(visits))


def print_rates(console: Console, by_name: dict[str, list[Visit]]) -> None:
    """Tasks a second and latencies."""
    shown = Table(title="tasks a second, median and range over rounds; round trip of one task", title_justify="left")
    shown.add_column("variant")
    for head in ("enqueue one by one", "by 16 at once", "enqueue in bulk", "drain", "p50", "p99"):
        shown.add_column(head, justify="right")
    for name, visits in by_name.items():
        trips = measures.added(visit.trips for visit in visits)
        shown.add_row(
            name,
            *(_rates([cell.number(visit) for visit in visits]) for cell in list(CELLS.values())[:4]),
            f"{measures.percentile(trips, 0.5) * 1e3:,.2f} ms",
            f"{measures.percentile(trips, 0.99) * 1e3:,.2f} ms",
        )
    console.print(shown)


def print_costs(console: Console, by_name: dict[str, list[Visit]]) -> None:
    """CPU and memory."""
    shown = Table(title="CPU for a task in us; memory (PSS) in MiB; medians", title_justify="left")
    shown.add_column("variant")
    costs: dict[str, Number] = {
        "one: client": lambda visit: visit.one.client_cpu / visit.one.count,
        "broker": lambda visit: visit.one.broker_cpu / visit.one.count,
        "16: client": lambda visit: visit.crowd.client_cpu / visit.crowd.count,
        " broker": lambda visit: visit.crowd.broker_cpu / visit.crowd.count,
        "bulk: client": lambda visit: visit.bulk.client_cpu / visit.bulk.count,
        "broker ": lambda visit: visit.bulk.broker_cpu / visit.bulk.count,
        "drain: worker": lambda visit: visit.drain.worker_cpu / visit.drain.count,
        "broker  ": lambda visit: visit.drain.broker_cpu / visit.drain.count,
    }
    sizes: dict[str, Number] = {
        "worker": lambda visit: visit.memory.worker,
        "broker idle": lambda visit: visit.memory.broker_idle,
        "all waiting": lambda visit: visit.memory.broker_waiting,
        "all done": lambda visit: visit.memory.broker_after,
    }
    for head in (*costs, *sizes):
        shown.add_column(head, justify="right")
    for name, visits in by_name.items():
        shown.add_row(
            name,
            *(f"{_median(visits, number) * 1e6:,.0f}" for number in costs.values()),
            *(f"{_median(visits, number) / MIB:,.1f}" for number in sizes.values()),
        )
    console.print(shown)


def print_wire(console: Console, wire: Sequence[Wire]) -> None:
    """Bytes."""
    shown = Table(title="bytes of TCP payload for a task, up + down", title_justify="left")
    for head in ("variant", "enqueue one by one", "enqueue in bulk", "worker"):
        shown.add_column(head, justify="left" if head == "variant" else "right")
    for one in wire:
        shown.add_row(one.rival, *(f"{up:,.0f} + {down:,.0f}" for up, down in (one.one, one.bulk, one.worker)))
    console.print(shown)


def print_guarantees(console: Console, names: Sequence[str]) -> None:
    """What is compared, and what each of them promises at these settings."""
    shown = Table(title="what each is, and what it guarantees as it comes", title_justify="left", show_lines=True)
    for head in ("variant", "what", "in bulk", "guarantees"):
        shown.add_column(head)
    for name in names:
        rival = RIVALS[name]
        shown.add_row(name, rival.about, rival.bulk, rival.guarantee)
    console.print(shown)


def print_verdicts(console: Console, found: Sequence[Verdict]) -> None:
    """The targets."""
    shown = Table(title="ours ÷ theirs (median of ratios within rounds, quartiles)", title_justify="left")
    for head in ("cell", "ours", "rival", "ratio", "wanted", "reached"):
        shown.add_column(head)
    for one in found:
        sign = "≤" if CELLS[one.cell].best is min else "≥"
        shown.add_row(
            one.cell,
            one.ours,
            one.rival,
            f"{one.ratio.median:.2f} ({one.ratio.low:.2f}-{one.ratio.high:.2f})",
            "" if one.wanted is None else f"{sign} {one.wanted:g}",
            {True: "yes", False: "NO", None: ""}[one.reached],
        )
    console.print(shown)


def _median(visits: Sequence[Visit], number: Number) -> float:
    return measures.spread([number(visit) for visit in visits]).median


def _rates(values: Sequence[float]) -> str:
    spread = measures.spread(values)
    return f"{spread.median:,.0f} ({spread.least:,.0f}-{spread.most:,.0f})"
