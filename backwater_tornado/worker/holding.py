"""What a worker has in hand: each delivery from its arrival until the broker has accepted how it ended.

    FETCHING ──> WAITING ──> RUNNING ──> ENDED ──accepted──> let go
        │           │           │
        └───────────┴───────────┴── the lease is lost ──> LOST

Rule: values; who moves them is `desk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from backwater_tornado.broker.values import Delivery
from backwater_tornado.exposure import Function

from .deliveries import Task
from .jobs import Job
from .turns import Limit


class Stage(Enum):
    """How far it is."""

    #: It waits for results that it needs.
    FETCHING = auto()
    #: It waits for its turn.
    WAITING = auto()
    RUNNING = auto()
    #: The broker is being told.
    ENDED = auto()
    #: It is another's: the session in which it came is gone.
    LOST = auto()


@dataclass(slots=True, eq=False)
class Held:
    """One delivery."""

    delivery: Delivery
    #: When it may no longer begin, on the worker's own clock; None: never.
    expires: float | None = None
    stage: Stage = Stage.FETCHING
    task: Task | None = None
    job: Job | None = None
    limit: Limit | None = None
    #: When it began, on the worker's own clock.
    began: float = 0.0
    #: Somebody has cancelled it.
    revoked: bool = False

    @property
    def token(self) -> int:
        """Of its lease."""
        return self.delivery.token

    @property
    def function(self) -> Function:
        """What it is for; of one that could be read."""
        assert self.task is not None
        return self.task.function

    @property
    def names(self) -> tuple[str, str, str]:
        """The id of its message, its task (empty if it could not be read), its queue."""
        return self.delivery.message.id, self.task.headers.task if self.task else "", self.delivery.queue

    @property
    def about(self) -> dict[str, str]:
        """For logs that are read by programs."""
        name = {} if self.task is None else {"task": self.task.headers.task}
        return {**name, "task_id": self.delivery.message.id}

    @property
    def label(self) -> str:
        """As the log names it: `shop.add[4f…]`."""
        name = self.task.headers.task if self.task is not None else "?"
        return f"{name}[{self.delivery.message.id}]"
