from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backwater_tornado.broker.group_commit import GroupCommit
from backwater_tornado.errors import StorageFailed, UnknownQueue


class Log:
    """A store that writes down numbers; a commit can be held up, or made to fail."""

    def __init__(self) -> None:
        self.commits: list[list[int]] = []
        self.fails: BaseException | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.begun = threading.Event()
        self.ended = threading.Event()
        self._open: list[int] = []

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._open = []
        self.begun.set()
        assert self.may_go_on.wait(10)
        yield
        if self.fails is not None:
            raise self.fails
        self.commits.append(self._open)
        self.ended.set()

    def write(self, number: int) -> int:
        self._open.append(number)
        return number * 2


@pytest.fixture
def log() -> Log:
    return Log()


def run(log: Log, test: Callable[[GroupCommit], Awaitable[Any]], **options: Any) -> Any:
    """With all transactions in a thread, unless it is said which are `quick`."""

    async def main() -> Any:
        group = GroupCommit(log, **{"quick": -1.0, **options})
        try:
            return await asyncio.wait_for(test(group), 30)
        finally:
            log.may_go_on.set()
            await group.close()

    return asyncio.run(main())


async def started(*calls: Awaitable[Any]) -> list[asyncio.Task[Any]]:
    """Tasks that have come as far as they can."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


def test_callers_that_wait_at_the_same_moment_share_a_commit_in_the_order_of_their_arrival(log: Log) -> None:
    async def test(group: GroupCommit) -> list[int]:
        log.may_go_on.clear()
        first = await started(group.run(lambda: log.write(-1)))
        await wait_for(log.begun)
        others = await started(*[group.run(lambda number=number: log.write(number)) for number in range(64)])
        log.may_go_on.set()
        return await asyncio.gather(*first, *others)

    assert run(log, test) == [-2, *range(0, 128, 2)]
    assert log.commits == [[-1], list(range(64))]


def test_an_answer_comes_after_the_commit_only(log: Log) -> None:
    async def test(group: GroupCommit) -> None:
        log.may_go_on.clear()
        (task,) = await started(group.run(lambda: log.write(1)))
        await wait_for(log.begun)
        assert not task.done()
        log.may_go_on.set()
        assert await task == 2
        assert log.commits == [[1]]

    run(log, test)


def test_one_that_is_quick_is_followed_by_one_on_the_loop_and_one_that_is_slow_by_one_in_a_thread(log: Log) -> None:
    moments = iter([0.0, 0.5, 1.0, 1.5, 2.0, 2.6, 3.0, 3.1])

    async def test(group: GroupCommit) -> list[str]:
        return [await group.run(lambda: threading.current_thread().name.partition("_")[0]) for _ in range(4)]

    named = ["backwater-store", "MainThread", "MainThread", "backwater-store"]
    assert run(log, test, quick=0.5, clock=lambda: next(moments)) == named


def test_on_the_loop_too_callers_of_one_moment_share_a_commit_and_one_that_fails_disturbs_no_other(log: Log) -> None:
    async def test(group: GroupCommit) -> list[Any]:
        calls = [lambda: log.write(1), lambda: fail(UnknownQueue("q")), lambda: log.write(2)]
        return await asyncio.gather(*[group.run(call) for call in calls], return_exceptions=True)

    first, failed, last = run(log, test, quick=float("inf"))
    assert (first, type(failed), last) == (2, UnknownQueue, 4)
    assert log.commits == [[1, 2]]


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [UnknownQueue("q"), ZeroDivisionError()])
def test_one_that_fails_disturbs_no_other(log: Log, error: BaseException) -> None:
    async def test(group: GroupCommit) -> None:
        log.may_go_on.clear()
        await started(group.run(lambda: log.write(0)))
        await wait_for(log.begun)
        calls = [lambda: log.write(1), lambda: fail(error), lambda: log.write(2)]
        tasks = await started(*[group.run(call) for call in calls])
        log.may_go_on.set()
        await asyncio.wait(tasks)
        assert tasks[1].exception() is error
        assert (tasks[0].result(), tasks[2].result()) == (2, 4)

    run(log, test)
    assert log.commits == [[0], [1, 2]]


def test_one_that_raises_what_no_future_takes_is_told_so(log: Log) -> None:
    async def test(group: GroupCommit) -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await group.run(lambda: next(iter([])))
        assert await group.run(lambda: log.write(1)) == 2

    run(log, test)


@pytest.mark.parametrize("error", [StorageFailed("disk full"), OSError("disk full")])
def test_when_the_commit_fails_all_of_it_has_failed_and_the_next_works(log: Log, error: BaseException) -> None:
    async def test(group: GroupCommit) -> None:
        log.may_go_on.clear()
        log.fails = error
        calls = [lambda: log.write(1), lambda: fail(UnknownQueue("q")), lambda: log.write(2)]
        tasks = await started(*[group.run(call) for call in calls])
        log.may_go_on.set()
        await asyncio.wait(tasks)
        found = [task.exception() for task in tasks]
        assert [type(exc) for exc in found] == [StorageFailed, UnknownQueue, StorageFailed]
        assert "disk full" in str(found[0])
        assert found[0] is not found[2]
        log.fails = None
        assert await group.run(lambda: log.write(3)) == 6

    run(log, test)
    assert log.commits == [[3]]


def test_closing_waits_for_what_was_accepted_and_accepts_no_more(log: Log) -> None:
    async def test(group: GroupCommit) -> None:
        log.may_go_on.clear()
        first = await started(group.run(lambda: log.write(1)))
        await wait_for(log.begun)
        second = await started(group.run(lambda: log.write(2)))
        (closing,) = await started(group.close())
        with pytest.raises(StorageFailed, match="closed"):
            await group.run(lambda: log.write(3))
        assert not closing.done()
        log.may_go_on.set()
        await closing
        assert [task.result() for task in first + second] == [2, 4]
        await group.close()

    run(log, test)
    assert log.commits == [[1], [2]]


def test_closing_ends_the_thread(log: Log) -> None:
    before = set(threading.enumerate())
    run(log, lambda group: group.run(lambda: log.write(1)))
    (thread,) = set(threading.enumerate()) - before or {threading.current_thread()}
    if thread is not threading.current_thread():
        thread.join(10)
    assert not [left for left in threading.enumerate() if left.name == "backwater-store"]


def test_one_that_was_never_used_closes_at_once(log: Log) -> None:
    async def nothing(group: GroupCommit) -> None: ...

    run(log, nothing)
    assert log.commits == []


def test_more_callers_than_may_wait_wait_for_room_in_their_order(log: Log) -> None:
    async def test(group: GroupCommit) -> None:
        log.may_go_on.clear()
        tasks = await started(*[group.run(lambda number=number: log.write(number)) for number in range(5)])
        await wait_for(log.begun)
        log.may_go_on.set()
        await asyncio.gather(*tasks)

    run(log, test, limit=2)
    assert [number for commit in log.commits for number in commit] == list(range(5))
    assert all(len(commit) <= 2 for commit in log.commits)


def test_a_caller_that_is_cancelled_stops_nothing_and_gives_its_room_back_when_it_is_done(log: Log) -> None:
    async def test(group: GroupCommit) -> None:
        for number in range(3):
            log.may_go_on.clear()
            log.begun.clear()
            log.ended.clear()
            (task,) = await started(group.run(lambda number=number: log.write(number)))
            await wait_for(log.begun)
            task.cancel()
            waiting = await started(group.run(lambda number=number: log.write(10 + number)))
            assert not waiting[0].done()
            log.may_go_on.set()
            assert await waiting[0] == 20 + 2 * number
            assert task.cancelled()

    run(log, test, limit=1)
    assert log.commits == [[0], [10], [1], [11], [2], [12]]


def test_many_callers_over_and_over_lose_no_wake_up(log: Log) -> None:
    async def caller(group: GroupCommit, number: int) -> int:
        return sum([await group.run(lambda step=step: log.write(step)) for step in range(50)])

    async def test(group: GroupCommit) -> list[int]:
        return await asyncio.gather(*[caller(group, number) for number in range(64)])

    assert run(log, test) == [2 * sum(range(50))] * 64
    assert len(log.commits) < 64 * 50 / 4
