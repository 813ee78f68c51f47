"""One timer for many deadlines: each expires once and in time, and what was removed never."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from backwater_tornado.deadlines import Deadlines


@dataclass(eq=False)
class Run:
    deadline: float
    expired: list[float] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)


def _expire(run: Run) -> None:
    run.expired.append(time.monotonic())
    run.over.set()


def _run(test: Callable[[Deadlines[Run]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        deadlines = Deadlines(asyncio.get_running_loop(), _expire)
        async with asyncio.timeout(20):
            await test(deadlines)

    asyncio.run(main())


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def test_each_expires_once_and_not_before_its_time() -> None:
    async def test(deadlines: Deadlines[Run]) -> None:
        dice = random.Random(1)
        now = time.monotonic()
        runs = [Run(now + dice.random() * 0.3) for _ in range(500)]
        for run in runs:
            deadlines.add(run)
        await _until(now + 0.5)
        for run in runs:
            assert len(run.expired) == 1
            assert run.expired[0] >= run.deadline

    _run(test)


def test_what_was_removed_does_not_expire() -> None:
    async def test(deadlines: Deadlines[Run]) -> None:
        now = time.monotonic()
        runs = [Run(now + 0.05 + number * 0.001) for number in range(100)]
        for run in runs:
            deadlines.add(run)
        for run in runs[::2]:
            deadlines.remove(run)
            deadlines.remove(run)
        await _until(now + 0.3)
        assert [len(run.expired) for run in runs] == [0, 1] * 50
        for run in runs:
            deadlines.remove(run)

    _run(test)


def test_one_that_is_over_already_expires_at_the_next_turn() -> None:
    async def test(deadlines: Deadlines[Run]) -> None:
        run = Run(time.monotonic() - 5)
        deadlines.add(run)
        assert run.expired == []
        await run.over.wait()

    _run(test)


def test_an_earlier_one_is_not_kept_waiting_by_a_later() -> None:
    async def test(deadlines: Deadlines[Run]) -> None:
        late, soon = Run(time.monotonic() + 60), Run(time.monotonic() + 0.03)
        deadlines.add(late)
        deadlines.add(soon)
        await soon.over.wait()
        assert late.expired == []
        deadlines.close()

    _run(test)


def test_one_that_is_added_while_others_expire_expires_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        left = [5]

        def again(run: Run) -> None:
            left[0] -= 1
            if left[0]:
                deadlines.add(Run(time.monotonic()))
            else:
                over.set_result(None)

        deadlines: Deadlines[Run] = Deadlines(loop, again)
        deadlines.add(Run(time.monotonic()))
        async with asyncio.timeout(10):
            await over

    asyncio.run(main())


def test_after_its_end_nothing_expires() -> None:
    async def test(deadlines: Deadlines[Run]) -> None:
        run = Run(time.monotonic() + 0.03)
        deadlines.add(run)
        deadlines.close()
        deadlines.close()
        deadlines.remove(run)
        await _until(run.deadline + 0.1)
        assert run.expired == []

    _run(test)
