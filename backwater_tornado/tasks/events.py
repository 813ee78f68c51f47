"""What workers tell whoever listens: events, published to one topic exchange.

The routing key is `task.succeeded`, say, or `worker.online`, and the body JSON. Nobody needs an event: with no listener
none is routed, and one that is lost is missed by a log only.

Rule: values. Who publishes is `worker.events`, who listens is the command `events`, or any program
with a queue of its own.
"""

from __future__ import annotations

from typing import Final

import msgspec

from backwater_tornado.broker.values import Exchange, Message, Publication

EXCHANGE: Final = Exchange("backwater.events", "topic")

OF_TASKS: Final = (
    "received",
    "started",
    "progressed",
    "retried",
    "succeeded",
    "failed",
    "revoked",
    "rejected",
    "parked",
    "returned",
    "lost",
    "superseded",
)
OF_WORKERS: Final = ("online", "heartbeat", "offline")

#: Characters of an error in an event.
MAX_ERROR: Final = 500


class WorkerEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event as a worker tells it."""

    event: str
    #: The name of its session, as `backwater inspect` has it.
    worker: str
    #: By the worker's clock, Unix seconds.
    at: float
    #: Of the task; empty where the event is the worker's own. Of a delivery that cannot be read the task is unknown.
    id: str = ""
    task: str = ""
    queue: str = ""
    retries: int = 0
    #: How long it ran, seconds; None: it did not.
    seconds: float | None = None
    #: Seconds until a retry.
    delay: float = 0.0
    #: `type: message`, or why it was put aside.
    error: str = ""


def routing_key(event: str) -> str:
    """Of an event, by its name."""
    return f"{'worker' if event in OF_WORKERS else 'task'}.{event}"


def publication_of(event: WorkerEvent, id: str) -> Publication:
    """The event on its way; the id is that of its message, unique for ever."""
    body = msgspec.json.encode(event)
    return Publication(Message(id, body, content_type="application/json"), routing_key(event.event), EXCHANGE.name)


def read_event(body: bytes) -> WorkerEvent | None:
    """The event in a body; None: it is none, as everybody with the scope may publish there."""
    try:
        return msgspec.json.decode(body, type=WorkerEvent)
    except (msgspec.MsgspecError, ValueError):
        return None
