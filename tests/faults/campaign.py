"""A campaign of kills: tasks are sent and run while their workers and their broker are killed and started again.

    python -m tests.faults.campaign --tasks 20000 --kills 30 --pool processes

Every task appends its number to a file when it begins. After each kill it is written down which tasks are settled, and
which have begun and are out with the worker that was killed: only these may begin a second time. At the end it prints:

    pool, tasks, kills    what was done
    accepted              tasks that the broker has accepted
    begun, results        tasks that have begun, and whose result is there
    twice                 tasks that have begun more than once
    in flight             tasks that might have, as they were running when their worker was killed
    wrong                 tasks that did so though they were not, or began again though they were settled
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import backwater_tornado as backwater
from backwater_tornado.broker.values import Lease, Receiver
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.flows import wait_flow
from backwater_tornado.tasks.outcomes import read_outcome
from backwater_tornado.tasks.signatures import signature
from tests.end_to_end.processes import Serving

SECRET = b"the secret of a campaign"
MODULE = """
import asyncio, os, time
import backwater_tornado as backwater

FILE = os.open("begun", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@backwater.expose
def note(number: int) -> int:
    os.write(FILE, b"%d\\n" % number)
    time.sleep(0.003)
    return number

@backwater.expose
async def anote(number: int) -> int:
    os.write(FILE, b"%d\\n" % number)
    await asyncio.sleep(0.003)
    return number
"""
#: Tasks in one request, so that a kill finds the sender in the middle.
PORTION = 20
#: Seconds; reached only when something is broken.
PATIENCE = 600.0


@dataclass
class Report:
    """What a campaign came to; see the head of this module."""

    pool: str
    tasks: int
    kills: list[str]
    accepted: int = 0
    begun: int = 0
    results: int = 0
    twice: int = 0
    in_flight: int = 0
    wrong: list[int] = field(default_factory=list)
    seconds: float = 0.0


class Campaign:
    """The processes, and what is known of the tasks."""

    def __init__(self, folder: Path, pool: str, tasks: int) -> None:
        self.folder, self.pool, self.tasks = folder, pool, tasks
        (folder / "tasks.py").write_text(MODULE)
        (folder / "begun").touch()
        (folder / "site.key").write_text(format_key(backwater.Key(SECRET, "site")))
        (folder / "site.key").chmod(0o600)
        self._port = "0"
        self.broker = self._start_broker()
        url = self.broker.url()
        self._port = url.rpartition(":")[2]
        # It outlasts every kill.
        options: dict[str, Any] = {"send_timeout": PATIENCE, "max_attempts": 10_000, "max_backoff": 0.2, "proxy": ""}
        self.app = backwater.App(url, backwater.Key(SECRET, "site"), default=False, **options)
        self.worker = self._start_worker()
        self.accepted: list[int] = []
        self.in_flight: set[int] = set()
        self.settled: dict[int, int] = {}

    def _start_broker(self) -> Serving:
        words = ("--store", "sqlite:broker.db", "--secret-file", "site.key", "--log-level", "warning")
        if self._port == "0":
            return Serving(self.folder, *words[:-2], command="broker")
        named = ("--port", self._port, "--address", "127.0.0.1")
        return Serving(self.folder, *words[:-2], *named, command="broker", listens=False)

    def _start_worker(self) -> Serving:
        words = ("tasks", "--broker", self.app.endpoints, "--secret-file", "site.key", "--log-level", "warning")
        more = ("--pool", self.pool, "--concurrency", "4")
        return Serving(self.folder, *map(str, words), *more, command="worker", listens=False)

    def begun(self) -> Counter[int]:
        """How often each has begun."""
        return Counter(map(int, (self.folder / "begun").read_text().split()))

    def kill(self, what: str) -> None:
        """Kill `worker`, `broker` or `both`, and start them again."""
        pid = self.worker.process.pid
        if what != "broker":
            self.worker.process.kill()
        if what != "worker":
            self.broker.process.kill()
            self.broker.ended()
            self.broker.__exit__(None, None, None)
            self.broker = self._start_broker()
        if what != "broker":
            self.worker.ended()
            self.worker.__exit__(None, None, None)
            self._note(pid)
            self.worker = self._start_worker()

    def _note(self, pid: int) -> None:
        """What the worker that was killed had, and what is settled; what it had goes back before its time."""
        begun = self.begun()
        leases: list[Lease] = self.app.ask(asks.leased())
        self.in_flight |= {int(each.id) for each in leases} & set(begun)
        out = {int(each.id) for each in leases}
        self.settled.update({number: count for number, count in begun.items() if number not in out})
        receivers: list[Receiver] = self.app.ask(asks.sessions())
        sessions = {each.session for each in receivers if json.loads(each.about or b"{}").get("pid") == pid}
        for session in sessions | {each.session for each in leases}:
            self.app.ask(asks.close_session(session))

    def send(self) -> None:
        """Send all tasks, a portion at a time."""
        name = "anote" if self.pool == "async" else "note"
        for begin in range(0, self.tasks, PORTION):
            numbers = range(begin, min(begin + PORTION, self.tasks))
            self.app.send_many([signature(f"tasks.{name}", (each,), task_id=str(each)) for each in numbers])
            self.accepted.extend(numbers)

    def until_begun(self, number: int) -> None:
        """Wait until so many have begun."""
        until = time.monotonic() + PATIENCE
        while len(self.begun()) < number:
            assert time.monotonic() < until, f"only {len(self.begun())} of {number} have begun\n{self.worker.said}"
            time.sleep(0.01)

    def results(self) -> list[Any]:
        """Of all tasks, when they are there."""
        names = [str(number) for number in range(self.tasks)]
        found = self.app.drive(wait_flow(names, PATIENCE, self.app.poll_wait, time.monotonic))
        return [read_outcome(found[name].outcome) for name in names]

    def close(self) -> None:
        """End all processes."""
        self.app.close()
        for each in (self.worker, self.broker):
            each.process.kill()
            each.__exit__(None, None, None)


def run(folder: Path, pool: str, tasks: int, kills: list[str]) -> Report:
    """Send tasks and kill meanwhile; each kill when so many more have begun."""
    began = time.monotonic()
    campaign = Campaign(folder, pool, tasks)
    sending = threading.Thread(target=campaign.send, daemon=True)
    try:
        sending.start()
        for number, what in enumerate(kills, 1):
            campaign.until_begun(number * tasks // (len(kills) + 2))
            campaign.kill(what)
        sending.join(PATIENCE)
        results = campaign.results()
        begun = campaign.begun()
    finally:
        campaign.close()
    twice = {number for number, count in begun.items() if count > 1}
    again = {number for number, count in campaign.settled.items() if begun[number] != count}
    return Report(
        pool,
        tasks,
        kills,
        accepted=len(campaign.accepted),
        begun=len(begun),
        results=sum(value == number for number, value in enumerate(results)),
        twice=len(twice),
        in_flight=len(campaign.in_flight),
        wrong=sorted((twice - campaign.in_flight) | again),
        seconds=round(time.monotonic() - began, 1),
    )


def main() -> int:
    """Run campaigns as the command line says; 1 when something was lost or done twice that must not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--pool", choices=("threads", "processes", "async"), action="append")
    given = parser.parse_args()
    bad = 0
    for pool in given.pool or ("threads", "processes", "async"):
        with tempfile.TemporaryDirectory(prefix="backwater-campaign-") as folder:
            kills = [("worker", "broker", "both")[number % 3] for number in range(given.kills)]
            report = run(Path(folder), pool, given.tasks, kills)
        sys.stdout.write(json.dumps({**asdict(report), "kills": len(kills)}) + "\n")
        bad |= bool(report.wrong) or not report.accepted == report.begun == report.results == given.tasks
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
