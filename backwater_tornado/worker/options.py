"""How a worker works: frozen values, checked when they are made; seconds wherever time is meant."""

from __future__ import annotations

import math

import msgspec

from backwater_tornado.errors import InvalidOption
from backwater_tornado.tasks.messages import DEFAULT_QUEUE

from .consumer import TTL, WAIT


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """See the head of this module; raises `InvalidOption`."""

    #: To take tasks from; none of them is preferred.
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    #: Tasks held at a time, those that run included; None: as many as were done within the last second, see `pace`.
    prefetch: int | None = None
    #: How long tasks that run may take to end when the worker is told to.
    grace: float = 30.0
    #: The broker gives what this holds to others when it has not heard of it for so long.
    ttl: float = TTL
    #: How long a poll waits at the broker.
    wait: float = WAIT
    #: Between two looks at whether the worker is deaf.
    watch: float = 30.0
    #: Publish what happens to tasks, see `tasks.events`.
    events: bool = False

    def __post_init__(self) -> None:
        if not self.queues or not all(self.queues):
            raise InvalidOption(f"queues are names, one at least, not {self.queues!r}")
        if self.prefetch is not None and self.prefetch < 1:
            raise InvalidOption(f"prefetch is a whole number from 1, or None, not {self.prefetch!r}")
        for name in ("grace", "ttl", "wait", "watch"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InvalidOption(f"{name} is a number of seconds, not {value!r}")
        if not self.wait < self.ttl:
            raise InvalidOption(f"wait is shorter than ttl, or sessions would end between two polls: {self.wait:g} s")
