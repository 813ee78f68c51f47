from __future__ import annotations

import pytest

from backwater_tornado.protocol.breakers import PATIENCE, Breaker, State

REST = (1.0, 30.0)


class Endpoint:
    """A breaker, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.told: list[State] = []
        self.breaker = Breaker(self.told.append)
        self.now = 100.0

    def fail(self, began: float | None = None, *, unreachable: bool = True, dice: float = 1.0) -> None:
        began = self.now if began is None else began
        self.breaker.note_failure(began, self.now, REST, dice, unreachable=unreachable)

    def admits(self, at: float | None = None) -> bool:
        self.now = self.now if at is None else at
        return self.breaker.admit(self.now, 13.0)


def test_one_that_answers_is_asked() -> None:
    endpoint = Endpoint()
    endpoint.breaker.note_answer()
    assert endpoint.admits()
    assert endpoint.admits()
    assert (endpoint.breaker.state, endpoint.breaker.retry_at, endpoint.told) == (State.CLOSED, 0.0, [])


def test_one_that_cannot_be_reached_is_open_at_once() -> None:
    endpoint = Endpoint()
    endpoint.fail()
    assert not endpoint.admits(100.9)
    assert (endpoint.breaker.state, endpoint.breaker.failures, endpoint.told) == (State.OPEN, 1, [State.OPEN])


def test_lost_answers_open_it_when_there_are_many_in_a_row() -> None:
    endpoint = Endpoint()
    for _ in range(PATIENCE - 1):
        endpoint.fail(unreachable=False)
    assert endpoint.admits()
    endpoint.breaker.note_answer()
    for _ in range(PATIENCE - 1):
        endpoint.fail(unreachable=False)
    assert endpoint.admits()
    assert endpoint.told == []
    endpoint.fail(unreachable=False)
    assert not endpoint.admits()


def test_what_was_on_its_way_together_counts_once() -> None:
    endpoint = Endpoint()
    for _ in range(500):
        endpoint.fail(99.0, unreachable=False)
    assert (endpoint.breaker.failures, endpoint.admits()) == (1, True)


def test_half_open_one_call_tries_it_and_an_answer_closes_it() -> None:
    endpoint = Endpoint()
    endpoint.fail()
    assert endpoint.admits(101.0)
    assert endpoint.breaker.state is State.HALF_OPEN
    assert not endpoint.admits(113.9)
    endpoint.breaker.note_answer()
    assert endpoint.admits()
    assert endpoint.admits()
    assert endpoint.told == [State.OPEN, State.CLOSED]


def test_a_call_that_tries_it_and_is_never_heard_of_is_followed_by_another() -> None:
    endpoint = Endpoint()
    endpoint.fail()
    assert [endpoint.admits(at) for at in (101.0, 113.9, 114.0, 114.1)] == [True, False, True, False]


def test_rests_grow_while_it_fails_and_are_bounded() -> None:
    endpoint = Endpoint()
    rests = []
    for _ in range(7):
        endpoint.fail(unreachable=False) if rests else endpoint.fail()
        rests.append(endpoint.breaker.retry_at - endpoint.now)
        assert endpoint.admits(endpoint.breaker.retry_at)
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert endpoint.told == [State.OPEN]
    endpoint.breaker.note_answer()
    endpoint.fail()
    assert endpoint.breaker.retry_at - endpoint.now == 1.0


@pytest.mark.parametrize(("dice", "rest"), [(0.0, 0.5), (0.5, 0.75)])
def test_rests_are_jittered(dice: float, rest: float) -> None:
    endpoint = Endpoint()
    endpoint.fail(dice=dice)
    assert endpoint.breaker.retry_at == 100.0 + rest


def test_very_many_openings_do_not_overflow() -> None:
    endpoint = Endpoint()
    for _ in range(1100):
        endpoint.fail()
        assert endpoint.admits(endpoint.breaker.retry_at)


def test_failures_of_calls_that_had_no_choice_prolong_no_rest() -> None:
    endpoint = Endpoint()
    endpoint.fail()
    endpoint.now = 100.9
    endpoint.fail()
    assert endpoint.admits(101.0)
    endpoint.fail(100.8)  # it began before the last failure: it is not the one that tries
    assert endpoint.breaker.state is State.HALF_OPEN


def test_whoever_listens_is_nobody_by_default() -> None:
    breaker = Breaker()
    breaker.note_failure(0.0, 0.0, REST, 1.0, unreachable=True)
    assert breaker.state is State.OPEN
