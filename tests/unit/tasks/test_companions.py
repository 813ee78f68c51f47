from __future__ import annotations

from collections.abc import Iterator

import pytest

from backwater_tornado.broker.values import Outcome, Result
from backwater_tornado.tasks.companions import FEWEST, FIRST, MOST, Companions


class Handle:
    """Of one task."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.known: Result | None = None


def result(id: str, *, final: bool = True) -> Result:
    return Result(id, Outcome(b"x"), final, 0.0)


def several(companions: Companions, count: int) -> list[Handle]:
    handles = [Handle(str(number)) for number in range(count)]
    for each in handles:
        companions.add(each)
    return handles


def test_others_that_were_sent_before_come_along_the_oldest_first() -> None:
    companions = Companions()
    first, *others = several(companions, 100)
    assert companions.take(first) is None
    assert companions.choose() == [each.id for each in others[:FIRST]]


def test_what_came_along_is_there_once_and_is_not_asked_for_again() -> None:
    companions = Companions()
    handles = several(companions, 3)
    companions.note(["0", "1", "2"], [result("0"), result("1", final=False), None])
    assert companions.choose() == ["1", "2"]
    assert companions.take(handles[0]) == result("0")
    assert companions.take(handles[0]) is None
    assert companions.take(handles[1]) is None


def test_a_handle_that_nobody_has_any_more_is_forgotten() -> None:
    companions = Companions()
    handles = several(companions, 2)
    del handles[0]
    assert companions.choose() == ["1"]
    companions.note(["0"], [result("0")])
    assert companions.choose() == ["1"]


def test_more_come_along_when_most_have_ended_and_fewer_when_most_have_not() -> None:
    companions = Companions()
    handles = several(companions, 10 * MOST)
    sizes = []
    for share in (1.0, 0.5, 0.4, 1.0, 1.0, 0.2, 0.0):
        asked = companions.choose()
        sizes.append(len(asked))
        companions.note(asked, [result("gone")] * round(share * len(asked)))
    assert sizes == [FIRST, 64, 256, 256, MOST, MOST, MOST // 2]
    for _ in range(9):
        companions.note(["0"], [None])
    assert len(companions.choose()) == FEWEST
    assert handles


def test_where_there_are_no_others_nothing_is_learned() -> None:
    companions = Companions()
    for _ in range(5):
        companions.note([], [])
    handles = several(companions, 100)
    assert len(companions.choose()) == FIRST
    assert handles


def test_while_another_thread_sends_none_come_along() -> None:
    class Busy(dict[str, Handle]):
        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("dictionary changed size during iteration")

    companions = Companions()
    companions._waiting = Busy()  # type: ignore[assignment]
    assert companions.choose() == []


@pytest.mark.parametrize("answer", [None, result("0", final=False)])
def test_what_is_not_final_is_asked_for_again(answer: Result | None) -> None:
    companions = Companions()
    handles = several(companions, 1)
    companions.note(["0"], [answer])
    assert companions.choose() == ["0"]
    assert handles[0].known is None
