from __future__ import annotations

import asyncio

import pytest

from backwater_tornado import hedging
from backwater_tornado.hedging import MOST, hedge


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hedging, "EVERY", 0.001)


AT_ONCE = pytest.mark.usefixtures("at_once")


class Attempts:
    """Each waits for what it is told; counts those that were begun and are still there."""

    def __init__(self) -> None:
        self.ends: list[asyncio.Future[str]] = []
        self.open = 0
        self.begun = asyncio.Condition()

    async def begin(self) -> str:
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        self.open += 1
        async with self.begun:
            self.begun.notify_all()
        try:
            return await end
        finally:
            self.open -= 1

    async def until(self, count: int) -> None:
        async with self.begun:
            await self.begun.wait_for(lambda: len(self.ends) >= count)


@AT_ONCE
def test_the_first_to_end_counts_whichever_it_is_and_none_is_left() -> None:
    async def main() -> None:
        attempts = Attempts()
        asking = asyncio.ensure_future(hedge(attempts.begin))
        await attempts.until(3)
        attempts.ends[1].set_result("the second")
        assert await asking == "the second"
        assert attempts.open == 0

    asyncio.run(main())


@AT_ONCE
def test_what_the_first_to_end_raises_is_raised() -> None:
    async def main() -> None:
        attempts = Attempts()
        asking = asyncio.ensure_future(hedge(attempts.begin))
        await attempts.until(2)
        attempts.ends[0].set_exception(OSError("no way"))
        with pytest.raises(OSError, match="no way"):
            await asking
        assert attempts.open == 0

    asyncio.run(main())


def test_one_that_ends_soon_is_the_only_one() -> None:
    async def main() -> None:
        attempts = Attempts()
        asking = asyncio.ensure_future(hedge(attempts.begin))
        await attempts.until(1)
        attempts.ends[0].set_result("at once")
        assert await asking == "at once"
        assert len(attempts.ends) == 1

    asyncio.run(main())


@AT_ONCE
def test_there_are_never_more_than_a_few_and_all_end_with_their_asker() -> None:
    async def main() -> None:
        attempts = Attempts()
        asking = asyncio.ensure_future(hedge(attempts.begin))
        await attempts.until(MOST)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(attempts.ends) == MOST
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert attempts.open == 0

    asyncio.run(main())
