"""RQ, whose worker forks for every job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue

from queue_rivals.contract import Blocking, run, url

queue = Queue(connection=Redis.from_url(url()))


def noop() -> int:
    """The task."""
    return run()


def send_many(count: int) -> Sequence[Any]:
    """Its own call for many, one pipeline."""
    return queue.enqueue_many([Queue.prepare_data(noop) for _ in range(count)])


def producer() -> Blocking:
    """The producer."""
    return Blocking(
        send=lambda: queue.enqueue(noop),
        send_many=send_many,
        wait=lambda job: job.latest_result(timeout=30),
        ready=lambda job: job.latest_result() is not None,
    )
