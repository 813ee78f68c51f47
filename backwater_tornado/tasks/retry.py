"""When a task that raised runs again: Celery's options of retries, as functions of how often it has and of dice.

* Without backoff every retry waits `delay`. With it, the first waits up to `backoff` seconds and each later one up to
  twice as long as the one before, never above `backoff_max`.
* Jitter is full: a wait is anything from nothing to what it would be without. It goes with backoff only.

Rule: retries are counted from 0, so the first retry is made after 0 of them; what a retry is, and how many there
may be, the worker knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a function's tasks are retried; spans in seconds."""

    delay: float = 180.0
    #: Of the first retry; 0: no backoff.
    backoff: float = 0.0
    backoff_max: float = 600.0
    jitter: bool = True
    #: Retried by themselves, whoever raises them; the exceptions from it, which are not.
    retry_for: tuple[type[BaseException], ...] = ()
    never_for: tuple[type[BaseException], ...] = ()


#: The options of `expose` that make up a policy: name -> (field, what makes its value of the option's).
_OPTIONS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "retry_delay": ("delay", float),
    "retry_backoff": ("backoff", float),  # True is one second, and False none
    "retry_backoff_max": ("backoff_max", float),
    "retry_jitter": ("jitter", bool),
    "autoretry_for": ("retry_for", tuple),
    "dont_autoretry_for": ("never_for", tuple),
}


def policy_of(options: Mapping[str, Any]) -> RetryPolicy:
    """The policy that an exposed function's options ask for; they have been checked (`marks`), others are passed by."""
    given = {option: value for option, value in options.items() if option in _OPTIONS}
    return RetryPolicy(**{_OPTIONS[option][0]: _OPTIONS[option][1](value) for option, value in given.items()})


def retries_by_itself(policy: RetryPolicy, error: BaseException) -> bool:
    """Whether a task that raised this is retried without having asked for it."""
    return isinstance(error, policy.retry_for) and not isinstance(error, policy.never_for)


def delay_of(policy: RetryPolicy, retries: int, dice: float) -> float:
    """How long the next retry waits, in seconds, after so many; `dice` is from 0 to 1, and evenly spread."""
    if not policy.backoff:
        return policy.delay
    try:
        grown = math.ldexp(policy.backoff, retries)
    except OverflowError:
        grown = policy.backoff_max
    longest = min(grown, policy.backoff_max)
    return longest * dice if policy.jitter else longest
