"""The pool of a worker, as its plan says.

Rule: puts together what is in `worker`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from .worker.async_pool import Coroutines
from .worker.frames import Plan
from .worker.pools import Place, Pool
from .worker.process_pool import Processes
from .worker.thread_pool import Threads
from .worker_plan import WorkPlan


def make_pool(plan: WorkPlan) -> Pool:
    """On the loop of the worker. Coroutine functions run on that loop, unless all functions run in processes."""
    plain, coroutines = _PLACES[plan.pool](plan)
    return Pool(plan.slots, plain, coroutines)


def _threads(plan: WorkPlan) -> tuple[Place, Place]:
    return Threads(plan.slots), Coroutines()


def _processes(plan: WorkPlan) -> tuple[Place, Place]:
    modules = tuple(str(Path(each).absolute()) if each.endswith(".py") else each for each in plan.modules)
    children = Processes(
        Plan(
            modules,
            tuple(sys.path),
            max_tasks=plan.max_tasks_per_child,
            max_memory=plan.max_memory_per_child,
            log_level=plan.log_level.upper(),
            broker=tuple((plan.broker or "").split()),
            secret_file=plan.secret_file or "",
            options=dict(plan.options),
        )
    )
    return children, children


_PLACES: Mapping[str, Callable[[WorkPlan], tuple[Place, Place]]] = {
    "threads": _threads,
    "async": _threads,  # the loop has many slots, and so has whatever is plain among its functions
    "processes": _processes,
}
