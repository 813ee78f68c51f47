from __future__ import annotations

from backwater_tornado.worker.pace import LEAST_PER_SLOT, MOST, Pace


def test_what_is_fixed_stays() -> None:
    pace = Pace(8, 5, 0.0)
    for _ in range(1000):
        pace.note_end(0.5)
    assert pace.prefetch(0.5) == 5


def test_at_least_a_few_for_each_slot() -> None:
    assert Pace(3, None, 0.0).prefetch(0.0) == 3 * LEAST_PER_SLOT
    assert Pace(0, None, 0.0).prefetch(0.0) == LEAST_PER_SLOT


def test_as_many_as_were_done_within_the_last_second_and_never_too_many() -> None:
    pace = Pace(1, None, 0.0)
    for _ in range(100):
        pace.note_end(0.9)
    assert pace.prefetch(0.9) == 100
    assert pace.prefetch(1.5) == 100  # of the second before
    for _ in range(3 * MOST):
        pace.note_end(1.6)
    assert pace.prefetch(1.6) == MOST


def test_it_falls_when_less_is_done() -> None:
    pace = Pace(1, None, 0.0)
    for _ in range(100):
        pace.note_end(0.9)
    for moment in (1.1, 2.2):
        for _ in range(10):
            pace.note_end(moment)
    assert pace.prefetch(2.2) == 10
    pace.note_end(0.9 + 100)
    assert pace.prefetch(101.0) == LEAST_PER_SLOT
