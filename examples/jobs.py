"""Tasks for the queue, run by the workers of the examples that begin with `queue_`, and of the demo.

A task is a function that was exposed: it can still be called, here and now.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import backwater_tornado as backwater


class ShopClosed(Exception):
    """What a task may meet far away, and what goes by."""


@backwater.expose
def count_words(text: str) -> int:
    """How many words there are."""
    return len(text.split())


@backwater.expose
def total(numbers: list[int]) -> int:
    """What a chord ends with: it gets the results of all of them."""
    return sum(numbers)


@backwater.expose
def times(number: int, factor: int) -> int:
    """The next of a chain gets the result of the one before in front."""
    return number * factor


@backwater.expose(bind=True)
def render(task: backwater.TaskContext, pages: int) -> str:
    """Takes its time, and tells how far it is; `bind=True` hands it the task that runs."""
    for page in range(pages):
        task.progress({"page": page + 1, "of": pages, "pid": os.getpid()})
        time.sleep(0.1)
    return f"{pages} pages"


@backwater.expose(bind=True, autoretry_for=(ShopClosed,), retry_backoff=0.1, retry_jitter=False, max_retries=3)
def fetch(task: backwater.TaskContext, opens_at: int) -> str:
    """Fails until it has been tried so often; the pauses are 0.1, 0.2 and 0.4 seconds."""
    attempt = task.request.retries + 1
    if attempt < opens_at:
        raise ShopClosed(f"still closed at attempt {attempt}")
    return f"open at attempt {attempt}"


@backwater.expose(track_started=True)
def ship(order: int, ledger: str) -> int:
    """Takes a moment, and writes down what it did; gives the process that did it."""
    time.sleep(0.3)
    with Path(ledger).open("a") as lines:
        lines.write(f"{order}\n")
    return os.getpid()


if __name__ == "__main__":
    print(count_words("called as any other function"))

# Output:
# 5
