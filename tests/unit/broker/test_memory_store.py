"""What the store in memory costs; what it does is the contract's (`tests/contracts/test_store*.py`)."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from time import perf_counter

import pytest

from backwater_tornado.broker.memory_queue import SLACK
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.values import (
    Binding,
    Exchange,
    Outcome,
    Poll,
    Publication,
    Queue,
    Session,
    Settlement,
    Verdict,
)
from tests.stores import publication

STOPPED = Outcome("REVOKED")


def store_with(queue: Queue, remember: float = 10.0) -> MemoryStore:
    store = MemoryStore(remember)
    store.declare([queue], 0.0)
    store.open_session(Session("s", "me", ttl=10.0**9), 0.0)
    return store


def messages(count: int, first: int = 0, **more: float) -> list[Publication]:
    return [publication(str(number), **more) for number in range(first, first + count)]


def pass_through(store: MemoryStore, publications: list[Publication], now: float) -> None:
    """Publish, receive and settle them all."""
    store.publish(publications, now)
    batch, _ = store.receive("s", Poll((("q", 1000),), 1000, confirmed=10**12), now)
    assert len(batch.deliveries) == len(publications)
    verdicts = [Settlement(delivery.token, Verdict.ACK, Outcome("SUCCESS", b"x" * 50)) for delivery in batch.deliveries]
    store.settle("s", verdicts, now)


def held_by(work: Callable[[int], None]) -> int:
    """Bytes that are still there after many rounds and were not after the first few."""
    for number in range(10):
        work(number)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(10, 110):
            work(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_messages_that_came_and_went_leave_nothing_behind() -> None:
    store = store_with(Queue("q"))

    def work(number: int) -> None:
        now = number * 20.0
        store.sweep(now)
        pass_through(store, messages(100, number * 100, expires=10.0**9, keep_result=5.0), now)

    assert held_by(work) < 200_000  # of some 10 MB that passed


@pytest.mark.slow
def test_messages_that_end_while_they_wait_leave_nothing_behind() -> None:
    store = store_with(Queue("q", max_length=50, overflow="drop_head", keep_dead=False))
    store.publish([publication("urgent", priority=9)], 0.0)

    def work(number: int) -> None:
        now = number * 20.0
        store.sweep(now)
        store.publish(messages(100, number * 100, not_before=now + 10.0**6, unique_until=1.0), now)
        store.publish([publication(f"u{number}", priority=number % 10, expires=now + 5.0)], now)
        store.cancel([str(number * 100 + 99), f"u{number}"], STOPPED, now)

    assert held_by(work) < 200_000


@pytest.mark.slow
def test_queues_and_sessions_that_came_and_went_leave_nothing_behind() -> None:
    store = store_with(Queue("q"))

    def work(number: int) -> None:
        now = number * 20.0
        store.sweep(now)
        for place in range(20):
            name = f"{number}-{place}"
            store.open_session(Session(name, "me"), now)
            store.declare([Queue(name, exclusive=name, expires=5.0), Exchange("x"), Binding("x", name)], now)
            store.publish([publication(f"m{name}", name), publication(f"n{name}", name)], now)
            store.receive(name, Poll(((name, 1),), place % 2), now)  # half of them are deleted with a delivery out
            store.close_session(name, now)

    assert held_by(work) < 200_000


def test_the_order_forgets_what_was_taken_from_its_middle() -> None:
    store = store_with(Queue("q"))
    store.publish([publication("first", priority=1), publication("last")], 0.0)
    line = store._messages.lines["q"]
    for number in range(1_000):
        store.publish([publication(str(number), priority=number % 2)], 0.0)
        store.cancel([str(number)], STOPPED, 0.0)
        assert sum(len(heap) for heap in line._heaps.values()) <= 2 * len(line.ready) + SLACK + 1
    batch, _ = store.receive("s", Poll((("q", 9),), 9), 0.0)
    assert [delivery.message.id for delivery in batch.deliveries] == ["first", "last"]


@pytest.mark.slow
def test_receiving_takes_no_longer_from_a_long_queue() -> None:
    def seconds(waiting: int) -> float:
        store = store_with(Queue("q"))
        store.publish(messages(waiting), 0.0)
        for number in range(waiting // 1000):
            store.cancel([str(number)], STOPPED, 0.0)
        best = 1.0
        for _ in range(50):
            began = perf_counter()
            batch, _ = store.receive("s", Poll((("q", 10),), 10, confirmed=10**12), 0.0)
            best = min(best, perf_counter() - began)
            assert len(batch.deliveries) == 10
        return best

    assert seconds(60_000) < 5 * seconds(1_000)


@pytest.mark.slow
def test_a_small_message_costs_microseconds() -> None:
    store = store_with(Queue("q"))
    publications = messages(20_000)
    began = perf_counter()
    for first in range(0, len(publications), 100):
        pass_through(store, publications[first : first + 100], 0.0)
    assert (perf_counter() - began) / len(publications) < 300e-6  # some 25 on an idle machine
