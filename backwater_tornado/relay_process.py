"""A relay in the foreground of a process, both ways if asked, until a signal ends it.

SIGTERM and SIGINT: nothing more is taken, and what is away goes back to its broker for the next relay.

Rule: one process, one loop, a `Relay` for each direction; what it is told is a `RelayPlan`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .app import FORWARD_TIMEOUT, AsyncApp
from .errors import InvalidOption
from .keyfiles import read_keys
from .relay.options import RelayOptions
from .relay.relay import Relay
from .worker.health import Health
from .worker.line import Line, SplitLink
from .worker_process import CLIENT, HealthPort, write_health

log = logging.getLogger("backwater.relay")


_BRISK = {"recv_timeout": FORWARD_TIMEOUT}


@dataclass(frozen=True, kw_only=True)
class RelayPlan:
    """From where to where, and what; raises `InvalidOption`."""

    #: URLs, and the files of keys.
    near: str
    far: str
    near_keys: str | None
    far_keys: str | None
    #: Queues of the near broker, and of each the far one's; and those that go back.
    queues: Mapping[str, str]
    back: Mapping[str, str] = field(default_factory=dict)
    options: RelayOptions = field(default_factory=RelayOptions)
    health_file: str | None = None
    health_port: int | None = None
    health_address: str = "127.0.0.1"
    #: Fields of `ClientOptions` and `Limits`.
    client: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.queues and not self.back:
            raise InvalidOption("no queue was named: give --queue NAME, or --back NAME")
        if self.near == self.far:
            raise InvalidOption(f"--from and --to are one broker: {self.near}")
        check_ways(self.queues, self.back)


def check_ways(queues: Mapping[str, str], back: Mapping[str, str]) -> None:
    """Raise `InvalidOption` if a message that has arrived would go back again."""
    for there, here in ((queues, back), (back, queues)):
        for name in there.values():
            if name in here:
                raise InvalidOption(f"messages in the queue {name} would go to and fro: it is taken from where they go")


def read_queues(names: Iterable[str]) -> dict[str, str]:
    """Of `name`, `name=other` and several with commas between: queues to take from, and to hand over to."""
    pairs = [each.partition("=") for several in names for each in several.split(",") if each]
    return {name: other if equals else name for name, equals, other in pairs}


def relay(plan: RelayPlan) -> int:
    """Relay until told to stop; gives the exit code."""
    asyncio.run(_run(plan))
    return 0


async def _run(plan: RelayPlan) -> None:
    keys = [read_keys(plan.near_keys), read_keys(plan.far_keys)]
    async with AsyncExitStack() as stack:
        lines = [
            await connect_line(stack, url, each, plan.client)
            for url, each in zip([plan.near, plan.far], keys, strict=True)
        ]
        relays = make_relays(lines, plan.queues, plan.back, plan.options)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, relays)

        def health() -> Health:
            return Health(tuple(dict.fromkeys(reason for each in relays for reason in each.health().reasons)))

        if plan.health_port is not None:
            stack.callback(HealthPort(plan.health_address, plan.health_port, health).close)
        writing = [asyncio.ensure_future(write_health(Path(plan.health_file), health))] if plan.health_file else []
        _announce(plan, relays)
        try:
            await asyncio.gather(*(each.run() for each in relays))
        finally:
            for each in writing:
                each.cancel()
            await asyncio.gather(*writing, return_exceptions=True)


async def connect_line(stack: AsyncExitStack, url: str, keys: object, options: Mapping[str, Any]) -> Line:
    """To a broker, until the stack ends; where nothing waits for an answer at the broker, silence is noticed sooner."""
    given = {**CLIENT, **options}
    polls, others = AsyncApp(url.split(), keys, **given), AsyncApp(url.split(), keys, **{**_BRISK, **given})
    for each in (polls, others):
        await stack.enter_async_context(each)
    return Line(SplitLink(polls, others), name=f"the broker {url}")


def make_relays(
    lines: Iterable[Line], queues: Mapping[str, str], back: Mapping[str, str], options: RelayOptions
) -> list[Relay]:
    """One for each direction that has queues."""
    near, far = lines
    about = {"version": version("backwater-tornado")}
    ways = ((near, far, queues), (far, near, back))
    return [Relay(begin, end, names, options, about) for begin, end, names in ways if names]


def _stop(relays: Iterable[Relay]) -> None:
    for each in relays:
        each.stop()


def _announce(plan: RelayPlan, relays: Iterable[Relay]) -> None:
    """What goes where; the last line is the one that scripts wait for."""
    log.info("backwater-tornado %s on %s, process %d", version("backwater-tornado"), socket.gethostname(), os.getpid())
    for each in relays:
        for name, other in each.queues.items():
            log.info("  %s of %s to %s of %s", name, each.near.name, other, each.far.name)
    log.info("relaying between %s and %s", plan.near, plan.far)
