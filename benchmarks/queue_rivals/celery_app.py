"""Celery as it comes, on Redis or RabbitMQ (the address decides), or with settings for safety, or for speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery

from queue_rivals.contract import Blocking, run, settings, url

ON_REDIS = url().startswith("redis")
#: With RabbitMQ results travel through it as well, as Celery's documentation has it.
app = Celery("benchmark", broker=url(), backend=url() if ON_REDIS else "rpc://")
app.conf.broker_connection_retry_on_startup = True

#: What its documentation and its users advise against losing tasks.
LATE = {"task_acks_late": True, "task_reject_on_worker_lost": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "": {},
    "no results": {"task_ignore_result": True},
    "reliable": LATE
    | (
        {
            "worker_prefetch_multiplier": 1,
            "broker_transport_options": {"visibility_timeout": 10, "socket_timeout": 5},
            "result_backend_transport_options": {"visibility_timeout": 10},
        }
        if ON_REDIS
        else {
            "worker_prefetch_multiplier": 64,
            "broker_heartbeat": 5,
            "broker_transport_options": {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10},
        }
    ),
}
SETTINGS["reliable, no results"] = SETTINGS["reliable"] | SETTINGS["no results"]
app.conf.update(SETTINGS[settings()])


@app.task(name="tasks.noop")
def noop() -> int:
    """The task."""
    return run()


@app.task(name="tasks.order")
def order(*arguments: Any) -> int:
    """The same with arguments."""
    return run()


def send_many(count: int) -> Sequence[Any]:
    """By one producer in the batches of kombu, which travel in one command to Redis; RabbitMQ has them singly."""
    with app.producer_or_acquire() as producer, producer.batch():
        return [noop.apply_async(producer=producer) for _ in range(count)]


def accepted() -> None:
    """RabbitMQ takes what comes on a channel in order: when it answers, it has all that was published before."""
    with app.producer_or_acquire() as producer:
        producer.channel.queue_declare(queue=app.conf.task_default_queue, passive=True)


def producer() -> Blocking:
    """The producer."""
    app.control.purge()
    return Blocking(
        send=noop.delay,
        send_many=send_many,
        wait=lambda result: result.get(timeout=30),
        ready=(lambda result: bool(result.ready())) if ON_REDIS and not app.conf.task_ignore_result else None,
        send_record=lambda record: order.delay(*record),
        accepted=None if ON_REDIS else accepted,
    )
