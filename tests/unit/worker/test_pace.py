from __future__ import annotations

import pytest

from backwater_tornado.worker.pace import GROWTH, LEAST_PER_SLOT, MOST, Pace


def test_what_is_fixed_stays() -> None:
    pace = Pace(8, 5, 0.0)
    for _ in range(1000):
        pace.note_end(0.5, 0.001)
    assert pace.prefetch(0.5) == 5


def test_at_least_a_few_for_each_slot() -> None:
    assert Pace(3, None, 0.0).prefetch(0.0) == 3 * LEAST_PER_SLOT
    assert Pace(0, None, 0.0).prefetch(0.0) == LEAST_PER_SLOT


def test_as_many_as_were_done_within_the_last_second_and_never_too_many() -> None:
    pace = Pace(1, None, 0.0)
    for _ in range(100):
        pace.note_end(0.9, 0.001)
    assert pace.prefetch(0.9) == 100
    assert pace.prefetch(1.5) == 100  # of the second before
    for _ in range(3 * MOST):
        pace.note_end(1.6, 0.001)
    assert pace.prefetch(1.6) == MOST


def test_it_falls_when_less_is_done() -> None:
    pace = Pace(1, None, 0.0)
    for _ in range(100):
        pace.note_end(0.9, 0.001)
    for moment in (1.1, 2.2):
        for _ in range(10):
            pace.note_end(moment, 0.001)
    assert pace.prefetch(2.2) == 10
    pace.note_end(0.9 + 100, 0.001)
    assert pace.prefetch(101.0) == LEAST_PER_SLOT


def test_pools_that_are_dry_have_more_held_at_once() -> None:
    pace = Pace(10, None, 0.0)
    pace.note_end(0.1, 0.001)
    held = []
    for _ in range(4):
        held.append(pace.prefetch(0.5))
        pace.note_dry(0.5)
    assert held == [40, 160, 640, MOST]
    assert [pace.prefetch(now) for now in (0.9, 1.5, 2.5, 3.5, 4.5, 20.0)] == [1000, 500, 250, 125, 62, 40]


def test_never_more_than_the_pools_would_run_within_a_second() -> None:
    pace = Pace(10, None, 0.0)
    for _ in range(200):
        pace.note_end(0.1, 0.02)
    for _ in range(5):
        pace.note_dry(0.1)
    assert pace.prefetch(0.1) == pytest.approx(500, abs=1)
    for _ in range(200):
        pace.note_end(0.1, 60.0)
    pace.note_dry(0.1)
    assert pace.prefetch(10.0) == 40


def test_tasks_that_take_no_time_at_all_are_no_harm() -> None:
    pace = Pace(1, None, 0.0)
    pace.note_end(0.0, 0.0)
    pace.note_dry(0.0)
    assert pace.prefetch(0.0) == GROWTH * LEAST_PER_SLOT


def test_before_the_first_has_ended_nothing_is_known() -> None:
    pace = Pace(1, None, 0.0)
    pace.note_dry(0.0)
    assert pace.prefetch(0.0) == LEAST_PER_SLOT
    assert pace.prefetch(1e12) == LEAST_PER_SLOT
