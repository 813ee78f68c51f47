"""huey as it comes, on Redis or on a SQLite file: the address decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huey import RedisHuey, SqliteHuey

from queue_rivals.contract import Blocking, run, url

huey = RedisHuey("benchmark", url=url()) if url().startswith("redis") else SqliteHuey("benchmark", filename=url())


@huey.task()
def noop() -> int:
    """The task."""
    return run()


def send_many(count: int) -> Sequence[Any]:
    """One call of its own, which puts them one by one."""
    return list(noop.map([()] * count))


def producer() -> Blocking:
    """The producer."""
    return Blocking(
        send=noop,
        send_many=send_many,
        wait=lambda result: result.get(blocking=True, timeout=30),
        ready=lambda result: bool(result.is_ready()),
    )
