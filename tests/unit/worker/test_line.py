from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from backwater_tornado import hedging
from backwater_tornado.errors import (
    BodyTooLarge,
    CallFailed,
    MalformedBatch,
    MessageTooLarge,
    NotInScope,
    SessionGone,
    Unreachable,
)
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.worker.line import BRIEF, FIRST_PAUSE, LEAST_PAUSE, LONGEST_PAUSE, SHAKY, Line, SplitLink

T = TypeVar("T")
ASK: Ask[Any] = asks.stats([])
OTHER: Ask[Any] = asks.results([])


class Answers:
    """A link that answers, or fails, as it is told; then it answers with the verb."""

    def __init__(self, *answers: CallFailed | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def ask(self, ask: Ask[T]) -> T:
        self.asked.append(ask.verb)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return ask.verb  # type: ignore[return-value]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(main())


def test_it_asks_until_it_is_answered_and_what_it_asks_is_made_anew() -> None:
    async def test() -> None:
        link, made = Answers(Unreachable(), Unreachable()), []

        def make() -> Ask[Any]:
            made.append(1)
            return ASK

        line = Line(link, dice=lambda: 0.0)
        assert await line.insist(make) == "stats"
        assert len(made) == len(link.asked) == 3

    run(test)


@pytest.mark.parametrize("error", [SessionGone, BodyTooLarge, MessageTooLarge, MalformedBatch])
def test_what_the_asker_has_to_know_is_raised(error: type[CallFailed]) -> None:
    async def test() -> None:
        link = Answers(Unreachable(), error())
        line = Line(link, dice=lambda: 0.0)
        with pytest.raises(error):
            await line.insist(lambda: ASK)
        assert line.failing == {}  # it was an answer

    run(test)


def test_pauses_grow_to_a_bound_and_are_drawn() -> None:
    async def test() -> None:
        drawn: list[float] = []

        def dice() -> float:
            drawn.append(1.0)
            return 0.0

        await Line(Answers(*[Unreachable()] * 5), dice=dice).insist(lambda: ASK)
        assert len(drawn) == 5
        assert FIRST_PAUSE * 2**10 > LONGEST_PAUSE >= LEAST_PAUSE

    run(test)


def test_who_pauses_goes_on_when_another_is_answered() -> None:
    async def test() -> None:
        link = Answers(Unreachable(), Unreachable(), Unreachable(), Unreachable(), Unreachable())
        line = Line(link, dice=lambda: 1e9)  # nobody's pause ends by itself
        pausing = asyncio.ensure_future(line.insist(lambda: ASK))
        while not line.failing:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        link.answers.clear()
        await line.ask(OTHER)
        assert await pausing == "stats"

    run(test)


class Swallowing(Answers):
    """Nothing is heard any more of what is asked after the first time, until it is mended."""

    def __init__(self) -> None:
        super().__init__(Unreachable())
        self.is_mended = False

    async def ask(self, ask: Ask[T]) -> T:
        answer = await super().ask(ask)
        if not self.is_mended:
            await asyncio.Event().wait()
        return answer


def test_a_poll_after_one_that_failed_does_not_wait_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hedging, "EVERY", 0.001)

    async def test() -> None:
        link = Swallowing()
        polling = asyncio.ensure_future(Line(link, dice=lambda: 0.0).insist(lambda: asks.results([], wait=6.0)))
        while len(link.asked) < 4:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        link.is_mended = True
        assert await polling == "results"

    run(test)


def test_polls_are_short_for_a_while_after_a_failure_that_is_no_refusal() -> None:
    async def test() -> None:
        now, waits = 1000.0, []

        class Noting(Answers):
            async def ask(self, ask: Ask[T]) -> T:
                waits.append(ask.wait)
                return await super().ask(ask)

        link = Noting()
        line = Line(link, clock=lambda: now, dice=lambda: 0.0)
        for failure in (None, NotInScope(), Unreachable()):
            link.answers = [failure]
            await line.insist(lambda: asks.results([], wait=6.0))
        now += SHAKY + 1
        await line.insist(lambda: asks.results([], wait=6.0))
        assert waits == [6.0, 6.0, 6.0, 6.0, BRIEF, 6.0]

    run(test)


def test_what_does_not_wait_at_the_broker_is_on_its_way_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hedging, "EVERY", 0.0)

    async def test() -> None:
        link = Swallowing()
        asking = asyncio.ensure_future(Line(link, dice=lambda: 0.0).insist(lambda: ASK))
        while len(link.asked) < 2:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(link.asked) == 2
        asking.cancel()

    run(test)


def test_it_is_said_once_that_the_broker_is_away_and_once_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "backwater.worker")

    async def test() -> None:
        line = Line(Answers(*[Unreachable("no way")] * 4), dice=lambda: 0.0)
        for ask in (ASK, OTHER):
            with pytest.raises(Unreachable):
                await line.ask(ask)
        assert await line.insist(lambda: ASK) == "stats"
        assert [record.message for record in caplog.records] == [
            "the broker cannot be asked; it is tried until it answers: Unreachable: no way"
        ]
        await line.ask(OTHER)
        assert caplog.records[-1].message == "the broker is back"
        assert len(caplog.records) == 2

    run(test)


def test_it_knows_when_it_was_answered_last() -> None:
    async def test() -> None:
        moments = iter([1.0, 2.0, 3.0])
        line = Line(Answers(None, Unreachable()), clock=lambda: next(moments))
        assert line.heard == 1.0
        await line.ask(ASK)
        assert line.heard == 2.0
        with pytest.raises(Unreachable):
            await line.ask(ASK)
        assert line.heard == 2.0

    run(test)


def test_what_waits_at_the_broker_goes_over_a_link_of_its_own() -> None:
    async def test() -> None:
        waiting, other = Answers(), Answers()
        link = SplitLink(waiting, other)
        await link.ask(asks.results([], 5.0))
        await link.ask(ASK)
        assert (waiting.asked, other.asked) == (["results"], ["stats"])

    run(test)
