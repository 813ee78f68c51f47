"""From samples to tables, ratios and the verdict on the targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import measures
from measures import Spread
from rich.console import Console
from rich.table import Table
from rounds import Sample, Wire

OURS = ("ours-blocking", "ours-awaitable")
#: The same with plain functions, for which the server needs threads.
THREADS = ("ours-blocking-threads", "ours-awaitable-threads")
TYPED, STRUCT, GZIP = "grpc-aio", "grpc-aio-struct", "grpc-aio-gzip"

Cell = tuple[str, int]


@dataclass(frozen=True)
class Row:
    """One variant in one cell. CPU is in seconds per call."""

    variant: str
    rate: Spread
    p50: float
    p99: float
    client_cpu: float
    server_cpu: float
    ratios: dict[str, Spread]


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; `reached` is None where it could not be."""

    name: str
    wanted: str
    measured: str
    value: float | None
    reached: bool | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def rows(samples: Sequence[Sample]) -> dict[Cell, list[Row]]:
    """By cell (case, callers), fastest first."""
    cells = sorted({(sample.case, sample.callers) for sample in samples})
    return {cell: _cell_rows([s for s in samples if (s.case, s.callers) == cell]) for cell in cells}


def _cell_rows(samples: Sequence[Sample]) -> list[Row]:
    found = []
    for variant in {sample.variant for sample in samples}:
        mine = [sample for sample in samples if sample.variant == variant]
        buckets = measures.added(sample.histogram for sample in mine)
        row = Row(
            variant=variant,
            rate=measures.spread([sample.rate for sample in mine]),
            p50=measures.percentile(buckets, 0.50),
            p99=measures.percentile(buckets, 0.99),
            client_cpu=measures.spread([sample.client_cpu / sample.calls for sample in mine]).median,
            server_cpu=measures.spread([sample.server_cpu / sample.calls for sample in mine]).median,
            ratios={ours: ratio for ours in (*OURS, *THREADS) if (ratio := _ratio(samples, ours, variant)) is not None},
        )
        found.append(row)
    return sorted(found, key=lambda row: -row.rate.median)


def _ratio(samples: Iterable[Sample], ours: str, theirs: str) -> Spread | None:
    rates: dict[tuple[int, str], float] = {(sample.round, sample.variant): sample.rate for sample in samples}
    paired = [
        rate / rates[number, theirs]
        for (number, variant), rate in rates.items()
        if variant == ours and (number, theirs) in rates
    ]
    return measures.spread(paired) if paired else None


def verdicts(table: dict[Cell, list[Row]], wire: Sequence[Wire]) -> list[Verdict]:
    """The targets, each on `add` and on `echo` where it speaks of calls."""
    found = []
    for case in ("add", "echo"):
        one, crowd = table.get((case, 1), []), table.get((case, 100), [])
        found += [
            _speed(f"{case}: blocking client, one caller ÷ grpcio aio", one, OURS[0], [TYPED], 1.0),
            _speed(f"{case}: 100 awaitable callers ÷ grpcio aio", crowd, OURS[1], [TYPED], 3.0),
            _speed(f"{case}: 100 awaitable callers ÷ best of the others", crowd, OURS[1], _others(crowd), 2.0),
            _speed(f"{case}: one caller of plain functions ÷ grpcio aio", one, THREADS[0], [TYPED], None),
            _speed(f"{case}: 100 callers of plain functions ÷ grpcio aio", crowd, THREADS[1], [TYPED], None),
        ]
    for kind in sorted({one.payload for one in wire}):
        for name, rival, most in (("typed", TYPED, 0.5), ("Struct", STRUCT, None), ("typed, gzip on", GZIP, None)):
            found.append(_bytes(f"echo, payload {kind!r}: bytes ÷ grpcio aio, {name}", (wire, kind), rival, most))
    return found


def _others(crowd: Sequence[Row]) -> list[str]:
    return [row.variant for row in crowd if row.variant not in {*OURS, *THREADS, TYPED, STRUCT, GZIP}]


def _speed(name: str, cell: Sequence[Row], ours: str, rivals: Sequence[str], least: float | None) -> Verdict:
    """Against several rivals the one with the lowest ratio counts."""
    ratios = {row.variant: row.ratios[ours] for row in cell if row.variant in rivals and ours in row.ratios}
    wanted = "-" if least is None else f"≥ {least:g}"
    if not ratios:
        return Verdict(name, wanted, "not measured", None, None)
    hardest = min(ratios, key=lambda variant: ratios[variant].median)
    ratio = ratios[hardest]
    measured = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" + (f", {hardest}" if len(rivals) > 1 else "")
    return Verdict(name, wanted, measured, ratio.median, None if least is None else ratio.median >= least)


def _bytes(name: str, counted: tuple[Sequence[Wire], str], rival: str, most: float | None) -> Verdict:
    """One caller each; of our two faces the one that sends more."""
    wire, kind = counted
    totals = {one.variant: one.total for one in wire if (one.case, one.payload, one.callers) == ("echo", kind, 1)}
    ours = [totals[face] for face in OURS if face in totals]
    wanted = "-" if most is None else f"≤ {most:g}"
    if not ours or rival not in totals:
        return Verdict(name, wanted, "not measured", None, None)
    ratio = max(ours) / totals[rival]
    measured = f"{ratio:.3f} ({max(ours):,.0f} B ÷ {totals[rival]:,.0f} B)"
    return Verdict(name, wanted, measured, ratio, None if most is None else ratio <= most)


def print_rows(console: Console, title: str, table: dict[Cell, list[Row]]) -> None:
    """A table for each cell."""
    for (case, callers), found in table.items():
        crowd = "1 caller" if callers == 1 else f"{callers} callers"
        shown = Table(title=f"{title}: {case}, {crowd}", title_justify="left")
        heads = ("calls/s", "slowest-fastest", "p50", "p99", "CPU client", "CPU server", *(f"{o} ÷ it" for o in OURS))
        shown.add_column("variant")
        for head in heads:
            shown.add_column(head, justify="right")
        for row in found:
            shown.add_row(
                row.variant,
                f"{row.rate.median:,.0f}",
                f"{row.rate.least:,.0f}-{row.rate.most:,.0f}",
                _time(row.p50),
                _time(row.p99),
                _time(row.client_cpu),
                _time(row.server_cpu),
                *(_quartiles(row.ratios.get(ours)) for ours in OURS),
            )
        console.print(shown)


def print_wire(console: Console, wire: Sequence[Wire]) -> None:
    """Bytes per call."""
    shown = Table(title="bytes of TCP payload per call (request + answer)", title_justify="left")
    heads = [(one.case, one.payload, one.callers) for one in wire]
    columns = sorted(set(heads))
    shown.add_column("variant")
    for case, kind, callers in columns:
        shown.add_column(f"{case}{'' if case == 'add' else ' ' + kind}, {callers}", justify="right")
    by_place = {(one.variant, one.case, one.payload, one.callers): one for one in wire}
    for variant in dict.fromkeys(one.variant for one in wire):
        cells = [by_place.get((variant, *column)) for column in columns]
        shown.add_row(variant, *(f"{one.up:,.0f} + {one.down:,.0f}" if one else "" for one in cells))
    console.print(shown)


def print_verdicts(console: Console, found: Sequence[Verdict]) -> None:
    """The targets."""
    shown = Table(title="targets (median of ratios within rounds, quartiles)", title_justify="left")
    for head in ("target", "wanted", "measured", "reached"):
        shown.add_column(head)
    for one in found:
        reached = {True: "yes", False: "NO", None: "" if one.wanted == "-" else "?"}[one.reached]
        shown.add_row(one.name, one.wanted, one.measured, reached)
    console.print(shown)


def _time(seconds: float) -> str:
    if seconds != seconds:
        return ""
    return f"{seconds * 1e6:,.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.1f} ms"


def _quartiles(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
