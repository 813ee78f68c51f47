"""What a rival is: how its worker is started, and how its users enqueue a task and get its result.

Rule: every rival does the same work. The task writes one byte to a file, so that its having run can be counted without
the broker, and gives 1; the result is kept; each rival runs at its own defaults, or with the settings that are named.
The table of rivals imports nothing of theirs: their modules are imported by their own Python, in the producer and in
the worker.
"""

from __future__ import annotations

import functools
import os
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

#: What a rival needs to run: started anew for each visit, but RabbitMQ, which takes too long to start.
Service = Literal["redis", "rabbitmq", "file", "ours"]


@dataclass(frozen=True)
class Rival:
    """One way to have tasks run.

    Args:
        about: library, broker, store of results.
        module: its file here, imported by its own Python.
        library: whose packages it needs, a key of LIBRARIES; empty: the Python that runs the benchmark.
        service: what its tasks wait in.
        worker: the command of its worker; `{bin}` is the folder of its Python's commands, `{module}` its module's name
            for `import`, `{url}` the service's address, `{secret}` the file of the secret.
        bulk: how its users enqueue many.
        guarantee: what is safe, and what is lost when.
        settings: what its module sets beside its defaults, by a name of its own.
        results: whether results are kept.
        confirms: whether the broker has the task, or the sender's disk, when sending returns.
        ours: it is the library under test.
    """

    about: str
    module: str
    library: str
    service: Service
    worker: tuple[str, ...]
    bulk: str
    guarantee: str
    settings: str = ""
    results: bool = True
    confirms: bool = True
    ours: bool = False


@dataclass(frozen=True)
class Blocking:
    """A producer that blocks. `ready` tells whether a result can be had by now.

    It is None where the result is written before the next task begins, so that a full count of runs says it all.
    `send_record` sends the task with the arguments of a `record`. `accepted` waits until the broker has all that was
    sent; it is None where sending does.
    """

    send: Callable[[], Any]
    send_many: Callable[[int], Sequence[Any]]
    wait: Callable[[Any], object]
    ready: Callable[[Any], bool] | None
    send_record: Callable[[Sequence[Any]], Any] | None = None
    accepted: Callable[[], object] | None = None


@dataclass(frozen=True)
class Awaiting:
    """The same for asyncio."""

    send: Callable[[], Awaitable[Any]]
    send_many: Callable[[int], Awaitable[Sequence[Any]]]
    wait: Callable[[Any], Awaitable[object]]
    ready: Callable[[Any], Awaitable[bool]]


def run() -> int:
    """What the task of every rival does."""
    os.write(_marks(), b".")
    return 1


@functools.cache
def _marks() -> int:
    return os.open(os.environ["BENCHMARK_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def url() -> str:
    """Where the service is."""
    return os.environ["BENCHMARK_URL"]


def settings() -> str:
    """What was asked for beside the defaults."""
    return os.environ["BENCHMARK_SETTINGS"]


def record(number: int) -> list[Any]:
    """Ten arguments of about 300 bytes, as a shop might have them: no two are alike."""
    draw = random.Random(number)
    name, street = (" ".join(draw.sample(_WORDS, count)) for count in (2, 3))
    return [
        100_000 + number,
        f"{draw.getrandbits(128):032x}",
        name.title(),
        f"{name.replace(' ', '.')}{draw.randrange(1000)}@example.{draw.choice(('com', 'org', 'net'))}",
        f"{draw.randrange(1, 200)} {street.title()}",
        f"2026-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}T{draw.randrange(24):02}:00:00Z",
        [[f"{draw.getrandbits(48):012x}", draw.randrange(1, 9), draw.randrange(100, 99_999)] for _ in range(3)],
        draw.random() < 0.5,
        round(draw.uniform(1, 2000), 2),
        " ".join(draw.choices(_WORDS, k=6)),
    ]


_WORDS: Final = re.findall(
    r"\w+",
    "amber basin cedar delta ember fjord grove harbour island juniper kestrel lagoon meadow north orchard prairie"
    " quarry ridge summit thicket umber valley willow yarrow zephyr anchor bridge canal dune estuary",
)
