"""Functions in processes of their own, which may be killed: at the hard limit, when revoked, when their worker ends.

A child is a new interpreter (nothing is forked: the parent has threads and open connections) that imports the modules
to be served and then runs one job after the other (`child`). It is started when there is more to run than children, and
goes on until it has run as often, or grown as large, as it may. When one dies in the middle of a run, the job goes back
to the broker, which counts how often that happens.

Rule: knows no time but its own patience, and counts nothing; `pools` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, Final

from .frames import Ended, Frames, Plan, Ready, Said, Told, Unready, frame
from .jobs import End, Ending
from .pools import MOMENT, Run

log = logging.getLogger("backwater.worker")

_CHUNK: Final = 1 << 18
#: What a child that has run for the last time may take to end, seconds.
LEAVING: Final = 10.0
#: After a child that could not be started: the first pause, and the longest, seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0


class Child:
    """The parent's view of one child."""

    def __init__(self, place: Processes) -> None:
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._socket, self._theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._frames = Frames(Said)
        self._unsent = bytearray()
        self._process: asyncio.subprocess.Process | None = None
        #: What it runs, or will as soon as it is ready.
        self.run: Run | None = None
        self.ready = False
        #: Why it could not get ready.
        self.trouble = ""
        #: It was told to end, or said that it does.
        self.leaving = False
        self._loop.add_reader(self._socket, self._read)
        self.living = self._loop.create_task(self._live())

    @property
    def pid(self) -> int | None:
        """Its process's number, once it has one."""
        return None if self._process is None else self._process.pid

    async def _live(self) -> None:
        code = None
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "backwater_tornado.worker.child", str(self._theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[self._theirs.fileno()],
                process_group=0,
            )
            self._theirs.close()
            if self.leaving and not self.ready:
                self.kill()
            self.send(frame(self._place.plan))
            code = await self._process.wait()
        except OSError as error:
            self.trouble = f"{type(error).__name__}: {error}"
        self._theirs.close()
        self._read()  # what it said before it ended
        self._hang_up()
        self._place.note_exit(self, code)

    def begin(self, run: Run) -> None:
        """Have it run a job, now or when it is ready."""
        self.run = run
        if self.ready:
            self._begin()

    def _begin(self) -> None:
        assert self.run is not None
        self.run.begun()
        self.send(frame(self.run.job))

    def send(self, data: bytes) -> None:
        """Send it, and what the socket does not take now, later."""
        self._unsent += data
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is gone; that will be noticed
            sent = len(self._unsent)
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        """Take what it has said."""
        while self._socket.fileno() >= 0:
            try:
                data = self._socket.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._socket)
                return
            for said in self._frames.feed(data):
                self._take(said)

    def _take(self, said: Said) -> None:
        match said:
            case Told(outcome=outcome) if self.run is not None:
                self.run.say(outcome)
            case Ended(ending=ending, last=last):
                if last:
                    self.leaving = True
                    self._loop.call_later(LEAVING, self.kill)
                run, self.run = self.run, None
                self._place.note_idle(self)
                if run is not None:
                    self._place.note_end(run, ending)
            case Ready():
                self.ready = True
                if self.run is not None:
                    self._begin()
                else:
                    self._place.note_idle(self)
            case Unready(why=why):
                self.trouble = why

    def warn(self) -> None:
        """The soft limit of what it runs has passed."""
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End it at once, and all processes that it has started."""
        self.leaving = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def dismiss(self) -> None:
        """Have it end when it has nothing to do; one that is not ready yet at once."""
        self.leaving = True
        if self.ready:
            self._hang_up()
        else:
            self.kill()

    def _hang_up(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()


class Processes:
    """A `Place` for functions of all kinds: as many children as run at once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._loop = asyncio.get_running_loop()
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._at: dict[Run, Child] = {}
        #: Children in a row that did not get ready.
        self._failures = 0

    def begin(self, run: Run) -> None:
        """See `Place`."""
        child = self._idle.pop() if self._idle else Child(self)
        self._children.add(child)
        self._at[run] = child
        child.begin(run)

    def warn(self, run: Run) -> None:
        """See `Place`."""
        self._at[run].warn()

    def interrupt(self, run: Run) -> None:
        """See `Place`."""
        self._at[run].kill()

    def abandon(self, run: Run) -> str:
        """See `Place`."""
        return f"process {self._at[run].pid} was killed and does not end"

    def about(self) -> dict[str, Any]:
        """See `Place`."""
        return {
            "children": [
                {"pid": child.pid, "ready": child.ready, "token": None if child.run is None else child.run.job.token}
                for child in self._children
            ]
        }

    async def close(self) -> None:
        """See `Place`."""
        children = [child for child in self._children if child.run is None]
        for child in children:
            child.dismiss()
        living = [child.living for child in children]
        if living:
            await asyncio.wait(living, timeout=MOMENT)
            for child in children:
                child.kill()
            await asyncio.wait(living, timeout=MOMENT)

    # What children tell ----------------------------------------------------------------------------------------------

    def note_idle(self, child: Child) -> None:
        """It is ready, or has ended a run."""
        self._failures = 0
        if not child.leaving:
            self._idle.append(child)

    def note_end(self, run: Run, ending: Ending) -> None:
        """A run has ended, or cannot be run here."""
        del self._at[run]
        run.end(ending)

    def note_exit(self, child: Child, code: int | None) -> None:
        """Its process has ended."""
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        how = _how(child, code)
        if not child.leaving:
            log.error("%s%s", how, "" if child.run is None else f" while it ran {child.run.label}")
        run, child.run = child.run, None
        pause = 0.0
        if not child.ready and not child.leaving:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 20))
            self._failures += 1
        if run is not None:
            # What cannot be run here goes back slowly, else it would come again at once.
            self._loop.call_later(pause, self.note_end, run, Ending(End.RETURN, reason=how))


def _how(child: Child, code: int | None) -> str:
    """How a process ended, for people."""
    if code is None or not child.ready:
        return f"a child process could not be started: {child.trouble or f'it ended with exit code {code}'}"
    if code < 0:
        return f"the child process {child.pid} was killed by {signal.Signals(-code).name}"
    return f"the child process {child.pid} ended with exit code {code}"
