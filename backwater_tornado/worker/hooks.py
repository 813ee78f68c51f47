"""What a program wants to be told of its worker: connections to open at the start, measures to take around tasks.

    hooks = Hooks()

    @hooks.on("before_task")
    async def note(job: Job) -> None: ...

`start` and `stop` get nothing, `before_task` the `Job`, `after_task` the `Job` and its `Ending`. Plain functions run on
the loop, so they should be short; a task begins when what is before it has ended.

Rule: a hook that raises is logged, and changes nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, get_args

from backwater_tornado.errors import InvalidOption

log = logging.getLogger("backwater.worker")

HookEvent = Literal["start", "stop", "before_task", "after_task"]
F = TypeVar("F", bound=Callable[..., Any])


class Hooks:
    """Functions by event, in the order in which they were added."""

    def __init__(self) -> None:
        self._functions: dict[str, list[Callable[..., Any]]] = {event: [] for event in get_args(HookEvent)}

    def on(self, event: HookEvent) -> Callable[[F], F]:
        """Call the decorated function at that event."""
        if event not in self._functions:
            raise InvalidOption(f"a hook is on {', '.join(self._functions)}, not {event!r}")

        def add(function: F) -> F:
            self._functions[event].append(function)
            return function

        return add

    def add_all(self, others: Iterable[Hooks]) -> None:
        """What others have, too."""
        for other in others:
            for event, functions in other._functions.items():
                self._functions[event].extend(functions)

    def __contains__(self, event: str) -> bool:
        """Whether anybody is told."""
        return bool(self._functions[event])

    async def tell(self, event: HookEvent, *about: Any) -> None:
        """Call them, one after the other."""
        for function in self._functions[event]:
            try:
                made = function(*about)
                if inspect.isawaitable(made):
                    await made
            except Exception:
                log.exception("the hook %r on %s raised", function, event)
