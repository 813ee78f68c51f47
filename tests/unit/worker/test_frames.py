"""What a worker and its children say to each other, as bytes and back."""

from __future__ import annotations

import pytest

from backwater_tornado.broker.values import Outcome
from backwater_tornado.worker.frames import Ended, Frames, Ready, Said, Told, Unready, frame
from backwater_tornado.worker.jobs import End, Ending, Job


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
def test_values_come_whole_however_they_are_cut(size: int) -> None:
    said = [Ready(), Unready("why"), Told(1, Outcome("PROGRESS")), Ended(1, Ending(End.RETURN), last=True)]
    data = b"".join(map(frame, said))
    frames = Frames(Said)
    found = [each for start in range(0, len(data), size) for each in frames.feed(data[start : start + size])]
    assert found == said


def test_a_job_comes_as_it_was_sent() -> None:
    job = Job(1, "id", "m.f", b"\xc1", "", soft_time_limit=0.5, max_retries=None)
    assert Frames(Job).feed(frame(job)) == [job]
