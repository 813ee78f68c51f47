"""Whom `add.delay(1, 2)` sends with: the application made last, or the one of a with-block.

Rule: this is the one place of the package that is found without being handed over; everything else gets its
application as an argument.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from backwater_tornado.errors import InvalidOption

#: What sending gives: an `AsyncResult` or a `GroupResult` of `results`.
Sent = Any


class Sender(Protocol):
    """An application that sends."""

    def send(self, canvas: Any, /) -> Sent:
        """Hand a canvas of `signatures` to the broker."""
        ...


_default: list[Sender] = []
#: Of the with-blocks that this thread or asyncio task is in, the innermost last.
_BLOCKS: ContextVar[tuple[Sender, ...]] = ContextVar("backwater_senders", default=())


def set_default_sender(sender: Sender | None) -> Sender | None:
    """Everything that names no other is sent with this from now on, in all threads; gives the one before."""
    before = _default[-1] if _default else None
    _default[:] = [] if sender is None else [sender]
    return before


def has_default_sender() -> bool:
    """Whether anybody has set one."""
    return bool(_default)


def current_sender() -> Sender:
    """The sender of the innermost with-block, else the default; raises `InvalidOption` when there is none."""
    found = _BLOCKS.get() or _default
    if not found:
        raise InvalidOption("there is no application to send with: make one, backwater.App(url, secret)")
    return found[-1]


def enter_block(sender: Sender) -> None:
    """Send with this until `leave_block`; in this thread or asyncio task only."""
    _BLOCKS.set((*_BLOCKS.get(), sender))


def leave_block() -> None:
    """As it was before `enter_block`."""
    _BLOCKS.set(_BLOCKS.get()[:-1])
