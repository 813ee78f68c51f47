"""Interrupting one call: it comes while the function runs, and never after."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from backwater_tornado.errors import SoftTimeLimitExceeded
from backwater_tornado.worker.interrupts import Awaited, Interruptible, Stopped


class Spinning:
    """A thread in a function that only Python code keeps busy, until it is interrupted."""

    def __init__(self, call: Interruptible) -> None:
        self.entered = threading.Event()
        self.raised: list[BaseException] = []
        self._call = call
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.entered.wait(20)

    def _run(self) -> None:
        try:
            self._call.call(self._spin, (), {})
        except BaseException as raised:
            self.raised.append(raised)

    def _spin(self) -> None:
        self.entered.set()
        while True:
            pass


@pytest.mark.parametrize("kind", [Stopped, SoftTimeLimitExceeded])
def test_an_exception_is_raised_in_a_function_that_never_ends(kind: type[BaseException]) -> None:
    call = Interruptible()
    spinning = Spinning(call)
    assert "_spin" in call.where()
    call.interrupt(kind)
    spinning.thread.join(20)
    assert [type(raised) for raised in spinning.raised] == [kind]
    assert call.where() == ""


def test_an_interruption_before_the_call_is_raised_in_place_of_it() -> None:
    ran: list[int] = []
    for ask in (Interruptible.interrupt, Interruptible.interrupt_here):
        call = Interruptible()
        ask(call, Stopped)
        with pytest.raises(Stopped):
            call.call(ran.append, (1,), {})
    assert ran == []


def test_after_its_call_nothing_is_interrupted() -> None:
    call = Interruptible()
    assert call.call(divmod, (7, 2), {}) == (3, 1)
    call.interrupt(Stopped)
    call.interrupt_here(Stopped)


def test_arguments_and_exceptions_pass() -> None:
    assert Interruptible().call(dict, ([("a", 1)],), {"b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ZeroDivisionError):
        Interruptible().call(divmod, (1, 0), {})


def test_an_interruption_that_comes_with_the_end_strikes_nothing_after_it() -> None:
    """It is asked for in the function's last moment, again and again: either the call raises it, or nothing does."""
    ended = 0
    for _ in range(500):
        call, go = Interruptible(), threading.Event()
        thread = threading.Thread(target=lambda call=call, go=go: go.wait(20) and call.interrupt(Stopped))  # type: ignore[misc]
        thread.start()
        try:
            call.call(go.set, (), {})
            ended += 1
        except Stopped:
            ended += 1
        thread.join(20)
        assert sum(range(100)) == 4_950  # lines that it would strike
    assert ended == 500


def test_an_interruption_that_is_asked_for_while_the_call_is_being_left_strikes_nothing_after_it() -> None:
    call, end = Interruptible(), threading.Lock()
    begun, go = threading.Event(), threading.Event()
    end.acquire()
    results: list[object] = []

    def function() -> None:
        begun.set()
        go.wait(20)
        end.release()

    def leave() -> None:
        try:
            call.call(function, (), {})
        except Stopped:  # it came before the end, in spite of all
            results.append("in time")
        try:
            results.append(sum(range(10_000)))
        except Stopped:
            results.append("struck")

    thread = threading.Thread(target=leave)
    thread.start()
    assert begun.wait(20)
    with call._lock:  # so the call is left no further than up to here
        go.set()
        assert end.acquire(timeout=20)
        # What `interrupt` does with the lock in its hands.
        ident, kind = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Stopped)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, kind)
    thread.join(20)
    assert results[-1] == 49_995_000


@pytest.mark.parametrize("ask", [Interruptible.interrupt, Interruptible.interrupt_here])
def test_what_is_shielded_is_done_to_its_end_and_interrupted_then(ask: Callable[..., None]) -> None:
    call = Interruptible()
    done: list[str] = []

    def shielded() -> None:
        ask(call, Stopped)
        done.append("shielded")

    def function() -> None:
        call.shield(shielded)
        done.append("after")

    with pytest.raises(Stopped):
        call.call(function, (), {})
    assert done == ["shielded"]


def test_after_a_shield_an_interruption_comes_at_once_again() -> None:
    call = Interruptible()

    def function() -> None:
        call.shield(lambda: None)
        call.shield(lambda: None)
        call.interrupt_here(Stopped)

    with pytest.raises(Stopped):
        call.call(function, (), {})


def test_a_shield_of_another_thread_is_none() -> None:
    call, inside, go = Interruptible(), threading.Event(), threading.Event()

    def shielded() -> None:
        inside.set()
        go.wait(20)

    other = threading.Thread(target=lambda: call.shield(shielded))

    def function() -> None:
        other.start()
        inside.wait(20)
        call.interrupt_here(Stopped)

    with pytest.raises(Stopped):
        call.call(function, (), {})
    go.set()
    other.join(20)


def test_a_handler_of_signals_raises_in_the_function_alone() -> None:
    call = Interruptible()
    before = signal.signal(signal.SIGUSR1, lambda *_: call.interrupt_here(SoftTimeLimitExceeded))
    try:
        with pytest.raises(SoftTimeLimitExceeded):
            call.call(signal.raise_signal, (signal.SIGUSR1,), {})
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


# Coroutines ----------------------------------------------------------------------------------------------------------


def run(test: Callable[[Awaited], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(20):
            return await test(Awaited())

    return asyncio.run(main())


async def _warned(awaited: Awaited, awaitable: Awaitable[Any]) -> Any:
    """What awaiting gives when the soft limit passes as soon as it waits."""
    task = asyncio.ensure_future(awaited.run(awaitable))
    for _ in range(5):  # by then it waits, and so do the tasks that it has made
        await asyncio.sleep(0)
    awaited.warn()
    return await task


def test_an_awaitable_gives_and_raises_what_it_does() -> None:
    async def test(awaited: Awaited) -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, 1)
        assert await awaited.run(future) == 1
        assert await awaited.run(asyncio.sleep(0, 2)) == 2
        with pytest.raises(ZeroDivisionError):
            await awaited.run(_divide())

    run(test)


async def _divide() -> float:
    await asyncio.sleep(0)
    return 1 / 0


def test_the_soft_limit_is_raised_where_the_coroutine_waits() -> None:
    async def tidy() -> str:
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0)
            return "tidied up"
        return "never"

    async def test(awaited: Awaited) -> None:
        assert await _warned(awaited, tidy()) == "tidied up"

    run(test)


def test_after_the_soft_limit_the_task_counts_as_not_cancelled() -> None:
    async def tidy() -> int:
        with contextlib.suppress(SoftTimeLimitExceeded):
            await asyncio.Event().wait()
        with pytest.raises(TimeoutError):  # which would be a cancelling otherwise
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async def test(awaited: Awaited) -> None:
        assert await _warned(awaited, tidy()) == 0

    run(test)


def test_what_the_coroutine_waits_for_is_cancelled() -> None:
    ended: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("inner")

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(inner())

    async def gathered() -> None:
        await asyncio.gather(inner(), inner())

    async def test(awaited: Awaited) -> None:
        for function, count in ((group, 1), (gathered, 2)):
            ended.clear()
            with pytest.raises(SoftTimeLimitExceeded):
                await _warned(awaited, function())
            assert ended == ["inner"] * count

    run(test)


def test_a_cancelling_stays_one() -> None:
    async def test(awaited: Awaited) -> None:
        task = asyncio.ensure_future(awaited.run(asyncio.Event().wait()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert not isinstance(caught.value, SoftTimeLimitExceeded)

    run(test)


def test_a_warning_before_the_await_is_raised_in_place_of_it() -> None:
    async def test(awaited: Awaited) -> None:
        awaited.warn()
        with pytest.raises(SoftTimeLimitExceeded):
            await awaited.run(asyncio.sleep(0))

    run(test)


def test_a_warning_after_the_await_does_nothing() -> None:
    async def test(awaited: Awaited) -> None:
        assert await awaited.run(asyncio.sleep(0, 1)) == 1
        awaited.warn()
        await asyncio.sleep(0)

    run(test)


def test_an_awaitable_of_its_own_kind_is_warned_too() -> None:
    class Waiting:
        def __await__(self) -> Generator[Any, Any, str]:
            try:
                yield from asyncio.Event().wait().__await__()
            except SoftTimeLimitExceeded:
                return "tidied up"
            return "never"

    async def test(awaited: Awaited) -> None:
        assert await _warned(awaited, Waiting()) == "tidied up"

    run(test)


def test_it_tells_where_a_coroutine_waits() -> None:
    async def outer() -> None:
        await _divide_later()

    async def test(awaited: Awaited) -> None:
        assert awaited.where() == ""
        task = asyncio.ensure_future(awaited.run(outer()))
        await asyncio.sleep(0)
        where = awaited.where()
        assert where.index("in outer") < where.index("in _divide_later")
        task.cancel()
        await asyncio.wait([task])
        assert awaited.where() == ""

    run(test)


async def _divide_later() -> None:
    await asyncio.Event().wait()
