"""What a running task knows of itself, and what it can say: how far it is, run me again, put me aside.

`current_task()` gives it anywhere in the task; a function exposed with `bind=True` gets it as its first argument.

Rule: values, and a context variable that the worker sets around each run. What comes of `Retry` and `Reject` is the
worker's business; here they are only raised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec

from backwater_tornado.errors import MaxRetriesExceeded


class Retry(Exception):
    """Raised out of a task: run it again. `TaskContext.retry` raises it, and looks whether it may.

    Raises ValueError for a countdown that is no span.

    Attributes:
        cause: the exception that made it necessary, or None.
        countdown: seconds until the next run; None: as the function's options have it.
        max_retries: how often at most; -1: as the task has it, None: no bound.
        arguments: `(args, kwargs)` of the next run; None: the same.
    """

    def __init__(
        self,
        cause: BaseException | None = None,
        *,
        countdown: float | None = None,
        max_retries: int | None = -1,
        arguments: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__("the task is to run again" if cause is None else f"the task is to run again: {cause!r}")
        if countdown is not None and not 0 <= countdown < math.inf:
            raise ValueError(f"the countdown of a retry should be seconds from 0, not {countdown!r}")
        self.cause = cause
        self.countdown = countdown
        self.max_retries = max_retries
        self.arguments = arguments


class Reject(Exception):
    """Raised out of a task: put it aside among the dead letters, where somebody can look at it and replay it."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The task that runs; seconds wherever time is meant."""

    #: Its id; empty where the function was called, and not sent.
    id: str = ""
    #: `module.name`.
    task: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    #: Runs before this one that ended in a retry, and how many there may be; None: no bound.
    retries: int = 0
    max_retries: int | None = 0
    #: How often it was handed to a worker since it was sent or retried; above 1 another worker was lost with it.
    deliveries: int = 1
    #: What the whole workflow began with (itself, if it was sent from outside), and the task that sent this one.
    root_id: str = ""
    parent_id: str = ""
    queue: str = ""
    #: The sender's own.
    headers: Mapping[str, Any] = {}
    soft_time_limit: float | None = None
    time_limit: float | None = None

    @property
    def called_directly(self) -> bool:
        """It is no task: the function was called, here or over RPC."""
        return not self.id


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The running task; may be handed to other threads."""

    request: TaskRequest
    #: Takes what `progress` is given; raises `Unserializable`.
    tell: Callable[[Any], None]
    #: Ids of the tasks that it has sent.
    children: list[str] = field(default_factory=list)

    def progress(self, value: Any) -> None:
        """Tell how far the task is: whoever asks for its state is given this value.

        Raises:
            Unserializable: the value has no form in MessagePack.
        """
        self.tell(value)

    def retry(
        self,
        exc: BaseException | None = None,
        *,
        countdown: float | None = None,
        max_retries: int | None = -1,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """End this run, and run the task again; never returns, so `raise task.retry(…)` says it well.

        Args:
            exc: what went wrong; raised when no retry is left.
            countdown: seconds until the next run; None: as the function's options have it.
            max_retries: how often at most; -1: as the task has it, None: no bound.
            args: for the next run; None: the same.
            kwargs: as `args`.

        Raises:
            Retry: there is a retry left; let it pass.
            MaxRetriesExceeded: there is none, and no `exc` was given; also where the function was called directly.
        """
        request = self.request
        if not may_retry_again(request.retries, request.max_retries, max_retries):
            raise exc or MaxRetriesExceeded(f"{request.task or 'the function'} had {request.retries} retries")
        arguments = None
        if args is not None or kwargs is not None:
            arguments = (request.args if args is None else args, request.kwargs if kwargs is None else kwargs)
        raise Retry(exc, countdown=countdown, max_retries=max_retries, arguments=arguments) from exc


def may_retry_again(retries: int, most: int | None, said: int | None = -1) -> bool:
    """Whether there is a retry left after so many; `said` is what one retry says of it, see `Retry.max_retries`."""
    bound = most if said == -1 else said
    return bound is None or retries < bound


#: Set while a task runs, on the loop and in threads alike.
CURRENT_TASK: ContextVar[TaskContext | None] = ContextVar("backwater_task", default=None)


def current_task() -> TaskContext | None:
    """The task that runs, or None outside of one."""
    return CURRENT_TASK.get()


def _tell_nobody(value: Any) -> None:
    """Nobody waits for the progress of what is no task."""


#: What a bound function gets that is called, and not sent.
CALLED_DIRECTLY = TaskContext(TaskRequest(), _tell_nobody)
