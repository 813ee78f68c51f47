from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from backwater_tornado.broker.values import Message, Outcome, Settlement, SettleState, unpack
from backwater_tornado.errors import BodyTooLarge, MalformedBatch, MessageTooLarge, SessionGone
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.worker import settling
from backwater_tornado.worker.line import Line
from backwater_tornado.worker.settling import MOST, MOST_BYTES, Settling

T = TypeVar("T")


class Broker:
    """A link that takes settlements, as soon as it is told to go on."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[int]]] = []
        self.go = asyncio.Semaphore(0)
        self.gone = False
        self.limit = 10 * MOST_BYTES
        #: What it says to a settlement, by its reason.
        self.refused = {"large": MessageTooLarge, "odd": MalformedBatch}

    async def ask(self, ask: Ask[T]) -> T:
        session, packed = ask.args
        given = unpack(packed, list[Settlement])
        self.taken.append((session, [each.token for each in given]))
        await self.go.acquire()
        if self.gone:
            raise SessionGone
        if len(packed) > self.limit:
            raise BodyTooLarge
        for each in given:
            if each.reason in self.refused:
                raise self.refused[each.reason]
        return [SettleState.DONE] * len(given)  # type: ignore[return-value]


class Desk:
    def __init__(self) -> None:
        self.broker = Broker()
        self.session = "one"
        self.life = 1
        self.renewed: list[int] = []
        self.told: list[int] = []
        self.outcomes: list[Outcome | None] = []
        self.settling = Settling(Line(self.broker), self, self.tell)

    async def renew(self, life: int) -> None:
        self.renewed.append(life)
        self.life += 1
        self.broker.gone = False

    def tell(self, settlement: Settlement, state: SettleState) -> None:
        assert state is SettleState.DONE
        self.told.append(settlement.token)
        self.outcomes.append(settlement.outcome)

    async def until_asked(self, times: int) -> None:
        while len(self.broker.taken) < times:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)


def run(test: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        desk = Desk()
        running = asyncio.ensure_future(desk.settling.run())
        async with asyncio.timeout(20):
            await test(desk)
        running.cancel()

    asyncio.run(main())


def sized(token: int, size: int) -> Settlement:
    return Settlement(token, outcome=Outcome("SUCCESS", b"x" * size))


def test_what_comes_while_a_request_is_on_its_way_goes_with_the_next_in_its_order() -> None:
    async def test(desk: Desk) -> None:
        for token in (1, 2):
            desk.settling.add(Settlement(token))
        await desk.until_asked(1)
        for token in (3, 4, 5):
            desk.settling.add(Settlement(token))
        assert len(desk.settling) == 5
        desk.broker.go.release()
        await desk.until_asked(2)
        assert desk.broker.taken == [("one", [1, 2]), ("one", [3, 4, 5])]
        desk.broker.go.release()
        await desk.settling.empty()
        assert desk.told == [1, 2, 3, 4, 5]
        assert len(desk.settling) == 0

    run(test)


def test_requests_are_bounded_in_number_and_in_bytes() -> None:
    async def test(desk: Desk) -> None:
        desk.broker.go = asyncio.Semaphore(100)
        for token in range(MOST + 5):
            desk.settling.add(Settlement(token))
        await desk.settling.empty()
        assert [len(tokens) for _, tokens in desk.broker.taken] == [MOST, 5]
        desk.broker.taken.clear()
        for token, size in enumerate([10, MOST_BYTES // 2, MOST_BYTES // 2, 3 * MOST_BYTES, 10]):
            desk.settling.add(sized(token, size))
        await desk.settling.empty()
        assert [tokens for _, tokens in desk.broker.taken] == [[0, 1], [2], [3], [4]]

    run(test)


def test_what_was_not_accepted_is_said_again_when_the_session_is_open_again() -> None:
    async def test(desk: Desk) -> None:
        desk.broker.go = asyncio.Semaphore(100)
        desk.broker.gone = True
        desk.settling.add(Settlement(1))
        await desk.settling.empty()
        assert desk.broker.taken == [("one", [1]), ("one", [1])]
        assert desk.renewed == [1]
        assert desk.told == [1]

    run(test)


def test_an_outcome_that_no_request_can_take_becomes_an_error() -> None:
    async def test(desk: Desk) -> None:
        desk.broker.go = asyncio.Semaphore(100)
        desk.broker.limit = MOST_BYTES
        desk.settling.add(sized(1, 2 * MOST_BYTES))
        await desk.settling.empty()
        (outcome,) = desk.outcomes
        assert outcome is not None
        assert (outcome.state, outcome.failed) == ("FAILURE", True)

    run(test)


@pytest.mark.parametrize("reason", ["large", "odd"])
def test_one_that_the_broker_does_not_take_ends_as_failed_and_the_others_as_they_are(reason: str) -> None:
    async def test(desk: Desk) -> None:
        desk.broker.go = asyncio.Semaphore(100)
        for token in range(5):
            desk.settling.add(Settlement(token, reason=reason if token == 3 else ""))
        await desk.settling.empty()
        assert desk.told == [0, 1, 2, 3, 4]
        assert [None if outcome is None else outcome.failed for outcome in desk.outcomes] == [None] * 3 + [True, None]

    run(test)


def test_what_goes_back_with_another_body_counts_with_it() -> None:

    large: Any = Settlement(1, replacement=Message("1", b"x" * 1000))
    assert settling._size(large) == settling._size(Settlement(1)) + 1000
