"""One flow, driven in a thread and on a loop: the same steps, results and failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

from backwater_tornado.driving import drive, drive_async
from backwater_tornado.errors import CallFailed

Flow = Generator[Any, Any, Any]
Perform = Callable[[Any], Any]


def _drive_async(flow: Flow, perform: Perform) -> Any:
    async def performed(step: Any) -> Any:
        await asyncio.sleep(0)
        return perform(step)

    return asyncio.run(drive_async(flow, performed))


@pytest.fixture(params=[drive, _drive_async], ids=["blocking", "awaitable"])
def run(request: pytest.FixtureRequest) -> Callable[[Flow, Perform], Any]:
    return request.param  # type: ignore[no-any-return]


Run = Callable[[Flow, Perform], Any]


def test_each_step_is_performed_and_its_result_sent_back(run: Run) -> None:
    def flow() -> Flow:
        first = yield 1
        second = yield first + 1
        return [first, second]

    assert run(flow(), lambda step: step * 10) == [10, 110]


def test_a_flow_without_steps_gives_its_result(run: Run) -> None:
    def flow() -> Flow:
        return 7
        yield

    assert run(flow(), lambda step: None) == 7


def test_a_failure_is_thrown_in_and_may_be_handled(run: Run) -> None:
    def perform(step: str) -> str:
        if step == "fails":
            raise CallFailed("no")
        return "done"

    def flow() -> Flow:
        try:
            yield "fails"
        except CallFailed as error:
            return [str(error), (yield "works")]

    assert run(flow(), perform) == ["no", "done"]


def test_a_failure_that_is_not_handled_is_raised_and_the_flow_cleans_up(run: Run) -> None:
    cleaned = []

    def flow() -> Flow:
        try:
            yield 1
        finally:
            cleaned.append(True)

    def perform(step: int) -> None:
        raise CallFailed("no")

    with pytest.raises(CallFailed, match="no"):
        run(flow(), perform)
    assert cleaned == [True]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ZeroDivisionError])
def test_what_is_no_failure_of_the_call_ends_the_flow(run: Run, raised: type[BaseException]) -> None:
    """Ctrl-C and faults are not for the flow to handle, but it cleans up."""
    cleaned = []

    def flow() -> Flow:
        try:
            yield 1
        except Exception:
            cleaned.append("handled")
        finally:
            cleaned.append("cleaned")

    def perform(step: int) -> None:
        raise raised

    with pytest.raises(raised):
        run(flow(), perform)
    assert cleaned == ["cleaned"]


def test_a_cancelled_flow_cleans_up() -> None:
    cleaned = []

    def flow() -> Flow:
        try:
            yield 1
        finally:
            cleaned.append(True)

    async def main() -> None:
        async def perform(step: int) -> None:
            await asyncio.sleep(30)

        task = asyncio.ensure_future(drive_async(flow(), perform))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cleaned == [True]
