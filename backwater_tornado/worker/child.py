"""A child process of a worker: runs one job after the other in its main thread, and tells its parent how they ended.

It lives as long as its parent holds the other end of the socket. When that closes between two runs it leaves; in the
middle of one it is killed, with all processes that it started, by a thread that watches for that. Signals that end a
worker are its parent's business, and ignored here. SIGUSR1 says that the soft limit of what runs has passed.

Rule: one run at a time; between runs nothing is kept of them but what their modules keep.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from pathlib import Path
from typing import Any

import msgspec

from backwater_tornado.app import App
from backwater_tornado.broker.values import Outcome
from backwater_tornado.errors import CallFailed, SoftTimeLimitExceeded
from backwater_tornado.exposure import Exposure, Function
from backwater_tornado.keyfiles import read_keys
from backwater_tornado.loading import load_exposure
from backwater_tornado.tasks.current import has_default_sender
from backwater_tornado.tasks.outcomes import failed

from .execution import run_job, run_job_on_loop
from .frames import Ended, Frames, Plan, Ready, Told, Unready, frame
from .interrupts import Awaited, Interruptible
from .jobs import End, Ending, Job

#: What a worker is sent to end it; a service manager sends it to all processes of a service.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CHUNK = 1 << 18


class Post:
    """The way to the parent; any thread may send."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()

    def send(self, value: msgspec.Struct) -> None:
        """Send it; a parent that is gone is not missed here."""
        with self._lock, suppress(OSError):
            self._socket.sendall(frame(value))

    def receive(self, frames: Frames) -> Any:
        """The next value, or None when the parent has closed."""
        while True:
            with suppress(OSError):
                data = self._socket.recv(_CHUNK)
                if data:
                    found = frames.feed(data)
                    if found:
                        return found[0]  # there is one at a time
                    continue
            return None

    def wait_until_closed(self) -> None:
        """Wait until the parent has closed, or died."""
        watching = select.poll()
        watching.register(self._socket, 0)
        watching.poll()


class Runs:
    """Runs jobs, one after the other."""

    def __init__(self, post: Post, exposure: Exposure) -> None:
        self._post = post
        self._exposure = exposure
        self._loop = asyncio.Runner()
        #: How what runs is told of its soft limit.
        self._warn: Callable[[], None] | None = None
        self._orphaned = False

    def run(self, job: Job) -> Ending:
        """Run one."""
        module, _, name = job.task.rpartition(".")
        try:
            function = self._exposure.find(module, name)
        except CallFailed as error:  # its module is another than when the worker started
            return Ending(End.DONE, failed(error))
        try:
            return self._run_coroutine(function, job) if function.is_async else self._run_plain(function, job)
        finally:
            self._warn = None

    def _run_plain(self, function: Function, job: Job) -> Ending:
        call = Interruptible()

        def tell(token: int, outcome: Outcome) -> None:
            call.shield(self._post.send, Told(token, outcome))

        self._warn = lambda: call.interrupt_here(SoftTimeLimitExceeded)
        self._leave_if_orphaned()
        return Context().run(run_job, function, job, tell, call.call)

    def _run_coroutine(self, function: Function, job: Job) -> Ending:
        awaited, loop = Awaited(), self._loop.get_loop()

        def tell(token: int, outcome: Outcome) -> None:
            self._post.send(Told(token, outcome))

        def warn() -> None:
            loop.call_soon_threadsafe(awaited.warn)

        self._warn = warn
        self._leave_if_orphaned()
        return self._loop.run(run_job_on_loop(function, job, tell, awaited.run), context=Context())

    def warn(self, *_: object) -> None:
        """A handler of signals: the soft limit has passed."""
        if self._warn is not None:
            self._warn()

    def watch(self) -> None:
        """In a thread: end what runs when the parent is gone."""
        self._post.wait_until_closed()
        self._orphaned = True
        if self._warn is not None:
            os.killpg(0, signal.SIGKILL)

    def _leave_if_orphaned(self) -> None:
        # The watching thread has looked, and saw nothing running yet.
        if self._orphaned:
            sys.exit(0)

    def close(self) -> None:
        """No more jobs."""
        self._loop.close()


def serve(connection: socket.socket) -> int:
    """Be a child until the parent closes, or the plan says so; gives the exit code."""
    post = Post(connection)
    plan = post.receive(Frames(Plan))
    if plan is None:
        return 0
    if plan.log_level is not None:
        logging.basicConfig(level=plan.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.path[:] = plan.path
    try:
        exposure = load_exposure(plan.modules)
        if plan.broker and plan.secret_file and not has_default_sender():
            App(list(plan.broker), read_keys(plan.secret_file), **plan.options)
    except BaseException as error:  # noqa: BLE001 - whatever importing raised, the parent says it
        post.send(Unready(f"{type(error).__name__}: {error}"))
        return 1
    runs = Runs(post, exposure)
    signal.signal(signal.SIGUSR1, runs.warn)
    threading.Thread(target=runs.watch, name="backwater-parent", daemon=True).start()
    post.send(Ready())
    jobs, count, last = Frames(Job), 0, False
    while not last and (job := post.receive(jobs)) is not None:
        ending = runs.run(job)
        count += 1
        last = _is_last(plan, count)
        post.send(Ended(job.token, ending, last))
    runs.close()
    return 0


def _is_last(plan: Plan, count: int) -> bool:
    if plan.max_tasks is not None and count >= plan.max_tasks:
        return True
    return plan.max_memory is not None and memory_in_use() > plan.max_memory


def memory_in_use() -> int:
    """Bytes of memory that this process has in use; where only the most so far is known, that."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _ignore(*_: object) -> None:
    """Not SIG_IGN, which the programs that a task starts would inherit."""


def main() -> int:
    """`python -m backwater_tornado.worker.child DESCRIPTOR`."""
    for number in _IGNORED:
        signal.signal(number, _ignore)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    with connection:
        return serve(connection)


if __name__ == "__main__":
    sys.exit(main())
