"""Celery as it comes, on Redis or RabbitMQ: the address decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery

from queue_rivals.contract import Blocking, run, url

ON_REDIS = url().startswith("redis")
#: With RabbitMQ results travel through it as well, as Celery's documentation has it.
app = Celery("benchmark", broker=url(), backend=url() if ON_REDIS else "rpc://")
app.conf.broker_connection_retry_on_startup = True


@app.task(name="tasks.noop")
def noop() -> int:
    """The task."""
    return run()


def send_many(count: int) -> Sequence[Any]:
    """By one producer in the batches of kombu, which travel in one command to Redis; RabbitMQ has them singly."""
    with app.producer_or_acquire() as producer, producer.batch():
        return [noop.apply_async(producer=producer) for _ in range(count)]


def producer() -> Blocking:
    """The producer."""
    app.control.purge()
    return Blocking(
        send=noop.delay,
        send_many=send_many,
        wait=lambda result: result.get(timeout=30),
        ready=(lambda result: bool(result.ready())) if ON_REDIS else None,
    )
