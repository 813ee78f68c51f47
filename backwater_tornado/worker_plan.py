"""What a worker process is told, and what that comes to when its modules are imported.

What is run, and for whom, is in the modules: their exposed functions, the one `App` that they make (its broker and its
periodic tasks, unless the plan names another broker), and their `Hooks`.

Rule: decides before anything runs; whatever is wrong with a plan is said here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .app import App
from .errors import InvalidOption
from .exposure import Exposure, Function
from .keyfiles import read_keys
from .loading import load_exposure
from .protocol.keys import KeyRing
from .tasks.messages import DEFAULT_QUEUE
from .worker.consumer import TTL, WAIT
from .worker.hooks import Hooks
from .worker.options import WorkerOptions
from .worker.spool import SIZE

T = TypeVar("T")

POOLS = ("threads", "processes", "async")
#: Slots of a pool where nothing is said: threads and processes by the processors, coroutines wait most of the time.
ASYNC_CONCURRENCY = 100


@dataclass(frozen=True, kw_only=True)
class WorkPlan:
    """What to run and how: plain values, so that a child process can be told. Seconds, and bytes."""

    modules: tuple[str, ...]
    #: None: those of the modules' `App`.
    broker: str | None = None
    secret_file: str | None = None
    #: Empty: `default`, and those of the functions.
    queues: tuple[str, ...] = ()
    pool: str = "threads"
    concurrency: int | None = None
    prefetch: int | None = None
    grace: float = 30.0
    ttl: float = TTL
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    spool: str | None = None
    spool_bytes: int = SIZE
    health_file: str | None = None
    health_port: int | None = None
    health_address: str = "127.0.0.1"
    events: bool = False
    log_level: str = "info"
    json_logs: bool = False
    #: Fields of `ClientOptions` and `Limits`.
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise InvalidOption(f"pool is one of {', '.join(POOLS)}, not {self.pool!r}")
        for name in ("concurrency", "max_tasks_per_child", "max_memory_per_child", "spool_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidOption(f"{name} is 1 or more, not {value}")
        if self.pool != "processes" and (self.max_tasks_per_child or self.max_memory_per_child):
            raise InvalidOption("max_tasks_per_child and max_memory_per_child need --pool processes")
        self.worker_options((DEFAULT_QUEUE,))

    @property
    def slots(self) -> int:
        """Tasks that run at once."""
        return self.concurrency or (ASYNC_CONCURRENCY if self.pool == "async" else os.cpu_count() or 1)

    def worker_options(self, queues: tuple[str, ...]) -> WorkerOptions:
        """For a worker of these queues; it is heard of twice at least before the broker gives up."""
        wait = min(WAIT, self.ttl / 2)
        timing = {"grace": self.grace, "ttl": self.ttl, "wait": wait}
        return WorkerOptions(queues=queues, prefetch=self.prefetch, events=self.events, **timing)


# What is in the modules ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a plan comes to when its modules are imported."""

    exposure: Exposure
    hooks: Hooks
    #: None: they make none, or several.
    app: App | None
    endpoints: object
    keys: KeyRing
    queues: tuple[str, ...]


def find_work(plan: WorkPlan) -> Work:
    """Import the modules; raises `ConfigurationError`."""
    exposure = load_exposure(plan.modules)
    found = _found_in(exposure, App)
    app = found[0] if len(found) == 1 else None
    if plan.broker is None and app is None:
        several = "the modules make several Apps" if found else "no broker was named"
        raise InvalidOption(f"{several}: give --broker URL, BACKWATER_BROKER, or broker in backwater.toml")
    hooks = Hooks()
    hooks.add_all(_found_in(exposure, Hooks))
    keys = KeyRing.of(app.secret) if app and not plan.secret_file else read_keys(plan.secret_file or "")  # type: ignore[arg-type]
    endpoints = plan.broker.split() if plan.broker else app.endpoints if app else None
    return Work(
        exposure=exposure,
        hooks=hooks,
        app=app,
        endpoints=endpoints,
        keys=keys,
        queues=plan.queues or queues_of(exposure.functions()),
    )


def _found_in(exposure: Exposure, kind: type[T]) -> list[T]:
    """The instances of a class among what the modules have by name, each once."""
    sources = {id(table.source): table.source for table in exposure.tables}
    values = [value for source in sources.values() for value in vars(source).values() if isinstance(value, kind)]
    return list({id(value): value for value in values}.values())


def queues_of(functions: Sequence[Function]) -> tuple[str, ...]:
    """`default`, and the queues that functions name."""
    return tuple(dict.fromkeys([DEFAULT_QUEUE, *(each.options.queue for each in functions if each.options.queue)]))
