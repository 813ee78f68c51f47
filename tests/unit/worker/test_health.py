from __future__ import annotations

import asyncio

import pytest

from backwater_tornado.broker.values import Poll, Queue, QueueStats
from backwater_tornado.worker.health import MANY, SLACK, Look, Watch, deaf_to, look
from tests.unit.worker.bench import Bench, HandPool, working


def seen(*ready: str, received: int = 0, room: bool = True) -> Look:
    return Look(frozenset(ready), received, room)


@pytest.mark.parametrize(
    ("queue", "gives"),
    [
        (Queue("q"), True),
        (Queue("q", paused=True), False),
        (Queue("q", rate=1.0), False),
        (Queue("q", max_running=3), False),
        (Queue("q", max_running=4), True),
    ],
)
def test_what_a_queue_holds_back_is_not_missed(queue: Queue, gives: bool) -> None:
    found = look([QueueStats(queue, ready=1, leased=3), QueueStats(Queue("empty"))], 7, 2)
    assert found == Look(frozenset({"q"} if gives else ()), 7, True)
    assert not look([], 0, 0).has_room


def test_a_worker_is_deaf_that_gets_nothing_twice_with_room_for_it() -> None:
    assert deaf_to(seen("a", "b"), seen("b", "c")) == {"b"}
    assert deaf_to(None, seen("a")) == frozenset()
    assert deaf_to(seen("a"), seen("a", received=1)) == frozenset()
    assert deaf_to(seen("a", room=False), seen("a")) == frozenset()
    assert deaf_to(seen("a"), seen("a", room=False)) == frozenset()


def test_a_deaf_worker_says_so_and_polls_anew(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1)
        polled: list[int] = []
        watch = Watch(bench.worker.line, ["default"], lambda: (0, 1), lambda: polled.append(1), 0.0)
        await watch.look()
        assert watch.health(0.0, 0, 6.0).status == "ok"
        await watch.look()
        assert polled == [1]
        health = watch.health(0.0, 0, 6.0)
        assert health.status == "degraded"
        assert health.reasons == ("nothing comes from the queue default, where tasks are ready",)
        assert "polling anew" in caplog.text

    working(test, start=False)


def test_a_worker_that_works_is_well() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        await bench.link.until("stats", 3)
        assert bench.worker.health().status == "ok"

    working(test, lambda: HandPool(by_hand=True), watch=0.0)


def test_a_worker_whose_polls_are_lost_finds_out() -> None:
    async def test(bench: Bench) -> None:
        receive = bench.broker.receive
        lost = asyncio.Event()

        async def lose(session: str, poll: Poll, wait: float = 0.0, packed: bool = False) -> object:
            await lost.wait()
            return await receive(session, poll, wait, packed)

        bench.broker.receive = lose  # type: ignore[method-assign, assignment]  # a link that swallows polls
        bench.start()
        await bench.link.until("receive")
        await bench.send("add", 1, id="a")
        while bench.worker.health().status == "ok":
            await bench.link.until("stats")
        polls = bench.link.count("receive")
        while bench.link.count("receive") == polls:
            await bench.link.until("stats")
        lost.set()
        assert await bench.value("a") == 1

    working(test, start=False, watch=0.0)


def test_silence_and_outcomes_that_cannot_be_told_are_reasons() -> None:
    async def test(bench: Bench) -> None:
        watch = bench.worker.watch
        assert watch.health(6.0 + SLACK, MANY, 6.0).reasons == ()
        assert len(watch.health(6.1 + SLACK, MANY + 1, 6.0).reasons) == 2

    working(test, start=False)
