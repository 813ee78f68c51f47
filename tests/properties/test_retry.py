"""The waits between retries, for any policy, count and dice."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.tasks.retry import RetryPolicy, delay_of

seconds = st.floats(0, 1e9)
counts = st.integers(0, 100) | st.integers(0, 10**40)
policies = st.builds(
    RetryPolicy,
    delay=seconds,
    backoff=seconds,
    backoff_max=seconds,
    jitter=st.booleans(),
)


@given(policies, counts, st.floats(0, 1))
def test_a_wait_is_never_negative_never_endless_and_never_above_the_longest(
    policy: RetryPolicy, retries: int, dice: float
) -> None:
    delay = delay_of(policy, retries, dice)
    assert math.isfinite(delay)
    assert 0 <= delay <= (policy.backoff_max if policy.backoff else policy.delay)


@given(policies, counts, st.floats(0, 1))
def test_waits_never_get_shorter_with_the_same_dice(policy: RetryPolicy, retries: int, dice: float) -> None:
    assert delay_of(policy, retries, dice) <= delay_of(policy, retries + 1, dice)


@given(policies, counts, st.floats(0, 1))
def test_jitter_only_shortens(policy: RetryPolicy, retries: int, dice: float) -> None:
    assert delay_of(policy, retries, dice) <= delay_of(policy, retries, 1.0)
