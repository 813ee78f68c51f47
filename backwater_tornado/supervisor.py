"""Several processes on one port, kept alive; or one that starts anew when its source changes.

The parent serves nothing and imports nothing of its user's. It holds the port (bound, not listening, so that port 0 and
a port in use are settled once), starts children that listen on it with SO_REUSEPORT, and tells each over a socket pair
what to serve. The child says over the same pair that it is ready, and which files it was made of. The kernel closes the
pair when either dies: the parent learns of a dead child, and a child stops when its parent is gone.

A child that dies is started again, after a pause that doubles while it does not live. Signals are passed on; children
are in process groups of their own, so that Ctrl-C reaches them through the parent alone, and once.

Rule: decides when processes start and end, nothing else; what they do is `serve`'s business.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .serve import PATIENCE, Plan, announce, port_trouble
from .worker_plan import WorkPlan

log = logging.getLogger("backwater.serve")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
#: A child that lived this long starts again with the first pause, seconds.
SETTLED = 10.0
#: How often files are looked at, seconds.
LOOK = 0.25
#: For development a short one will do, seconds.
RELOAD_GRACE = 2.0
_LINE = 1 << 20


@dataclass(frozen=True)
class Charge:
    """What children do."""

    #: What each of them is told.
    plan: Plan | WorkPlan
    #: The hidden command that reads it.
    command: str
    #: Says that so many of them are at it.
    announce: Callable[[int], Any]


@dataclass(eq=False)
class Child:
    """The parent's view of one child."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    began: float
    #: It was told to end.
    dismissed: bool = False
    #: SIGHUP came while it could not take it yet.
    owed: bool = False

    @classmethod
    async def start(cls, charge: Charge, *, fresh: bool) -> Child:
        """Start a process and tell it its plan; `fresh`: it writes no byte code.

        Byte code is told from stale by the second of the edit, and edits come faster than that.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, *(["-B"] if fresh else []), "-m", "backwater_tornado", charge.command]
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE)
        writer.write(json.dumps(asdict(charge.plan)).encode() + b"\n")
        return cls(process, reader, writer, time.monotonic())

    async def ready(self) -> list[str] | None:
        """The files it was made of, once it serves; None when it ended before."""
        with suppress(OSError):
            line = await self.reader.readline()
            if line:
                return list(json.loads(line))
        return None

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, or the signal that ended it as a negative number."""
        code = await self.process.wait()
        self.writer.close()
        return code


# The parent ----------------------------------------------------------------------------------------------------------


def supervise(plan: Plan, processes: int, *, reload: bool) -> int:
    """Serve with several processes, or with reloading, until told to stop; gives the exit code.

    Raises:
        InvalidOption: the port cannot be used.
    """
    with _reserve(plan) as held, tempfile.TemporaryDirectory(prefix="backwater-") as folder:
        port = held.getsockname()[1]
        plan = replace(
            plan,
            port=port,
            state=plan.state or str(Path(folder, "calls.db")),
            grace=min(plan.grace, RELOAD_GRACE) if reload else plan.grace,
            options={**plan.options, "reuse_port": True},
        )
        serving = Charge(plan, "serve-child", lambda number: announce(plan, port, number))
        return asyncio.run(Supervisor(serving, processes, reload=reload).run())


def supervise_worker(plan: WorkPlan) -> int:
    """Run a worker, anew whenever its source changes, until told to stop; gives the exit code."""
    plan = replace(plan, grace=min(plan.grace, RELOAD_GRACE))
    working = Charge(plan, "worker-child", lambda _: log.info("reloading when a source file changes"))
    return asyncio.run(Supervisor(working, 1, reload=True).run())


def _reserve(plan: Plan) -> socket.socket:
    """The port, bound and not listening: it gets no connections, and is ours for as long as this process lives."""
    held: socket.socket | None = None
    try:
        where = socket.getaddrinfo(
            plan.address or None, plan.listening_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = where[0]
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.bind(address)
    except OSError as error:
        if held is not None:
            held.close()
        raise port_trouble(plan, error) from error
    return held


class Supervisor:
    """Keeps the children running until it is told to stop."""

    def __init__(self, charge: Charge, processes: int, *, reload: bool) -> None:
        self._charge = charge
        self._reload = reload
        self._children: dict[int, Child | None] = dict.fromkeys(range(1, processes + 1))
        #: Which of them serve now.
        self._serving: set[int] = set()
        self._proven = asyncio.Event()
        self._announced = False
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._stops = 0
        self._exit_code = 0
        self._files: dict[str, object] = {}

    async def run(self) -> int:
        """Start, keep and stop them; gives the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        watching = asyncio.ensure_future(self._watch_files()) if self._reload else None
        await asyncio.gather(*(self._keep(slot) for slot in self._children))
        if watching is not None:
            watching.cancel()
        return self._exit_code

    def _hang_up(self) -> None:
        for slot, child in self._children.items():
            if child is not None and slot in self._serving:
                child.signal(signal.SIGHUP)
            elif child is not None:
                child.owed = True

    # One child after the other ---------------------------------------------------------------------------------------

    async def _keep(self, slot: int) -> None:
        failures = 0
        if slot > 1:
            # What is wrong with the settings is told once, by the first.
            await self._first_of(self._proven)
        while not self._stopping.is_set():
            child = await Child.start(self._charge, fresh=self._reload)
            self._children[slot] = child
            if self._stopping.is_set():
                self._dismiss(child)
            files = await child.ready()
            if files is not None:
                self._note_ready(slot, child, files)
            code = await child.ended()
            self._children[slot] = None
            self._serving.discard(slot)
            if not await self._recover(slot, child, code, was_ready=files is not None, failures=failures):
                return
            failures = 0 if child.dismissed or time.monotonic() - child.began > SETTLED else failures + 1

    async def _recover(self, slot: int, child: Child, code: int, *, was_ready: bool, failures: int) -> bool:
        """What the end of a child means: False when it is not to be started again."""
        if self._stopping.is_set():
            if code and was_ready:
                self._exit_code = self._exit_code or 1
            return False
        if child.dismissed:
            return True
        if not was_ready and not self._announced:
            # The very first ones: it would fail again. The child has said why.
            self._exit_code = code if code > 0 else 1
            self._stop()
            return False
        if not was_ready and self._reload:
            log.warning("not serving; waiting for the next change")
            await self._first_of(self._changed)
            return True
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 20))
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        log.warning("process %d (%d) %s; starting another in %g s", slot, child.process.pid, how, pause)
        await self._first_of(self._stopping, pause)
        return True

    async def _first_of(self, event: asyncio.Event, longest: float | None = None) -> None:
        """Wait for an event, for the end, or for some seconds."""
        waiting = [asyncio.ensure_future(each.wait()) for each in {event, self._stopping}]
        await asyncio.wait(waiting, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()

    def _note_ready(self, slot: int, child: Child, files: Iterable[str]) -> None:
        self._serving.add(slot)
        self._proven.set()
        if child.owed:
            child.signal(signal.SIGHUP)
        self._files.update({file: self._files.get(file) or _state_of(file) for file in files})
        if len(self._serving) < len(self._children):
            return
        if not self._announced or self._reload:
            self._charge.announce(len(self._children))
            self._announced = True
        else:
            log.info("process %d is back; all %d processes serve", slot, len(self._children))

    # The end ---------------------------------------------------------------------------------------------------------

    def _dismiss(self, child: Child) -> None:
        child.dismissed = True
        child.signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        patience = PATIENCE + (self._charge.plan.grace if self._stops < 2 else 0.0)
        loop.call_later(patience, child.signal, signal.SIGKILL)

    def _stop(self) -> None:
        self._stops += 1
        self._stopping.set()
        for child in self._children.values():
            if child is not None:
                self._dismiss(child)

    # Reloading -------------------------------------------------------------------------------------------------------

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            changed = [file for file, state in self._files.items() if _state_of(file) not in (None, state)]
            if not changed:
                continue
            log.info("changed: %s; starting anew", ", ".join(Path(file).name for file in changed))
            self._files.update({file: _state_of(file) for file in changed})
            self._changed.set()
            self._changed.clear()
            for child in self._children.values():
                if child is not None:
                    self._dismiss(child)


def _state_of(file: str) -> object:
    """What an edit changes; None while the file is not there, as in the middle of a save."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
