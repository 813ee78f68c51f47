from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from backwater_tornado.worker.turns import Limit, Turns


class Loop:
    """A clock that is moved by hand, and timers on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._numbers = count()

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., Any], *args: Any) -> object:
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), call, args))
        return object()

    def pass_by(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, _, call, args = heapq.heappop(self._timers)
            call(*args)
        self.now = until


@dataclass(eq=False)
class One:
    name: str
    limit: Limit | None = None
    wanted: bool = True


@dataclass
class Floor:
    size: int = 2
    instant: bool = False
    loop: Loop = field(default_factory=Loop)
    begun: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.turns: Turns[One] = Turns(self.size, lambda one: one.wanted, self.begin, loop)

    def begin(self, one: One) -> None:
        self.begun.append(one.name)
        self.times.append(self.loop.now)
        if self.instant:
            self.turns.end(one)

    def add(self, *names: str, limit: Limit | None = None) -> list[One]:
        ones = [One(name, limit) for name in names]
        for one in ones:
            self.turns.add(one)
        return ones


def test_so_many_begin_as_there_are_slots_and_then_in_their_order() -> None:
    floor = Floor()
    a, b, *_ = floor.add("a", "b", "c", "d")
    assert floor.begun == ["a", "b"]
    floor.turns.end(b)
    floor.turns.end(a)
    assert floor.begun == ["a", "b", "c", "d"]


def test_what_is_not_wanted_any_more_is_passed_over() -> None:
    floor = Floor(1)
    a, b, _ = floor.add("a", "b", "c")
    b.wanted = False
    floor.turns.end(a)
    assert floor.begun == ["a", "c"]


def test_what_ends_as_it_begins_needs_no_stack() -> None:
    floor = Floor(1, instant=True)
    blocked = One("x")
    floor.instant = False
    floor.turns.add(blocked)
    floor.add(*map(str, range(5000)))
    floor.instant = True
    floor.turns.end(blocked)
    assert floor.begun == ["x", *map(str, range(5000))]


def test_one_that_may_not_begin_steps_aside_and_is_first_again() -> None:
    floor, limit = Floor(3), Limit(1, None)
    a, *_ = floor.add("a1", "a2", "a3", limit=limit)
    b, c, _ = floor.add("b", "c", "d")
    assert floor.begun == ["a1", "b", "c"]
    assert floor.turns.aside == 2
    floor.turns.end(a)
    assert floor.begun[3:] == ["a2"]
    floor.turns.end(b)
    floor.turns.end(c)
    assert floor.begun[4:] == ["d"]
    assert floor.turns.aside == 1


def test_one_that_stepped_aside_and_was_taken_away_keeps_back_no_other() -> None:
    floor, limit = Floor(3), Limit(1, None)
    a, b, _ = floor.add("a", "b", "c", limit=limit)
    b.wanted = False
    floor.turns.end(a)
    assert floor.begun == ["a", "c"]


def test_a_rate_is_kept_evenly() -> None:
    floor, limit = Floor(10), Limit(None, 2.0)
    floor.add("a", "b", "c", limit=limit)
    floor.add("x")
    assert floor.begun == ["a", "x"]
    floor.loop.pass_by(10)
    floor.add("d", "e", limit=limit)
    floor.loop.pass_by(10)
    assert floor.begun == ["a", "x", "b", "c", "d", "e"]
    assert floor.times == [100.0, 100.0, 100.5, 101.0, 110.0, 110.5]


def test_a_rate_and_a_number_hold_together() -> None:
    floor, limit = Floor(10), Limit(1, 1.0)
    a, b = floor.add("a", "b", limit=limit)
    floor.loop.pass_by(5)
    assert floor.begun == ["a"]
    floor.turns.end(a)
    floor.turns.end(b)
    assert floor.begun == ["a", "b"]


def test_what_comes_forward_while_all_slots_are_busy_waits_for_one() -> None:
    floor, limit = Floor(1), Limit(None, 1.0)
    (a,) = floor.add("a", limit=limit)
    floor.add("b", "c", limit=limit)
    floor.turns.end(a)
    (x,) = floor.add("x")
    floor.loop.pass_by(5)
    assert floor.begun == ["a", "x"]
    floor.turns.end(x)
    assert floor.begun == ["a", "x", "b"]
