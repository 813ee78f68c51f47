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
from .options import ErlangOptions, Limits, ListenerOptions, ServerOptions, make_options
from .protocol.erlang.serving import ErlangServing
from .protocol.keys import KeyRing
from .protocol.memory import CallMemory, InProcessMemory
from .protocol.serving import Serving, Wire


class Service:
    """What is served, whoever listens."""

    def __init__(
        self,
        secret: object,
        exposed: object,
        options: ServerOptions,
        memory: CallMemory | None = None,
        erlang: ErlangOptions | None = None,
    ) -> None:
        keys = KeyRing.of(secret)  # type: ignore[arg-type]
        self.options = options
        self.serving = Serving(keys, Exposure.of(exposed), options, memory or InProcessMemory(time.time()))  # type: ignore[arg-type]
        self.erlang = None if erlang is None else _erlang_serving(self.serving, erlang)
        self.draining = False
        self._dispatcher: Dispatcher | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """Made at first use, on the loop that serves."""
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self.serving, asyncio.get_running_loop())
        return self._dispatcher

    def wire(self, path: str) -> Wire:
        """The version of the protocol that a path belongs to."""
        if self.erlang is not None and path.partition("/backwater/")[2].partition("/")[0] == "1":
            return self.erlang
        return self.serving

    def replace_keys(self, secret: object, erlang: object = None) -> None:
        """Serve with another ring of keys from now on; and Erlang nodes with another, where they have their own."""
        ring = KeyRing.of(secret)  # type: ignore[arg-type]
        if erlang is not None:
            if self.erlang is None or self.erlang.keys is None:
                raise InvalidOption("Erlang nodes have no keys of their own here")
            self.erlang.keys = KeyRing.of(erlang)  # type: ignore[arg-type]
        self.serving.keys = ring

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
    erlang = _erlang_options(options.pop("erlang", False))
    if options:
        kinds = (Limits, ServerOptions, ListenerOptions)
        known = sorted({"state", "erlang"}.union(*(kind.__slots__ for kind in kinds)) - {"limits"})
        raise InvalidOption(f"unknown option {min(options)!r}; there are: {', '.join(known)}")
    if state is not None:
        memory = SqliteMemory(state, time.time())
    return Service(secret, exposed, server_options, memory, erlang)


def _erlang_options(given: object) -> ErlangOptions | None:
    if given is False or given is None:
        return None
    if given is True:
        return ErlangOptions()
    if isinstance(given, ErlangOptions):
        return given
    raise InvalidOption(f"erlang is True, False or ErlangOptions(…), not {given!r}")


def _erlang_serving(serving: Serving, options: ErlangOptions) -> ErlangServing:
    return ErlangServing(
        serving,
        options,
        None if options.exposed is None else Exposure.of(options.exposed),
        None if options.secret is None else KeyRing.of(options.secret),
    )


def take_options(options: dict[str, Any], kind: type) -> dict[str, Any]:
    return {name: options.pop(name) for name in list(options) if name in kind.__slots__ and name != "limits"}  # type: ignore[attr-defined]
