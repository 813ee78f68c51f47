from __future__ import annotations

import pytest

from backwater_tornado.protocol.patience import FIRST_REST, LONGEST_REST, Patience


class Link:
    """Polls of 6 s, one after the other, over a link of which something ends those that get older than `limit`."""

    def __init__(self, limit: float | None = None) -> None:
        self.patience = Patience()
        self.limit = limit
        self.now = 0.0
        self.asked: list[float] = []

    def poll(self, message_after: float = 60.0) -> bool:
        """Whether it is answered."""
        wait = self.patience.allow(6.0, self.now)
        self.asked.append(wait)
        began, age = self.now, min(wait, message_after)
        if self.limit is not None and age > self.limit:
            self.now += self.limit
            self.patience.note_death(began, wait, self.now)
            return False
        self.now += age
        self.patience.note_life(age)
        return True

    def cut(self, age: float) -> None:
        """A poll that is ended by a cut."""
        self.now += age
        self.patience.note_death(self.now - age, 6.0, self.now)


def test_where_nothing_dies_polls_are_as_long_as_they_want_to_be() -> None:
    link = Link()
    assert all(link.poll() for _ in range(3))
    assert (link.asked, link.patience.limit) == ([6.0] * 3, None)


def test_two_that_die_at_the_same_age_make_the_next_ones_shorter() -> None:
    link = Link(limit=3.0)
    assert [link.poll() for _ in range(5)] == [False, False, True, True, True]
    assert link.asked == pytest.approx([6.0, 6.0, 2.4, 2.4, 2.4])
    assert link.patience.allow(1.0, link.now) == 1.0


def test_cuts_at_any_age_say_nothing() -> None:
    link = Link()
    for age in (5.0, 2.0, 4.0, 1.5):
        link.cut(age)
    assert link.patience.limit is None


@pytest.mark.parametrize("age", [0.3, 7.5])
def test_neither_do_those_that_hardly_began_or_should_have_been_answered(age: float) -> None:
    link = Link()
    link.cut(age)
    link.cut(age)
    assert link.patience.limit is None


def test_those_that_die_together_of_one_cut_count_once() -> None:
    link = Link()
    link.cut(3.0)
    for _ in range(5):
        link.patience.note_death(0.0, 6.0, 3.0)
    assert link.patience.limit is None


def test_one_that_lives_longer_in_between_tells_that_there_is_no_limit() -> None:
    link = Link()
    link.cut(3.0)
    link.poll(2.0)
    link.poll()
    link.cut(3.0)
    assert link.patience.limit is None


def test_after_a_while_one_tries_more_and_the_limit_is_gone_with_what_made_it() -> None:
    link = Link(limit=3.0)
    for _ in range(3):
        link.poll()
    link.limit = None
    link.now = 6.0 + FIRST_REST
    assert link.poll()
    assert link.asked[-1] == 6.0
    assert link.patience.limit is None


def test_one_that_tries_more_and_dies_is_enough_and_the_next_tries_later() -> None:
    link = Link(limit=3.0)
    link.poll()
    link.poll()
    rests = []
    for _ in range(9):
        last = link.now
        while link.poll():
            link.now += 60.0
        rests.append(round((link.now - last) / FIRST_REST))
        assert link.patience.limit == pytest.approx(2.4)
    assert rests == [1, 2, 4, 8, 16, 32, 64, 72, 72]
    assert LONGEST_REST == 72 * FIRST_REST
