"""taskiq with the list broker of taskiq-redis and its results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from queue_rivals.contract import Awaiting, run, url

broker = ListQueueBroker(url()).with_result_backend(RedisAsyncResultBackend(url()))


@broker.task(task_name="tasks.noop")
async def noop() -> int:
    """The task."""
    return run()


async def producer() -> Awaiting:
    """The producer."""
    await broker.startup()

    async def send_many(count: int) -> Sequence[Any]:
        """A hundred at once."""
        sent: list[Any] = []
        while len(sent) < count:
            sent += await asyncio.gather(*(noop.kiq() for _ in range(min(100, count - len(sent)))))
        return sent

    return Awaiting(
        send=noop.kiq,
        send_many=send_many,
        wait=lambda task: task.wait_result(timeout=30),
        ready=lambda task: task.is_ready(),
    )
