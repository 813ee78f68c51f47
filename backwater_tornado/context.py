"""What an exposed function may know about the call it serves, and what a nested call inherits from it.

Rule: the server sets it around each function, functions and clients read it. It holds values only, and knows nothing
of the wire.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallContext:
    """The call that is being served.

    Attributes:
        key_id: id of the key that signed the request.
        request_id: the caller's id of this call, the same on every retry; empty when the caller gave none.
        module: the name of the module under which the function was called.
        function: the name under which the function was called.
        deadline: moment on `time.monotonic()` at which the caller stops waiting, or None.
        traceparent: the caller's W3C trace context, passed on by nested calls; None when there is none.
    """

    key_id: str
    request_id: str
    module: str
    function: str
    deadline: float | None = None
    traceparent: str | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline (never below 0), or None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())


#: Set while an exposed function runs, on the loop and in the threads alike.
CURRENT: ContextVar[CallContext | None] = ContextVar("backwater_call", default=None)


def current_call() -> CallContext | None:
    """The call being served, or None outside of an exposed function."""
    return CURRENT.get()
