"""Whom a task is sent with when nobody says whom."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.tasks import current
from backwater_tornado.tasks.current import (
    current_sender,
    enter_block,
    has_default_sender,
    leave_block,
    set_default_sender,
)


class Sender:
    def send(self, canvas: Any, /) -> Any:
        return self


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_default", [])


def test_without_an_application_it_is_said_what_to_do() -> None:
    assert not has_default_sender()
    with pytest.raises(InvalidOption, match=r"no application to send with: make one, backwater\.App\(url, secret\)"):
        current_sender()


def test_the_default_is_the_last_that_was_made() -> None:
    first, second = Sender(), Sender()
    set_default_sender(first)
    assert has_default_sender()
    set_default_sender(second)
    assert current_sender() is second


def test_the_one_before_can_be_set_again() -> None:
    first, second = Sender(), Sender()
    assert set_default_sender(first) is None
    assert set_default_sender(second) is first
    assert set_default_sender(None) is second
    with pytest.raises(InvalidOption):
        current_sender()


def test_a_block_goes_before_the_default_and_an_inner_one_before_an_outer() -> None:
    default, outer, inner = Sender(), Sender(), Sender()
    set_default_sender(default)
    enter_block(outer)
    enter_block(inner)
    assert current_sender() is inner
    leave_block()
    assert current_sender() is outer
    leave_block()
    assert current_sender() is default


def test_a_block_is_of_its_thread_alone() -> None:
    default = Sender()
    set_default_sender(default)
    enter_block(Sender())
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(current_sender()))
    thread.start()
    thread.join()
    leave_block()
    assert seen == [default]


def test_blocks_of_asyncio_tasks_that_take_turns_do_not_mix() -> None:
    async def block(entered: asyncio.Event, other_has: asyncio.Event) -> bool:
        own = Sender()
        enter_block(own)
        entered.set()
        await other_has.wait()
        found = current_sender()
        leave_block()
        return found is own

    async def both() -> list[bool]:
        one, other = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(block(one, other), block(other, one))

    assert asyncio.run(both()) == [True, True]
