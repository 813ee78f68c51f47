"""What a function may know of the call that it serves."""

from __future__ import annotations

import time

from backwater_tornado.context import CURRENT, CallContext, current_call

CALL = CallContext("key", "stream.1", "tasks", "add")


def test_outside_of_a_call_there_is_none() -> None:
    assert current_call() is None


def test_within_a_call_it_is_there() -> None:
    token = CURRENT.set(CALL)
    try:
        assert current_call() is CALL
    finally:
        CURRENT.reset(token)
    assert current_call() is None


def test_without_a_deadline_nothing_remains_to_be_told() -> None:
    assert CALL.remaining() is None


def test_what_remains_until_a_deadline_never_is_below_zero() -> None:
    now = time.monotonic()
    ahead = CallContext("key", "", "tasks", "add", deadline=now + 100)
    remaining = ahead.remaining()
    assert remaining is not None
    assert 90 < remaining <= 100
    assert CallContext("key", "", "tasks", "add", deadline=now - 1).remaining() == 0.0
