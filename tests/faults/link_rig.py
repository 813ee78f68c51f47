"""A producer, a broker and a worker as processes, with a bad network on each side of the broker, and what they did.

Every task appends to a file when it begins and when it ends, with the moment by the system's monotonic clock, which all
processes share and which no jump touches. The producer writes down what each call took, and whether it raised.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backwater_tornado as backwater
from backwater_tornado.broker.values import Lease
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.flows import wait_flow
from backwater_tornado.testing import CUT_AFTER_REQUEST, PASS, STALL_FOREVER, BadNetwork, Fault, Seen
from tests.end_to_end.processes import Serving

KEY = backwater.Key(b"the secret of a campaign", "site")
TASKS = """
import os, time
import backwater_tornado as backwater

FILE = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@backwater.expose
def note(number: int, nap: float) -> int:
    os.write(FILE, b"begun %d %f\\n" % (number, time.monotonic()))
    time.sleep(nap)
    os.write(FILE, b"ended %d %f\\n" % (number, time.monotonic()))
    return number
"""
PRODUCER = """
import json, sys, time
import backwater_tornado as backwater
import tasks

url, count, pace, nap = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
keys = backwater.read_keys("site.key")
app = backwater.App(url, keys, outbox="sqlite:outbox.db", proxy="")
took, raised = [], []
print("ready", file=sys.stderr, flush=True)
began = time.monotonic()
for number in range(count):
    time.sleep(max(0.0, began + number * pace - time.monotonic()))
    start = time.perf_counter()
    try:
        tasks.note.apply_async([number, nap], task_id=str(number))
    except Exception as error:
        raised.append(f"{type(error).__name__}: {error}")
    took.append(time.perf_counter() - start)
print("sent", file=sys.stderr, flush=True)
app.flush(900)
with open("sent.json", "w") as file:
    json.dump({"took": took, "raised": raised}, file)
print("flushed", file=sys.stderr, flush=True)
app.close()
"""
SHIFTED = [sys.executable, str(Path(__file__).with_name("shifted_clock.py"))]
#: Seconds; reached only when something is broken.
PATIENCE = 600.0


class Dropping:
    """A policy: a share of the answers is dropped after the request was processed, half of them without an end."""

    def __init__(self, seed: int) -> None:
        self.share = 0.0
        self._dice = random.Random(seed)

    def __call__(self, seen: Seen) -> Fault:
        return self._dice.choice([CUT_AFTER_REQUEST, STALL_FOREVER]) if self._dice.random() < self.share else PASS


@dataclass(frozen=True)
class Line:
    """One line of the journal."""

    what: str
    number: int
    at: float


class Rig:
    """The processes; entered, broker and networks run.

    Attributes:
        near, far: the network of the producer, and of the worker.
        in_flight: tasks that a worker had when it was killed.
        healed: when the last harm was over, by the monotonic clock.
    """

    def __init__(self, folder: Path, ttl: float, seed: int = 1) -> None:
        self._folder, self._ttl = folder, ttl
        (folder / "tasks.py").write_text(TASKS)
        (folder / "producer.py").write_text(PRODUCER)
        (folder / "journal").touch()
        (folder / "site.key").write_text(format_key(KEY))
        (folder / "site.key").chmod(0o600)
        self._dropping = Dropping(seed)
        self.in_flight: set[int] = set()
        self.healed = 0.0
        self._port = "0"
        self.broker = self._start_broker()
        self._port = self.broker.url().rpartition(":")[2]
        self.near, self.far = (BadNetwork("127.0.0.1", int(self._port), self._dropping) for _ in range(2))
        for each in (self.near, self.far):
            each.__enter__()
        self.app = backwater.App(f"http://127.0.0.1:{self._port}", KEY, default=False, send_timeout=60.0, proxy="")
        self.worker: Serving | None = None
        self.producer: Serving | None = None

    def close(self) -> None:
        """End all."""
        for each in (self.worker, self.producer, self.broker):
            if each is not None:
                each.process.kill()
                each.__exit__(None, None, None)
        self.app.close()
        for network in (self.near, self.far):
            network.__exit__(None, None, None)

    # Processes

    def _start_broker(self) -> Serving:
        words = ("broker", "--store", "sqlite:broker.db", "--secret-file", "site.key")
        place = ("--port", self._port, "--address", "127.0.0.1")
        return Serving(self._folder, *words, *place, command="backwater", listens=False, program=SHIFTED)

    def start_worker(self) -> None:
        """Start it, and wait until it works."""
        words = ("worker", "tasks", "--broker", self.far.url, "--secret-file", "site.key", "--concurrency", "4")
        more = ("--ttl", f"{self._ttl:g}")
        self.worker = Serving(self._folder, *words, *more, command="backwater", listens=False, program=SHIFTED)
        self.worker.wait_for("working on the queues")

    def start_producer(self, tasks: int, seconds: float, nap: float) -> None:
        """Have so many tasks sent within so many seconds; each takes `nap` seconds."""
        words = (self.near.url, f"{tasks}", f"{seconds / tasks:f}", f"{nap:f}")
        self.producer = Serving(self._folder, *words, command="producer.py", listens=False, program=SHIFTED)
        self.producer.wait_for("ready")

    def has_said(self, word: str) -> bool:
        """Whether the producer has come to that point."""
        assert self.producer is not None
        return word in self.producer.said

    # Harm

    def kill_broker(self) -> None:
        """Kill it, and start it again."""
        self.broker.process.kill()
        self.broker.__exit__(None, None, None)
        self.broker = self._start_broker()
        self.broker.url()

    def kill_worker(self) -> None:
        """Kill it, and start it again; what it had goes back when the time of its session is over."""
        assert self.worker is not None
        self.worker.process.kill()
        self.worker.__exit__(None, None, None)
        leases: list[Lease] = self.app.ask(asks.leased())
        begun = {line.number for line in self.journal() if line.what == "begun"}
        self.in_flight |= begun.intersection(int(each.id) for each in leases)
        self.start_worker()

    def jump(self, side: str, *, back: bool = False) -> None:
        """Put the clock of `broker`, `worker` or `producer` forward by an hour, or back."""
        process: Serving = getattr(self, side)
        process.signal(signal.SIGUSR2 if back else signal.SIGUSR1)

    def drop(self, share: float) -> None:
        """From now on that share of answers is dropped, on both sides."""
        self._dropping.share = share

    # What happened

    def journal(self) -> list[Line]:
        """What tasks have written."""
        lines = (
            line.split() for line in (self._folder / "journal").read_text().splitlines(keepends=True) if "\n" in line
        )
        return [Line(what, int(number), float(at)) for what, number, at in lines]

    def sent(self) -> dict[str, Any]:
        """What the producer has written at its end."""
        found: dict[str, Any] = json.loads((self._folder / "sent.json").read_text())
        return found

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Wait for it; False when it did not come within `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return True

    def until_ended(self, tasks: int) -> bool:
        """Wait until so many have ended."""
        return self.until(lambda: len({line.number for line in self.journal() if line.what == "ended"}) >= tasks)

    def results(self, tasks: int) -> int:
        """Of how many tasks the broker has a result."""
        names = [str(number) for number in range(tasks)]
        return len(self.app.drive(wait_flow(names, PATIENCE, self.app.poll_wait, time.monotonic)))

    def begun(self) -> Counter[int]:
        """How often each has begun."""
        return Counter(line.number for line in self.journal() if line.what == "begun")

    def said(self) -> str:
        """All logs, for whoever wants to know what went wrong."""
        names = ("producer", "worker", "broker")
        return "\n".join(f"--- {name}\n{each.said}" for name in names if (each := getattr(self, name)) is not None)
