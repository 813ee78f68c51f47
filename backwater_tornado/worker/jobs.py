"""One run of a task as plain values, which may cross into another process and back."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from backwater_tornado.broker.values import Outcome


class Job(msgspec.Struct, frozen=True):
    """What a pool is told to run."""

    #: The delivery's own number: what `Pool.stop` names, and what settles it.
    token: int
    #: The message's id.
    id: str
    #: `module.name`.
    task: str
    #: `[args, kwargs]`, encoded; results that it waited for are in front already.
    arguments: bytes
    content_type: str
    #: Runs before this one that ended in a retry; and deliveries so far, this one included.
    retries: int = 0
    deliveries: int = 1
    root: str = ""
    parent: str = ""
    queue: str = ""
    #: The sender's own headers, encoded; see `TaskHeaders.custom`.
    custom: bytes = b""
    #: Seconds from the begin of the run; None: no limit.
    soft_time_limit: float | None = None
    time_limit: float | None = None
    #: None: no bound.
    max_retries: int | None = 3
    #: Nobody keeps its result: what it returns is not encoded.
    ignore_result: bool = False


class End(StrEnum):
    """How a run ended."""

    #: It returned, or raised, and that is final.
    DONE = "done"
    #: It is to run again, `delay` seconds from now.
    RETRY = "retry"
    #: It said that it should be put aside among the dead (`Reject`).
    REJECT = "reject"
    #: Its worker could not end it (a pool process died, the pool closed): it goes back to where it was.
    RETURN = "return"


class Ending(msgspec.Struct, frozen=True):
    """What came of a run."""

    end: End
    #: None for `RETURN`.
    outcome: Outcome | None = None
    delay: float = 0.0
    reason: str = ""
    #: For RETRY: other arguments, encoded; None: the same.
    arguments: bytes | None = None


class Stop(StrEnum):
    """Why a run is stopped before it ends."""

    #: Somebody cancelled it.
    REVOKED = "revoked"
    #: The worker ends and the grace period is over: the run's ending is RETURN.
    CLOSING = "closing"
    #: It ran longer than its `time_limit`; pools say this to themselves.
    TIME_LIMIT = "time_limit"
