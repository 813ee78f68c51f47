"""The waits and bounds of retries; for any policy and any count, see tests/properties."""

from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.marks import ExposeOptions
from backwater_tornado.tasks.retry import RetryPolicy, delay_of, policy_of, retries_by_itself


def policy(**options: Any) -> RetryPolicy:
    return policy_of(ExposeOptions(task=options).task)


def test_the_defaults_are_celerys() -> None:
    assert policy() == RetryPolicy(delay=180.0, backoff=0.0, backoff_max=600.0, jitter=True)


def test_every_option_of_retries_is_taken_and_others_are_passed_by() -> None:
    made = policy(
        max_retries=None,
        retry_delay=5,
        retry_backoff=2,
        retry_backoff_max=60,
        retry_jitter=False,
        autoretry_for=[OSError],
        dont_autoretry_for=(FileNotFoundError,),
        priority=3,
    )
    assert made == RetryPolicy(
        delay=5.0,
        backoff=2.0,
        backoff_max=60.0,
        jitter=False,
        retry_for=(OSError,),
        never_for=(FileNotFoundError,),
    )


@pytest.mark.parametrize(("given", "seconds"), [(True, 1.0), (False, 0.0), (0, 0.0), (0.5, 0.5), (3, 3.0)])
def test_backoff_is_a_flag_or_seconds(given: float, seconds: float) -> None:
    assert policy(retry_backoff=given).backoff == seconds


def test_without_backoff_every_retry_waits_alike() -> None:
    assert [delay_of(policy(retry_delay=5), retries, 0.25) for retries in (0, 1, 50)] == [5, 5, 5]


def test_with_backoff_each_wait_is_twice_the_last_up_to_the_longest() -> None:
    backing_off = policy(retry_backoff=3, retry_backoff_max=40, retry_jitter=False)
    assert [delay_of(backing_off, retries, 0.25) for retries in range(6)] == [3, 6, 12, 24, 40, 40]


def test_the_longest_wait_is_ten_minutes_unless_said_otherwise() -> None:
    assert delay_of(policy(retry_backoff=True, retry_jitter=False), 60, 0.5) == 600


def test_jitter_is_full() -> None:
    backing_off = policy(retry_backoff=10)
    assert [delay_of(backing_off, 1, dice) for dice in (0.0, 0.25, 0.75)] == [0, 5, 15]
    assert delay_of(backing_off, 20, 0.5) == 300


@pytest.mark.parametrize("retries", [1023, 1024, 10**6, 10**30])
def test_no_count_is_too_high(retries: int) -> None:
    assert delay_of(policy(retry_backoff=True, retry_jitter=False), retries, 0.0) == 600


def test_what_is_raised_is_retried_by_itself_only_if_that_was_said() -> None:
    assert not retries_by_itself(policy(), OSError())
    some = policy(autoretry_for=(OSError, KeyError), dont_autoretry_for=(FileNotFoundError,))
    assert retries_by_itself(some, ConnectionError())
    assert retries_by_itself(some, KeyError())
    assert not retries_by_itself(some, ValueError())
    assert not retries_by_itself(some, FileNotFoundError())
