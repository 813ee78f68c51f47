"""A client process of the soak: `soak_load.py blocking|awaitable PORT RATE`. Calls of every kind until told to stop.

Commands on standard input, one a line: `go`, then `stop` (finish what runs, close every client). Each is answered by a
line of JSON with the counts so far: per kind as expected, otherwise, and examples of the latter. Ends with its input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import payload
from rivals.ours import SECRET

import backwater_tornado as backwater

LANES = 16
PAGE = payload.build("varied")[0]


@dataclass(frozen=True)
class Kind:
    """One kind of call, and how it has to end: with a value that passes `right`, or with that error."""

    name: str
    weight: int
    function: str
    arguments: Callable[[random.Random], tuple[Any, ...]]
    right: Callable[[Any, Sequence[Any]], bool] = lambda value, arguments: False
    error: type[Exception] | None = None
    timeout: float | None = 30
    client: str = "kept"


KINDS = (
    Kind("small", 46, "add", lambda draw: (draw.randrange(10**6), 1), lambda value, sent: value == sum(sent)),
    Kind("10 kB dict", 12, "echo", lambda draw: (PAGE,), lambda value, sent: value == PAGE),
    Kind("compressed", 4, "text", lambda draw: (draw.randrange(300_000),), lambda value, sent: len(value) == sent[0]),
    Kind("large", 3, "blob", lambda draw: (draw.randbytes(draw.randrange(400_000)),), lambda v, sent: v == sent[0]),
    Kind("raises", 8, "fail", lambda draw: ("x" * draw.randrange(200),), error=backwater.RemoteError),
    Kind("unknown", 5, "no_such_function", lambda draw: (), error=backwater.UnknownFunction),
    Kind("wrong arguments", 4, "add", lambda draw: ("one",), error=backwater.InvalidArguments),
    Kind("slow", 5, "nap", lambda draw: (draw.uniform(0.05, 0.5),), lambda value, sent: value == sent[0]),
    Kind("slow in a thread", 4, "nap_blocking", lambda draw: (draw.uniform(0.05, 0.3),), lambda v, sent: v == sent[0]),
    Kind("too slow", 2, "nap", lambda draw: (5.0,), error=backwater.DeadlineExceeded, timeout=0.3),
    Kind("fresh client", 4, "add", lambda draw: (1, 2), lambda value, sent: value == 3, client="fresh"),
    Kind("wrong key", 1, "add", lambda draw: (1, 2), error=backwater.CallFailed, timeout=0.5, client="stranger"),
    Kind("rude", 2, "", lambda draw: (draw.randrange(3),), lambda value, sent: True, client="socket"),
)
_RUDE = (b"", b"POST /backwater/2/functions/add HTTP/1.1\r\nHost: x\r\nContent-Le", b"\x16\x03\x01 nonsense\r\n\r\n")


class Tally:
    """How calls ended. Written by several threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[str, dict[str, Any]] = {
            kind.name: {"expected": 0, "otherwise": 0, "examples": []} for kind in KINDS
        }

    def add(self, kind: Kind, arguments: Sequence[Any], outcome: object) -> None:
        """One more: its value, or its exception."""
        if isinstance(outcome, Exception):
            good = kind.error is not None and isinstance(outcome, kind.error)
        else:
            good = kind.error is None and kind.right(outcome, arguments)
        with self.lock:
            count = self.counts[kind.name]
            count["expected" if good else "otherwise"] += 1
            if not good and len(count["examples"]) < 5:
                count["examples"].append(f"{type(outcome).__name__}: {outcome}"[:200])


class Lane:
    """One caller: what it calls next and how long it waits before that."""

    def __init__(self, number: int, port: int, rate: float) -> None:
        self.draw = random.Random(number)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.pause = LANES / rate

    def next(self) -> tuple[Kind, tuple[Any, ...], float]:
        """The call, its arguments, the pause before it."""
        (kind,) = self.draw.choices(KINDS, [kind.weight for kind in KINDS])
        return kind, kind.arguments(self.draw), self.draw.uniform(0, 2 * self.pause)

    def be_rude(self, which: int) -> str:
        """Connect, send what is no request, and go."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(_RUDE[which])
        return "gone"


def secret_for(kind: Kind) -> bytes:
    """Ours, or one the server does not know."""
    return SECRET[::-1] if kind.client == "stranger" else SECRET


def call_blocking(lane: Lane, kept: backwater.Client, kind: Kind, arguments: tuple[Any, ...]) -> object:
    """One call of that kind."""
    if kind.client == "socket":
        return lane.be_rude(*arguments)
    client = kept if kind.client == "kept" else backwater.Client(lane.url, secret_for(kind))
    try:
        value: object = client.with_options(timeout=kind.timeout).call("functions", kind.function, *arguments)
        return value
    finally:
        if client is not kept:
            client.close()


async def call_awaitable(lane: Lane, kept: backwater.AsyncClient, kind: Kind, arguments: tuple[Any, ...]) -> object:
    """One call of that kind."""
    if kind.client == "socket":
        return await asyncio.to_thread(lane.be_rude, *arguments)
    client = kept if kind.client == "kept" else backwater.AsyncClient(lane.url, secret_for(kind))
    try:
        value: object = await client.with_options(timeout=kind.timeout).call("functions", kind.function, *arguments)
        return value
    finally:
        if client is not kept:
            client.close()


def run_blocking(port: int, rate: float, tally: Tally) -> Callable[[], None]:
    """Starts threads that share a client; gives what stops them."""
    ending = threading.Event()
    kept = backwater.Client(f"http://127.0.0.1:{port}", SECRET)

    def live(lane: Lane) -> None:
        while True:
            kind, arguments, pause = lane.next()
            if ending.wait(pause):
                break
            try:
                outcome = call_blocking(lane, kept, kind, arguments)
            except Exception as error:
                outcome = error
            tally.add(kind, arguments, outcome)
        kept.close()

    threads = [threading.Thread(target=live, args=(Lane(number, port, rate),)) for number in range(LANES)]
    for thread in threads:
        thread.start()

    def stop() -> None:
        ending.set()
        for thread in threads:
            thread.join()

    return stop


async def live_awaitable(lane: Lane, kept: backwater.AsyncClient, tally: Tally, ending: asyncio.Event) -> None:
    """One task's life."""
    while not ending.is_set():
        kind, arguments, pause = lane.next()
        await asyncio.sleep(pause)
        try:
            outcome = await call_awaitable(lane, kept, kind, arguments)
        except Exception as error:
            outcome = error
        tally.add(kind, arguments, outcome)


async def serve_awaitable(port: int, rate: float, tally: Tally) -> None:
    """Tasks that share a client, until standard input ends."""
    ending = asyncio.Event()
    kept = backwater.AsyncClient(f"http://127.0.0.1:{port}", SECRET)
    tasks: list[asyncio.Task[None]] = []
    answer({})
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "go":
            lanes = [Lane(100 + number, port, rate) for number in range(LANES)]
            tasks += [asyncio.create_task(live_awaitable(lane, kept, tally, ending)) for lane in lanes]
        if line.strip() == "stop":
            ending.set()
            await asyncio.gather(*tasks)
            kept.close()
            gc.collect()
        answer(tally.counts)


def serve_blocking(port: int, rate: float, tally: Tally) -> None:
    """Threads that share a client, until standard input ends."""
    stops: list[Callable[[], None]] = []
    answer({})
    for line in sys.stdin:
        if line.strip() == "go":
            stops.append(run_blocking(port, rate, tally))
        if line.strip() == "stop":
            stops.pop()()
            gc.collect()
        answer(tally.counts)


def answer(counts: dict[str, Any]) -> None:
    """A line of JSON."""
    print(json.dumps({"counts": counts}), flush=True)


def main() -> None:
    """The command line, which only soak.py uses."""
    face, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    tally = Tally()
    if face == "blocking":
        serve_blocking(port, rate, tally)
    else:
        asyncio.run(serve_awaitable(port, rate, tally))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
