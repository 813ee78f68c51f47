"""The command in processes of its own: `run` for one that ends, `Serving` for one that serves until it is told to stop.

Whoever waits, waits for a line, for a process to end or for a pipe, and never longer than `PATIENCE`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

#: Seconds; reached only when something is broken.
PATIENCE = 40.0
COMMAND = [sys.executable, "-m", "backwater_tornado"]

#: What the tests serve. `hold` waits on two named pipes: no clock is needed to meet it in the middle.
MODULE = '''
import os

def add(x: int, y: int = 0) -> int:
    """The sum."""
    return x + y

def fail() -> None:
    raise ValueError("as told")

def pid() -> int:
    return os.getpid()

def hold(started: str, go: str) -> str:
    open(started, "w").close()
    with open(go) as pipe:
        return pipe.read()

async def block(started: str, go: str) -> str:
    return hold(started, go)

def append(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    return os.getpid()
'''


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of ours and without proxies."""
    ours = ("BACKWATER_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)} | more


def run(folder: Path, *words: str, out: IO[str] | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; its output goes to `out`, where given."""
    return subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if out is None else out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Serving:
    """`backwater serve`, or another command that serves, for the length of a with-block."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        command: str = "serve",
        listens: bool = True,
        program: Sequence[str] = COMMAND,
    ) -> None:
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [*program, command, *words, *(["--port", "0", "--address", "127.0.0.1"] if listens else [])],
            cwd=folder,
            env=environment(TMPDIR=str(folder)),  # what a killed one leaves goes with the test
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def said(self) -> str:
        """All that was written so far."""
        with self._news:
            return "".join(self._lines)

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait until a line has the text, for the n-th time; gives the line."""

        def found() -> list[str]:
            return [line for line in self._lines if text in line]

        with self._news:
            self._news.wait_for(lambda: len(found()) >= times or self._ended, PATIENCE)
            lines = found()
        assert len(lines) >= times, f"waited for {text!r}; it said:\n{self.said}"
        return lines[times - 1]

    def url(self) -> str:
        """Where it serves; waits until it does."""
        match = re.search(r"serving on (\S+)", self.wait_for("serving on "))
        assert match
        return match[1]

    def signal(self, number: int) -> None:
        """Send a signal to the process that was started."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; gives the exit code."""
        return self.process.wait(PATIENCE)

    def children(self) -> list[psutil.Process]:
        """The processes that it started and that live."""
        return [child for child in psutil.Process(self.process.pid).children() if child.status() != "zombie"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        children: list[psutil.Process] = []
        if self.process.poll() is None:
            children = self.children()
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        _, orphans = psutil.wait_procs(children, PATIENCE)
        for orphan in orphans:  # a test has failed: leave nothing behind
            orphan.kill()
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
