"""The pool of threads: no job is lost, none waits without need, and it ends."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from backwater_tornado.threads import ThreadPool


def _run(test: Callable[[ThreadPool], Coroutine[Any, Any, None]], size: int = 4) -> None:
    async def main() -> None:
        pool = ThreadPool(size, asyncio.get_running_loop(), "pool-test")
        try:
            async with asyncio.timeout(40):
                await test(pool)
        finally:
            pool.close()

    asyncio.run(main())
    _until_ended()


def _until_ended() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("pool-test"):
            thread.join(10)
            assert not thread.is_alive()


def _submit(pool: ThreadPool, job: Callable[[], Any]) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    pool.submit(job, future.set_result)
    return future


def test_results_are_delivered_on_the_loop() -> None:
    async def test(pool: ThreadPool) -> None:
        delivered = asyncio.get_running_loop().create_future()
        pool.submit(threading.get_ident, lambda ident: delivered.set_result((ident, threading.get_ident())))
        worked_in, delivered_in = await delivered
        assert worked_in != delivered_in == threading.get_ident()

    _run(test)


def test_no_more_threads_than_there_is_work_for() -> None:
    async def test(pool: ThreadPool) -> None:
        for _ in range(20):
            await _submit(pool, lambda: None)
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("pool-test")]
        # One may still be on its way back to sleep when the next job comes.
        assert len(names) < 5

    _run(test, 20)


def test_jobs_run_at_once_up_to_the_size_and_the_others_wait() -> None:
    async def test(pool: ThreadPool) -> None:
        barrier = threading.Barrier(4)
        go = threading.Event()
        entered = threading.Semaphore(0)

        def job() -> int:
            barrier.wait(20)  # all four threads are needed to get past it
            entered.release()
            assert go.wait(20)
            return 1

        futures = [_submit(pool, job) for _ in range(4)]
        later = [_submit(pool, lambda: 2) for _ in range(3)]
        loop = asyncio.get_running_loop()
        for _ in range(4):
            assert await loop.run_in_executor(None, entered.acquire, True, 20)
        assert pool.waiting == 3
        assert not any(future.done() for future in later)
        go.set()
        assert await asyncio.gather(*futures, *later) == [1] * 4 + [2] * 3
        assert pool.waiting == 0

    _run(test)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_no_wake_up_is_lost(size: int, seed: int) -> None:
    """Thousands of jobs in bursts of any size, with pauses in which all threads fall asleep."""

    async def test(pool: ThreadPool) -> None:
        dice = random.Random(seed)
        done = 0
        for _ in range(150):
            burst = dice.choice([1, 1, 2, 3, 40])
            futures = [_submit(pool, lambda number=number: number) for number in range(burst)]  # type: ignore[misc]
            if dice.random() < 0.5:
                await asyncio.sleep(0)
            else:
                # Whatever is lost is waited for in vain here.
                assert await asyncio.gather(*futures) == list(range(burst))
            done += burst
        assert pool.waiting <= done
        assert await _submit(pool, lambda: "last") == "last"

    _run(test, size)


def test_jobs_that_wait_for_one_another_get_a_thread_each() -> None:
    """Both come while a thread is being woken for the first: that one wakes another for the second."""

    async def test(pool: ThreadPool) -> None:
        for _ in range(200):
            barrier = threading.Barrier(3)
            futures = [_submit(pool, lambda barrier=barrier: barrier.wait(10)) for _ in range(3)]  # type: ignore[misc]
            assert sorted(await asyncio.gather(*futures)) == [0, 1, 2]

    _run(test)


def test_jobs_may_be_submitted_from_many_threads() -> None:
    async def test(pool: ThreadPool) -> None:
        loop = asyncio.get_running_loop()
        left = [2_000]
        over = loop.create_future()

        def deliver(result: int) -> None:
            left[0] -= result
            if not left[0]:
                over.set_result(None)

        def submit() -> None:
            for _ in range(500):
                pool.submit(lambda: 1, deliver)

        await asyncio.gather(*[loop.run_in_executor(None, submit) for _ in range(4)])
        await over

    _run(test)


def test_a_slow_job_holds_back_no_other() -> None:
    async def test(pool: ThreadPool) -> None:
        go = threading.Event()
        slow = _submit(pool, lambda: go.wait(20))
        for number in range(50):
            assert await _submit(pool, lambda number=number: number) == number  # type: ignore[misc]
        assert not slow.done()
        go.set()
        assert await slow is True

    _run(test, 2)


def test_a_closed_pool_takes_no_jobs_drops_those_that_wait_and_ends_its_threads() -> None:
    async def test(pool: ThreadPool) -> None:
        go, entered, ran = threading.Event(), threading.Semaphore(0), threading.Event()

        def job() -> str:
            entered.release()
            assert go.wait(20)
            return "done"

        busy = [_submit(pool, job) for _ in range(2)]
        loop = asyncio.get_running_loop()
        for _ in range(2):
            assert await loop.run_in_executor(None, entered.acquire, True, 20)
        pool.submit(ran.set, lambda _: None)
        pool.close()
        with pytest.raises(RuntimeError, match="closed"):
            pool.submit(ran.set, lambda _: None)
        go.set()
        assert await asyncio.gather(*busy) == ["done", "done"]
        await loop.run_in_executor(None, _until_ended)
        assert not ran.is_set()

    _run(test, 2)


def test_a_thread_that_is_lost_to_a_job_can_be_replaced() -> None:
    async def test(pool: ThreadPool) -> None:
        go, entered = threading.Event(), threading.Semaphore(0)
        lost = _submit(pool, lambda: entered.release() or go.wait(20))
        assert await asyncio.get_running_loop().run_in_executor(None, entered.acquire, True, 20)
        waiting = _submit(pool, lambda: 1)
        assert pool.waiting == 1
        pool.grow()
        assert await waiting == 1
        pool.grow()
        assert await _submit(pool, lambda: 2) == 2
        assert not lost.done()
        go.set()
        assert await lost is True

    _run(test, 1)


def test_what_a_job_hands_over_arrives_on_the_loop_before_its_result() -> None:
    async def test(pool: ThreadPool) -> None:
        arrived: list[object] = []

        def job() -> str:
            for number in range(3):
                pool.hand_over(arrived.append, number)
            return "result"

        over = asyncio.get_running_loop().create_future()
        pool.submit(job, lambda result: over.set_result([*arrived, result]))
        assert await over == [0, 1, 2, "result"]

    _run(test)


def test_a_job_that_outlives_the_loop_does_no_harm() -> None:
    go, entered = threading.Event(), threading.Event()

    async def main() -> None:
        pool = ThreadPool(2, asyncio.get_running_loop(), "pool-test")
        pool.submit(lambda: entered.set() or go.wait(20), lambda _: None)
        assert await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        pool.close()

    asyncio.run(main())
    go.set()
    _until_ended()


def test_where_no_thread_can_be_started_those_that_there_are_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(pool: ThreadPool) -> None:
        go, entered = threading.Event(), threading.Semaphore(0)
        slow = _submit(pool, lambda: entered.release() or go.wait(20))
        assert await asyncio.get_running_loop().run_in_executor(None, entered.acquire, True, 20)

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            waiting = _submit(pool, lambda: 1)
        go.set()
        assert await slow is True
        assert await waiting == 1
        # And the next job gets the second thread.
        assert await asyncio.gather(*[_submit(pool, lambda: 2) for _ in range(5)]) == [2] * 5

    _run(test, 2)
    assert "could not be started" in caplog.text
