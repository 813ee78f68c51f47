"""The same functions as coroutines, which run on the server's loop: as the handlers of asyncio's rivals do."""

from __future__ import annotations

from typing import Any

__all__ = ["add", "echo"]


async def add(x: int, y: int) -> int:
    """The smallest call there is."""
    return x + y


async def echo(value: dict[str, Any]) -> dict[str, Any]:
    """The same dict back."""
    return value
