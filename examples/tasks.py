"""A module of functions to expose, used by the other examples and by the README.

Running it shows what would be exposed.
"""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass

import backwater_tornado as backwater


@dataclass
class Report:
    """What `report` gives: a dataclass travels as itself, for the caller that says `returns=Report`."""

    day: datetime.date
    words: int


@backwater.expose
def add(x: int, y: int) -> int:
    """The sum of two numbers."""
    return x + y


@backwater.expose
def divide(x: float, y: float) -> float:
    """A quotient; division by zero is the caller's to see."""
    return x / y


@backwater.expose(idempotent=True)
def count_words(text: str) -> int:
    """How many words there are."""
    return len(text.split())


@backwater.expose(time_limit=60, max_concurrency=4)
async def report(day: datetime.date, texts: list[str]) -> Report:
    """Summarise some texts; runs on the server's loop."""
    await asyncio.sleep(0)
    return Report(day, sum(count_words(text) for text in texts))


def not_exposed() -> str:
    """Has no mark, so nobody can call it."""
    return "only from here"


if __name__ == "__main__":
    for function in backwater.Exposure.of(["math", ("statistics", ["mean"])]).functions()[-2:]:
        print(function.module, function.name)

# Output:
# math ulp
# statistics mean
