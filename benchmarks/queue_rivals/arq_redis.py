"""arq on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import JobStatus

from queue_rivals.contract import Awaiting, run, url


async def noop(_context: dict[str, Any]) -> int:
    """The task."""
    return run()


class WorkerSettings:
    """What its worker runs."""

    functions = [noop]  # noqa: RUF012 - as its documentation has it
    redis_settings = RedisSettings.from_dsn(url())


async def producer() -> Awaiting:
    """The producer."""
    pool = await create_pool(RedisSettings.from_dsn(url()))

    async def send_many(count: int) -> Sequence[Any]:
        """A hundred at once."""
        sent: list[Any] = []
        while len(sent) < count:
            sent += await asyncio.gather(*(pool.enqueue_job("noop") for _ in range(min(100, count - len(sent)))))
        return sent

    async def ready(job: Any) -> bool:
        return bool(await job.status() == JobStatus.complete)

    return Awaiting(
        send=lambda: pool.enqueue_job("noop"),
        send_many=send_many,
        wait=lambda job: job.result(timeout=30),
        ready=ready,
    )
