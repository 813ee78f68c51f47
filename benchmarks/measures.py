"""Numbers: latency histograms, quartiles, CPU clocks. No I/O but reading clocks."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

#: Two neighbouring buckets of a histogram differ by this factor, so a percentile is right to 1 %.
BUCKET = 1.02

#: Bucket number -> how many.
Histogram = dict[int, int]


def histogram(nanoseconds: Iterable[int]) -> Histogram:
    """Latencies in logarithmic buckets: small to send, and histograms of slices can be added."""
    base = math.log(BUCKET)
    return dict(Counter(round(math.log(max(value, 1)) / base) for value in nanoseconds))


def added(histograms: Iterable[Mapping[int, int]]) -> Histogram:
    """All of them as one."""
    total: Counter[int] = Counter()
    for one in histograms:
        total.update(one)
    return dict(total)


def percentile(buckets: Mapping[int, int], share: float) -> float:
    """The latency below which that share lies, in seconds; nan of nothing."""
    wanted, seen = share * sum(buckets.values()), 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            return float(BUCKET**bucket / 1e9)
    return math.nan


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and ends of some numbers."""

    median: float
    low: float
    high: float
    least: float
    most: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, min(values), max(values), len(values))


def cpu_seconds(pid: int) -> float:
    """CPU time of another process so far, all its threads, from its own clock in nanoseconds (Linux).

    The clock's id is built as glibc's clock_getcpuclockid does. Elsewhere: nan, and the column stays empty.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, AttributeError):
        return math.nan


def busy_seconds() -> float:
    """CPU time the whole machine has spent so far, in ticks of 10 ms (Linux); else nan."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return math.nan
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / 100


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil-Sen: the median of the slopes between all pairs of points, so a few outliers do not matter."""
    step = max(1, len(points) // 200)
    thinned = points[::step]
    slopes = [(y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(thinned) for x2, y2 in thinned[i + 1 :] if x2 != x1]
    return statistics.median(slopes) if slopes else 0.0
