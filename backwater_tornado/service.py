"""What is served, whoever listens: keys, exposed functions, options, memory, and the dispatcher that runs the calls.

Rule: knows no HTTP; `handlers` bring requests, `server` listens.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .dispatch import Dispatcher
from .errors import InvalidOption
from .exposure import Exposure
from .memory_sqlite import SqliteMemory
from .options import Limits, ListenerOptions, ServerOptions, make_options
from .protocol.keys import KeyRing
from .protocol.memory import CallMemory, InProcessMemory
from .protocol.serving import Serving


class Service:
    """What is served, whoever listens."""

    def __init__(
        self, secret: object, exposed: object, options: ServerOptions, memory: CallMemory | None = None
    ) -> None:
        keys = KeyRing.of(secret)  # type: ignore[arg-type]
        self.options = options
        self.serving = Serving(keys, Exposure.of(exposed), options, memory or InProcessMemory(time.time()))  # type: ignore[arg-type]
        self.draining = False
        self._dispatcher: Dispatcher | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """Made at first use, on the loop that serves."""
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self.serving, asyncio.get_running_loop())
        return self._dispatcher

    def replace_keys(self, secret: object) -> None:
        """Serve with another ring of keys from now on."""
        self.serving.keys = KeyRing.of(secret)  # type: ignore[arg-type]

    async def drain(self, grace: float) -> bool:
        """Refuse new calls and wait for those that run; False when some still ran after `grace` seconds."""
        self.draining = True
        if self._dispatcher is None:
            return True
        try:
            await asyncio.wait_for(self._dispatcher.drained(), grace)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Cancel what still runs and let go of the memory."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        self.serving.memory.close()


def make_service(secret: object, exposed: object, options: dict[str, Any]) -> Service:
    """A `Service` from flat options; `options` is left with what was not used."""
    limits = make_options(Limits, take_options(options, Limits))
    server_options = make_options(ServerOptions, {**take_options(options, ServerOptions), "limits": limits})
    state, memory = options.pop("state", None), options.pop("memory", None)
    if options:
        known = sorted({*Limits.__slots__, *ServerOptions.__slots__, *ListenerOptions.__slots__, "state"} - {"limits"})
        raise InvalidOption(f"unknown option {min(options)!r}; there are: {', '.join(known)}")
    if state is not None:
        memory = SqliteMemory(state, time.time())
    return Service(secret, exposed, server_options, memory)


def take_options(options: dict[str, Any], kind: type) -> dict[str, Any]:
    return {name: options.pop(name) for name in list(options) if name in kind.__slots__ and name != "limits"}  # type: ignore[attr-defined]
