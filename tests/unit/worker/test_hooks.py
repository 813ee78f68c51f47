from __future__ import annotations

import asyncio

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.worker.hooks import Hooks


def test_functions_of_any_kind_are_told_in_their_order() -> None:
    hooks, others, told = Hooks(), Hooks(), []

    @hooks.on("start")
    def first() -> None:
        told.append(1)

    @others.on("start")
    async def second() -> None:
        await asyncio.sleep(0)
        told.append(2)

    assert "start" not in Hooks()
    hooks.add_all([others])
    assert "start" in hooks
    asyncio.run(hooks.tell("start"))
    assert told == [1, 2]


def test_an_event_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidOption, match="before_task"):
        Hooks().on("before_tasks")  # type: ignore[arg-type]
