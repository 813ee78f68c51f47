"""All that a link, a broker and a worker may do to tasks, once: none is lost, and none runs twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.link_campaign import SHORT, run

# Real processes: once, on the source tree.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_every_task_runs_once_whatever_the_link_does(tmp_path: Path) -> None:
    """Longer, and one by one: `python -m tests.faults.link_campaign`."""
    report = run(SHORT, tmp_path, 100, ttl=12.0)
    assert (report.raised, report.lost, report.twice) == (0, 0, [])
    assert report.first is None or report.first < 10.0  # within 3 s on a machine that has nothing else to do
