from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from backwater_tornado.broker.values import Batch, Delivery, Message, Result, Settlement, SettleState, Verdict
from backwater_tornado.exposure import Exposed, Exposure
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.tasks.messages import TaskHeaders, encode_headers
from backwater_tornado.tasks.outcomes import succeeded
from backwater_tornado.worker.desk import Desk
from backwater_tornado.worker.holding import Held
from backwater_tornado.worker.hooks import Hooks
from backwater_tornado.worker.pace import GROWTH, LEAST_PER_SLOT, Pace
from tests.unit.worker.bench import Functions, HandPool


class Table:
    """A desk, and what it says."""

    def __init__(self) -> None:
        self.pool = HandPool(2, by_hand=True)
        self.desk = Desk(Exposure.of(Exposed(t=Functions())), lambda _: self.pool, None, Hooks(), {})
        self.said: list[Settlement] = []
        self.fetched: list[Held] = []
        self.desk.settle = self.said.append
        self.desk.fetch = lambda held, _: self.fetched.append(held)
        self.desk.made_room = lambda room, enough: None

    def take(self, token: int, task: str = "add", inputs: object = None, *, more: bool = False) -> None:
        headers = encode_headers(TaskHeaders(f"t.{task}", inputs=inputs))
        message = Message(str(token), MSGPACK.encode([[], {}]), headers)
        self.desk.take(Batch(token, (Delivery(token, "q", message, "", "q", 1, 0.0),)), more=more)

    def cancel(self, *tokens: int) -> None:
        self.desk.take(Batch(1, (), tokens))


def run(test: Callable[[Table], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test(Table())

    asyncio.run(main())


def test_what_must_not_run_twice_does_not_begin_when_its_lease_has_passed_on() -> None:
    async def test(table: Table) -> None:
        table.take(1, "once")
        await asyncio.sleep(0)
        (noted,) = table.said
        assert (noted.verdict, noted.once) == (Verdict.KEEP, True)
        table.desk.settled(noted, SettleState.STALE)
        await table.desk.idle.wait()
        assert table.pool.begun == []

    run(test)


def test_a_cancelling_that_is_told_again_stops_nothing_twice() -> None:
    async def test(table: Table) -> None:
        table.take(1)
        table.cancel(1, 99)
        table.cancel(1)
        assert len(table.pool.stopped) == 1
        await table.desk.idle.wait()
        table.cancel(1)
        assert len(table.said) == 1

    run(test)


def test_a_cancelling_that_comes_after_the_end_changes_nothing() -> None:
    async def test(table: Table) -> None:
        table.take(1)
        table.pool.end("1")
        table.cancel(1)
        assert len(table.said) == 1

    run(test)


def test_inputs_that_come_too_late_begin_nothing() -> None:
    async def test(table: Table) -> None:
        table.take(1, "echo", inputs="a")
        table.cancel(1)
        results: Mapping[str, Result | None] = {"a": Result("a", succeeded(1), True, 0.0)}
        table.desk.prepare(table.fetched[0], results)
        assert table.pool.begun == []
        assert len(table.said) == 1

    run(test)


def test_what_arrives_when_the_worker_stops_goes_back_at_once() -> None:
    async def test(table: Table) -> None:
        table.desk.return_waiting()
        table.take(1)
        (said,) = table.said
        assert (said.token, said.verdict) == (1, Verdict.RETURN)
        assert table.pool.begun == []

    run(test)


def test_what_has_ended_makes_room_before_the_broker_has_accepted_it() -> None:
    async def test(table: Table) -> None:
        table.desk.pace = Pace(2, 3, 0.0)
        told: list[tuple[int, int]] = []
        table.desk.made_room = lambda room, enough: told.append((room, enough))
        for token in (1, 2, 3):
            table.take(token)
        assert table.desk.room() == 0
        table.pool.end("1")
        assert (table.desk.room(), told[-1]) == (1, (1, 1))
        table.desk.settled(table.said[0], SettleState.DONE)
        assert (table.desk.room(), table.desk.held()) == (1, (2, 3))
        table.pool.end("2")
        table.desk.lose((2, 3))
        assert (table.desk.room(), table.desk.held()) == (3, (2,))
        table.desk.settled(table.said[1], SettleState.STALE)
        assert (table.desk.room(), table.desk.held()) == (3, ())

    run(test)


def test_what_the_broker_does_not_accept_does_not_pile_up() -> None:
    async def test(table: Table) -> None:
        table.desk.pace = Pace(2, 3, 0.0)
        for token in range(1, 100):
            if table.desk.room() > 0:
                table.take(token)
                table.pool.end(str(token))
        assert len(table.desk.held()) == 6

    run(test)


def test_a_full_batch_that_finds_nothing_left_to_begin_has_more_held() -> None:
    async def test(table: Table) -> None:
        desk, least = table.desk, table.pool.size * LEAST_PER_SLOT
        table.take(1)
        table.pool.end("1")
        table.take(2)
        table.take(3)
        assert desk.pace.prefetch(0.0) == least
        table.take(4, more=True)  # two that run leave slots for none, but nothing waits
        assert desk.pace.prefetch(0.0) == least * GROWTH
        table.take(5, more=True)  # the one before waits
        assert desk.pace.prefetch(0.0) == least * GROWTH

    run(test)
