"""CPU and memory of a process with all its children, from /proc (Linux); and how fast the disk is."""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil  # type: ignore[import-untyped,import-not-found,unused-ignore]

TICK = os.sysconf("SC_CLK_TCK")


def tree(pids: Iterable[int]) -> list[int]:
    """These and all below them that live."""
    found: list[int] = []
    for pid in pids:
        try:
            found += [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.NoSuchProcess:
            continue
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of the whole tree, with the children that have ended and were waited for; in ticks, mostly of 10 ms."""
    return sum(_ticks(pid) for pid in tree(pids)) / TICK


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, fields[11:15]))


def memory(pids: Iterable[int]) -> int:
    """Bytes of the whole tree, shared pages divided among those that share them (PSS)."""
    return sum(_pss(pid) for pid in tree(pids))


def _pss(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def sync_seconds(folder: Path, times: int = 20) -> float:
    """The median of some appends of 4 KiB, each synced: what every durable answer waits for at least."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(times):
            began = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)
