"""A bounded pool of threads for plain functions, whose results come back to the loop in bunches.

`concurrent.futures` wakes the loop once per call, which costs more than most calls (about 40 µs each). Here a thread
leaves its result in a list and wakes the loop only if nobody has, and threads wake each other in a chain, so that a
hundred short calls that arrive together cost two switches and not two hundred.

Rule: knows nothing of calls. A job is a function that never raises; its result goes to `deliver`, on the loop.
"""

from __future__ import annotations

import logging
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("backwater.server")

Job = Callable[[], Any]
Deliver = Callable[[Any], None]


class ThreadPool:
    """At most `size` threads, started when needed, ended by `close`."""

    def __init__(self, size: int, loop: AbstractEventLoop, name: str = "backwater") -> None:
        self._size = size
        self._loop = loop
        self._name = name
        self._jobs: deque[tuple[Job, Deliver]] = deque()
        self._finished: deque[tuple[Deliver, Any]] = deque()
        self._lock = threading.Lock()
        self._work = threading.Semaphore(0)
        self._threads = 0
        self._asleep = 0
        #: A thread was told to wake and has not looked yet; it will see whatever is added meanwhile.
        self._waking = False
        #: The loop was told to deliver and has not looked yet.
        self._delivering = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._jobs)

    def submit(self, job: Job, deliver: Deliver) -> None:
        """Run `job` in a thread; `deliver` gets its result on the loop."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool of threads is closed")
            self._jobs.append((job, deliver))
            start = self._wake_one()
        if start:
            self._start_thread()

    def grow(self) -> None:
        """Allow one thread more, as one is lost to a job that does not end."""
        with self._lock:
            self._size += 1
            start = bool(self._jobs) and self._wake_one()
        if start:
            self._start_thread()

    def close(self) -> None:
        """Take no more jobs; threads end after what they are doing, waiting jobs are dropped."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            for _ in range(self._threads):
                self._work.release()

    def _wake_one(self) -> bool:
        """Wake a sleeping thread, or ask for a new one (True). Called with the lock held."""
        if self._waking:
            return False
        if self._asleep:
            self._waking = True
            self._work.release()
        elif self._threads < self._size:
            self._waking = True
            self._threads += 1
            return True
        return False

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
        except RuntimeError:  # the system has no more threads for us: those that there are go on
            log.exception("a thread for plain functions could not be started")
            with self._lock:
                self._threads -= 1
                self._waking = False

    def _run(self) -> None:
        woken = True
        while True:
            with self._lock:
                if woken:
                    self._waking = woken = False
                if self._closed:
                    return
                if self._jobs:
                    job, deliver = self._jobs.popleft()
                    start = bool(self._jobs) and self._wake_one()
                else:
                    self._asleep += 1
                    job = None
            if job is None:
                self._work.acquire()
                woken = True
                with self._lock:
                    self._asleep -= 1
                continue
            if start:
                self._start_thread()
            self.hand_over(deliver, job())

    def hand_over(self, deliver: Deliver, result: Any) -> None:
        """Have `deliver` called with this on the loop; what is handed over from one thread arrives in order."""
        self._finished.append((deliver, result))
        with self._lock:
            if self._delivering:
                return
            self._delivering = True
        try:
            self._loop.call_soon_threadsafe(self._deliver_finished)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            return

    def _deliver_finished(self) -> None:
        with self._lock:
            self._delivering = False
        # Only what is there now: results that arrive meanwhile have asked for their own turn.
        for _ in range(len(self._finished)):
            deliver, result = self._finished.popleft()
            deliver(result)
