"""Workers and brokers killed in the middle: what was accepted runs, and nothing twice that had been settled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import run

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize(
    ("pool", "kills"), [("threads", ["worker", "broker"]), ("processes", ["worker"]), ("async", ["both"])]
)
def test_every_task_runs_though_workers_and_brokers_are_killed(tmp_path: Path, pool: str, kills: list[str]) -> None:
    """More of them, and more often: `python -m tests.faults.campaign`."""
    report = run(tmp_path, pool, 1000, kills)
    assert report.accepted == report.begun == report.results == 1000
    assert report.wrong == []
    assert report.twice <= report.in_flight
