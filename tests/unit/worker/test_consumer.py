from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from backwater_tornado.broker.values import Batch, Delivery, Message
from backwater_tornado.errors import SessionTaken
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
        #: Of what is claimed, what it gives.
        self.kept: list[int] = []
        #: Names of sessions that are another's.
        self.taken: set[str] = set()

    async def ask(self, ask: Ask[T]) -> T:
        self.asked.append(ask)
        if ask.verb != "receive":
            if ask.args[0] in self.taken:
                raise SessionTaken
            return self.kept  # type: ignore[return-value]
        self.polled.release()
        return await self.batches.get()  # type: ignore[return-value]

    def opened(self) -> list[str]:
        return [ask.args[0] for ask in self.asked if ask.verb == "open_session"]


class Hands:
    """A `Holder` that writes down what it is given."""

    def __init__(self) -> None:
        self.taken: list[Batch] = []
        self.lost: list[set[int]] = []
        self.here: tuple[int, ...] = ()
        self.more: list[bool] = []
        self.free = 5
        self.took = asyncio.Semaphore(0)

    def room(self) -> int:
        return self.free

    def held(self) -> tuple[int, ...]:
        return self.here

    def let_go(self) -> None:
        """Nothing is too much."""

    def take(self, batch: Batch, *, more: bool = False) -> None:
        self.taken.append(batch)
        self.more.append(more)
        self.took.release()

    def lose(self, tokens: Collection[int]) -> None:
        self.lost.append(set(tokens))


def batch(number: int, *cancelled: int) -> Batch:
    return Batch(number, (Delivery(number, "q", Message("a", b""), "", "q", 1, 0.0),), cancelled)


def run(test: Callable[[Consumer, Broker, Hands], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        broker, hands = Broker(), Hands()
        consumer = Consumer(Line(broker), hands, ["q", "r"], **options)
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


def test_after_a_batch_the_next_poll_goes_out_behind_the_first_settlement() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        for number in (1, 2):
            broker.batches.put_nowait(batch(number))
            for _ in range(20):
                await asyncio.sleep(0)
            assert (len(hands.taken), broker.polled.locked()) == (number, True)
            consumer.note_settlement()
            await broker.polled.acquire()

    run(test, lag=600.0)


def test_where_nothing_is_settled_for_long_the_next_poll_goes_out_all_the_same() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        assert hands.taken == [batch(1)]

    run(test, lag=0.0)


def test_what_came_before_the_session_was_opened_again_is_not_taken() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        await consumer.renew(consumer.life)
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        assert hands.taken == []
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        assert hands.taken == [batch(1)]

    run(test)


def test_a_session_is_renewed_once_however_many_find_it_gone() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        gone = consumer.life
        await asyncio.gather(consumer.renew(gone), consumer.renew(gone))
        await consumer.renew(gone)
        assert broker.opened() == [consumer.session] * 2

    run(test)


def test_what_was_held_is_claimed_and_what_is_not_given_back_is_lost() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        hands.here, broker.kept = (3, 5, 7), [3, 7]
        broker.batches.put_nowait(batch(7))
        await broker.polled.acquire()
        await consumer.renew(consumer.life)
        assert broker.asked[-1].args[3] == [3, 5, 7]
        assert hands.lost == [{5}]
        broker.batches.put_nowait(batch(8))  # for the poll of before
        await broker.polled.acquire()
        assert broker.asked[-1].args[1].confirmed == 0

    run(test)


def test_a_session_that_is_anothers_by_now_is_given_up_with_all_that_was_held() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        hands.here, before = (3, 5), consumer.session
        broker.taken.add(before)
        await consumer.renew(consumer.life)
        assert hands.lost == [{3, 5}]
        assert broker.opened() == [before, before, consumer.session]
        assert consumer.session != before

    run(test)


def test_no_queue_is_always_the_first() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        wants = [ask.args[1].wants for ask in broker.asked if ask.verb == "receive"]
        assert wants == [(("q", 5), ("r", 5)), (("r", 5), ("q", 5))]

    run(test)


def test_a_batch_of_all_that_was_asked_for_is_told_as_such() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        hands.free = 1
        for number in (1, 2):
            broker.batches.put_nowait(batch(number))
            await broker.polled.acquire()
        assert hands.more == [False, True]

    run(test)


async def turns() -> None:
    """Some turns of the loop, in which everybody who has something to do does it."""
    for _ in range(10):
        await asyncio.sleep(0)


def asked(broker: Broker) -> list[int]:
    return [ask.args[1].credit for ask in broker.asked if ask.verb == "receive"]


def test_a_poll_that_would_ask_for_little_waits_for_room() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        consumer.note_room(5, 2)
        hands.free = 1
        broker.batches.put_nowait(batch(1))
        await hands.took.acquire()
        await turns()
        hands.free = 3
        consumer.note_room(3, 2)
        await broker.polled.acquire()
        await turns()
        assert asked(broker) == [5, 3]

    run(test)


def test_it_does_not_wait_for_long() -> None:
    async def test(consumer: Consumer, broker: Broker, hands: Hands) -> None:
        hands.free = 0
        broker.batches.put_nowait(batch(1))
        await broker.polled.acquire()
        assert asked(broker) == [5, 0]
        hands.free = 4
        consumer.note_room(4, 2)
        await broker.polled.acquire()
        assert asked(broker) == [5, 0, 4]

    run(test)
