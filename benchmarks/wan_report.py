"""From visits to tables, ratios and the verdict on the targets of wan.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import measures
from queue_rivals.contract import Rival
from queue_rivals.wan import WAN_RIVALS
from rich.console import Console
from rich.table import Table
from wan_rounds import Visit

#: nan where a rival has no such number.
Number = Callable[[Visit], float]
CELLS: dict[str, Number] = {
    "one by one": lambda visit: visit.one.rate,
    "accepted": lambda visit: visit.one.accepted,
    "bulk": lambda visit: visit.bulk.accepted,
    "drain": lambda visit: visit.drain.rate,
    "round trip": lambda visit: measures.percentile(visit.trips, 0.5),
    "bytes": lambda visit: math.nan if visit.wire is None else visit.wire,
}
#: Less is better there.
LESS = frozenset({"round trip", "bytes"})


@dataclass(frozen=True)
class Target:
    """What one of ours is to reach in a cell: so many times the best of some rivals (None: the link's round trip)."""

    cell: str
    ours: str
    than: str
    among: Callable[[Rival], bool] | None
    wanted: float


def _confirms(rival: Rival) -> bool:
    return rival.confirms


def _hopes(rival: Rival) -> bool:
    return not rival.confirms


def _any(rival: Rival) -> bool:
    return True


TARGETS = (
    Target("one by one", "ours-outbox", "best that confirms", _confirms, 100),
    Target("accepted", "ours-outbox", "best that confirms", _confirms, 50),
    Target("one by one", "ours-outbox", "best that does not confirm", _hopes, 1),
    Target("drain", "ours", "best", _any, 2),
    Target("round trip", "ours", "round trip of the link", None, 2.1),
    Target("round trip", "ours-outbox", "round trip of the link", None, 2.1),
    Target("bytes", "ours", "best", _any, 0.5),
    Target("bytes", "ours-outbox", "best", _any, 0.5),
)


@dataclass(frozen=True)
class Verdict:
    """A target, whom ours was compared with, and the ratio ours ÷ theirs of medians."""

    cell: str
    ours: str
    rival: str
    ratio: float
    wanted: float
    reached: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def medians(visits: Sequence[Visit]) -> dict[str, dict[str, float]]:
    """By rival and cell."""
    names = [name for name in WAN_RIVALS if any(visit.rival == name for visit in visits)]
    return {name: {cell: _median(visits, name, number) for cell, number in CELLS.items()} for name in names}


def _median(visits: Sequence[Visit], name: str, number: Number) -> float:
    return measures.spread([number(visit) for visit in visits if visit.rival == name]).median


def verdicts(found: Mapping[str, Mapping[str, float]], link: float) -> list[Verdict]:
    """Those targets that can be told by what was measured; `link` is its round trip in seconds."""
    made = []
    for target in TARGETS:
        rival, mark = (target.than, link) if target.among is None else _best(target, found)
        mine = found.get(target.ours, {}).get(target.cell, math.nan)
        if not math.isnan(mine / mark):
            reached = mine / mark <= target.wanted if target.cell in LESS else mine / mark >= target.wanted
            made.append(Verdict(target.cell, target.ours, rival, mine / mark, target.wanted, reached))
    return made


def _best(target: Target, found: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
    assert target.among is not None
    marks = {
        name: cells[target.cell]
        for name, cells in found.items()
        if not WAN_RIVALS[name].ours and target.among(WAN_RIVALS[name]) and not math.isnan(cells[target.cell])
    }
    best = (min if target.cell in LESS else max)(marks, key=lambda name: marks[name], default=None)
    return ("", math.nan) if best is None else (f"{target.than}: {best}", marks[best])


def print_all(console: Console, visits: Sequence[Visit], link: float) -> None:
    """All tables."""
    found = medians(visits)
    print_cells(console, visits, found, link)
    print_rivals(console, found)
    print_verdicts(console, verdicts(found, link))


def print_cells(
    console: Console, visits: Sequence[Visit], found: Mapping[str, Mapping[str, float]], link: float
) -> None:
    """The numbers."""
    shown = Table(
        title=f"tasks a second over a link of {link * 1e3:.0f} ms there and back; bytes for a task with ten arguments",
        title_justify="left",
    )
    heads = ("variant", "sent one by one", "accepted", "sent in bulk", "accepted ", "drained", "p50", "p50 ÷ link",
             "bytes: producer", "worker", "both")  # fmt: skip
    for head in heads:
        shown.add_column(head, justify="left" if head == "variant" else "right")
    for name, cells in found.items():
        numbers: tuple[tuple[str, float], ...] = (
            ("{:,.1f}", cells["one by one"]),
            ("{:,.1f}", cells["accepted"]),
            ("{:,.1f}", _median(visits, name, lambda visit: visit.bulk.rate)),
            ("{:,.1f}", cells["bulk"]),
            ("{:,.1f}", cells["drain"]),
            ("{:,.0f} ms", cells["round trip"] * 1e3),
            ("{:.2f}", cells["round trip"] / link),
            ("{:,.0f}", _median(visits, name, lambda visit: visit.producer_bytes or math.nan)),
            ("{:,.0f}", _median(visits, name, lambda visit: visit.worker_bytes or math.nan)),
            ("{:,.0f}", cells["bytes"]),
        )
        shown.add_row(name, *("" if math.isnan(number) else form.format(number) for form, number in numbers))
    console.print(shown)


def print_rivals(console: Console, names: Sequence[str] | Mapping[str, object]) -> None:
    """What is compared."""
    shown = Table(title="what each is, all with ten slots", title_justify="left")
    for head in ("variant", "what", "when sending returns the task is"):
        shown.add_column(head)
    for name in names:
        rival = WAN_RIVALS[name]
        where = "at the broker, or on this host's disk" if rival.confirms else "perhaps on its way"
        shown.add_row(name, rival.about, where)
    console.print(shown)


def print_verdicts(console: Console, found: Sequence[Verdict]) -> None:
    """The targets."""
    shown = Table(title="ours ÷ theirs", title_justify="left")
    for head in ("cell", "ours", "than", "ratio", "wanted", "reached"):
        shown.add_column(head)
    for one in found:
        sign = "≤" if one.cell in LESS else "≥"
        reached = "yes" if one.reached else "NO"
        shown.add_row(one.cell, one.ours, one.rival, f"{one.ratio:,.2f}", f"{sign} {one.wanted:g}", reached)
    console.print(shown)
