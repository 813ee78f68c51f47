from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from backwater_tornado.broker.values import Batch, Delivery, Message
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.worker.consumer import Consumer
from backwater_tornado.worker.line import Line

T = TypeVar("T")


class Broker:
    """A link that answers polls as it is told; it holds them until then."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batch] = asyncio.Queue()
        self.asked: list[Ask[Any]] = []
        self.polled = asyncio.Semaphore(0)

    async def ask(self, ask: Ask[T]) -> T:
        self.asked.append(ask)
        if ask.verb != "receive":
            return None  # type: ignore[return-value]
        self.polled.release()
        return await self.batches.get()  # type: ignore[return-value]

    def opened(self) -> list[str]:
        return [ask.args[0] for ask in self.asked if ask.verb == "open_session"]


class Hands:
    """A `Holder` that writes down what it is given."""

    def __init__(self) -> None:
        self.taken: list[Batch] = []
        self.lost = 0

    def room(self) -> int:
        return 5

    def held(self) -> tuple[int, ...]:
        return ()

    def let_go(self) -> None:
        """Nothing is too much."""

    def take(self, batch: Batch) -> None:
        self.taken.append(batch)

    def lose(self) -> None:
        self.lost += 1


def batch(number: int, *cancelled: int) -> Batch:
    return Batch(number, (Delivery(number, "q", Message("a", b""), "", "q", 1, 0.0),), cancelled)


def run(test: Callable[[Consumer, Broker, Hands], Awaitable[None]]) -> None:
    async def main() -> None:
        broker, hands = Broker(), Hands()
        consumer = Consumer(Line(broker), hands, ["q", "r"])
        await consumer.open()
        polling = asyncio.ensure_future(consumer.run())
        async with asyncio.timeout(20):
            await broker.polled.acquire()
            await test(consumer, broker, hands)
        polling.cancel()

    asyncio.run(main())


def test_a_batch_that_comes_again_is_taken_once() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        for each in (batch(1), batch(1), batch(1, 7), batch(2)):
            broker.batches.put_nowait(each)
            await broker.polled.acquire()
        assert hands.taken == [batch(1), Batch(1, (), (7,)), batch(2)]
        assert [ask.args[1].confirmed for ask in broker.asked if ask.verb == "receive"] == [0, 1, 1, 1, 2]

    run(test)


def test_what_came_for_a_session_that_is_gone_is_not_taken() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        await consumer.renew(consumer.session)
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        assert hands.taken == []
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        assert hands.taken == [batch(1)]

    run(test)


def test_a_session_is_renewed_once_however_many_find_it_gone() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        gone = consumer.session
        await asyncio.gather(consumer.renew(gone), consumer.renew(gone))
        await consumer.renew(gone)
        assert hands.lost == 1
        assert broker.opened() == [gone, consumer.session]

    run(test)


def test_no_queue_is_always_the_first() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        wants = [ask.args[1].wants for ask in broker.asked if ask.verb == "receive"]
        assert wants == [(("q", 5), ("r", 5)), (("r", 5), ("q", 5))]

    run(test)
