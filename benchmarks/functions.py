"""The functions that are called: by calls.py `add` and `echo`, by soak.py all of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

__all__ = ["add", "blob", "echo", "fail", "nap", "nap_blocking", "text"]


def add(x: int, y: int) -> int:
    """The smallest call there is."""
    return x + y


def echo(value: dict[str, Any]) -> dict[str, Any]:
    """The same dict back."""
    return value


def blob(value: bytes) -> bytes:
    """Bytes that do not compress, back again."""
    return value


def text(length: int) -> str:
    """A text that compresses well."""
    return ("All work and no play makes a long and dull line of text. " * (length // 57 + 1))[:length]


def fail(message: str) -> None:
    """Raises."""
    raise ValueError(message)


async def nap(seconds: float) -> float:
    """A slow function on the loop."""
    await asyncio.sleep(seconds)
    return seconds


def nap_blocking(seconds: float) -> float:
    """A slow function in a thread."""
    time.sleep(seconds)
    return seconds
