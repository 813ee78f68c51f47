"""Things and their moments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.broker.alarms import SLACK, Alarms


def test_what_is_due_comes_in_the_order_of_its_moments() -> None:
    alarms: Alarms[str] = Alarms()
    for moment, thing in [(3, "c"), (1, "a"), (2, "b"), (9, "z")]:
        alarms.set(thing, moment)
    assert alarms.next() == 1
    assert list(alarms.due(3)) == ["a", "b", "c"]
    assert "a" not in alarms
    assert "z" in alarms
    assert alarms.next() == 9


def test_a_thing_that_was_moved_has_one_moment() -> None:
    alarms: Alarms[str] = Alarms()
    for moment in (5, 1, 7):
        alarms.set("a", moment)
    assert alarms.next() == 7
    assert list(alarms.due(6)) == []
    assert list(alarms.due(7)) == ["a"]
    assert alarms.next() is None


def test_a_cancelled_thing_never_comes() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 1)
    alarms.cancel("a")
    alarms.cancel("a")
    assert list(alarms.due(9)) == []


def test_what_is_set_meanwhile_counts_too() -> None:
    alarms: Alarms[int] = Alarms()
    alarms.set(0, 0)
    seen = []
    for thing in alarms.due(5):
        seen.append(thing)
        alarms.set(thing + 1, thing + 1)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_things_are_never_compared() -> None:
    alarms: Alarms[object] = Alarms()
    things = [object(), object()]
    for thing in things:
        alarms.set(thing, 1)
    assert list(alarms.due(1)) == things


def test_moments_can_be_capped_one_by_one_or_all() -> None:
    alarms: Alarms[str] = Alarms()
    for moment, thing in [(3, "c"), (10, "x"), (20, "y")]:
        alarms.set(thing, moment)
    alarms.cap_one("y", 6)
    alarms.cap_one("c", 6)
    alarms.cap_one("missing", 6)
    assert list(alarms.due(6)) == ["c", "y"]
    alarms.set("c", 3)
    alarms.cap(5)
    assert list(alarms.due(5)) == ["c", "x"]


def test_outdated_entries_do_not_pile_up() -> None:
    alarms: Alarms[int] = Alarms()
    alarms.set(-1, 10**9)
    for number in range(10_000):
        alarms.set(number, 10**6)
        alarms.cancel(number)
        alarms.set(-1, 10**9 + number)
        assert len(alarms._heap) <= 2 + SLACK
    assert alarms.next() == 10**9 + 9_999


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 9)))), st.integers(0, 9))
def test_any_history_is_that_of_a_dict(history: list[tuple[int, int | None]], now: int) -> None:
    alarms: Alarms[int] = Alarms()
    model: dict[int, int] = {}
    for thing, moment in history:
        if moment is None:
            alarms.cancel(thing)
            model.pop(thing, None)
        else:
            alarms.set(thing, moment)
            model[thing] = moment
    assert alarms.next() == min(model.values(), default=None)
    assert sorted(alarms.due(now)) == sorted(thing for thing, moment in model.items() if moment <= now)
    assert alarms.next() == min((moment for moment in model.values() if moment > now), default=None)
