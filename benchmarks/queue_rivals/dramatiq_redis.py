"""dramatiq with its Redis broker and Redis results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from dramatiq.results.errors import ResultMissing

from queue_rivals.contract import Blocking, run, url

broker = RedisBroker(url=url())
broker.add_middleware(Results(backend=RedisBackend(url=url())))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop() -> int:
    """The task."""
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
    )
