"""The rivals of wan.py by name: those of queues.py with ten slots, as they come and as they lose nothing."""

from __future__ import annotations

from dataclasses import replace

from queue_rivals import RIVALS
from queue_rivals.contract import Rival

#: Tasks that a worker runs at once.
SLOTS = "10"


def _celery(name: str, about: str, settings: str = "", *, confirms: bool = True, results: bool = True) -> Rival:
    rival = RIVALS[name]
    worker = tuple(SLOTS if part == "1" else part for part in rival.worker)
    return replace(rival, about=about, worker=worker, settings=settings, confirms=confirms, results=results)


def _ours(name: str, about: str, settings: str = "", *more: str) -> Rival:
    rival = RIVALS[name]
    return replace(rival, about=about, settings=settings, worker=(*rival.worker, "--concurrency", SLOTS, *more))


def _dramatiq(about: str, settings: str = "") -> Rival:
    rival = RIVALS["dramatiq-redis"]
    return replace(rival, about=about, settings=settings, worker=(*rival.worker, "--threads", SLOTS))


WAN_RIVALS: dict[str, Rival] = {
    "ours": _ours("ours", "backwater, each task sent when delay() returns"),
    "ours-outbox": _ours(
        "ours", "backwater with an outbox, each task on this host's disk when delay() returns", "outbox"
    ),
    "celery-redis": _celery("celery-redis", "Celery, Redis, defaults"),
    "celery-redis-reliable": _celery(
        "celery-redis", "late acks, prefetch 1, visibility time-out 10 s, socket time-out 5 s", "reliable"
    ),
    "celery-rabbitmq": _celery("celery-rabbitmq", "Celery, RabbitMQ, results by rpc://, defaults", confirms=False),
    "celery-rabbitmq-no-results": _celery(
        "celery-rabbitmq", "Celery, RabbitMQ, results off, else defaults", "no results", confirms=False, results=False
    ),
    "celery-rabbitmq-reliable": _celery(
        "celery-rabbitmq", "confirmed publishing, late acks, prefetch 64 for each slot, heartbeat 5 s", "reliable"
    ),
    "celery-rabbitmq-best": _celery(
        "celery-rabbitmq", "the same with results off: its fastest drain", "reliable, no results", results=False
    ),
    "dramatiq-redis": _dramatiq("dramatiq, Redis, defaults"),
    "dramatiq-redis-reliable": _dramatiq("heartbeat 10 s, lost workers looked for by every fifth command", "reliable"),
}
