from __future__ import annotations

import pytest

from backwater_tornado.tasks.limits import rate_of


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (5, 5.0),
        (0.5, 0.5),
        ("10", 10.0),
        ("10/s", 10.0),
        ("120/m", 2.0),
        ("3600/h", 1.0),
        ("1.5/m", 0.025),
        (None, None),
        (0, None),
        ("0/m", None),
    ],
)
def test_a_limit_is_tasks_in_a_second(given: str | float | None, rate: float | None) -> None:
    assert rate_of(given) == rate
