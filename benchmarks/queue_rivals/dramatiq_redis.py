"""dramatiq with its Redis broker and Redis results, as it comes or with a lost worker found in ten seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from dramatiq.results.errors import ResultMissing

from queue_rivals.contract import Blocking, run, settings, url

#: Milliseconds, and percent of the commands that look after lost workers.
SETTINGS: dict[str, dict[str, Any]] = {"": {}, "reliable": {"heartbeat_timeout": 10_000, "maintenance_chance": 20}}
broker = RedisBroker(url=url(), **SETTINGS[settings()])
broker.add_middleware(Results(backend=RedisBackend(url=url())))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop() -> int:
    """The task."""
    return run()


@dramatiq.actor(store_results=True)
def order(*arguments: Any) -> int:
    """The same with arguments."""
    return run()


def ready(message: Any) -> bool:
    """Whether it has a result."""
    try:
        message.get_result()
    except ResultMissing:
        return False
    return True


def send_many(count: int) -> Sequence[Any]:
    """A group: one command each."""
    messages = [noop.message() for _ in range(count)]
    dramatiq.group(messages).run()
    return messages


def producer() -> Blocking:
    """The producer."""
    return Blocking(
        send=noop.send,
        send_many=send_many,
        wait=lambda message: message.get_result(block=True, timeout=30_000),
        ready=ready,
        send_record=lambda record: order.send(*record),
    )
