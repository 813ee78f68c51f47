"""A server in a process of its own whose functions leave a line in a file, so that runs can be counted after kill -9.

`python -m tests.faults.counting_server PORT SECRET RUNS STATE`: RUNS is the file of lines, STATE that of the memory,
or "-" for none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Self

import backwater_tornado as backwater

SECRET = "counting-server-secret-0123456789"


class Runs:
    """What the server exposes as `runs`; every run leaves a line."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, ident: int) -> int:
        os.write(self._file, b"%d\n" % ident)
        return ident

    def hold(self, ident: int) -> int:
        """Never ends."""
        self.note(ident)
        threading.Event().wait()
        return ident


class CountingServer:
    """The process, which may be killed and started again on the same port."""

    def __init__(self, folder: Path, *, state: bool) -> None:
        self.runs = folder / "runs"
        self._state = str(folder / "state") if state else "-"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", __name__, str(self.port), SECRET, str(self.runs), self._state]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        # Its connections end before the kill returns: the next process may have been started by then.
        process = self._process
        assert process is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()

    def counted(self) -> Counter[int]:
        """How often each id was run."""
        return Counter(int(line) for line in self.runs.read_text().splitlines())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


async def _serve(port: int, secret: str, runs: str, state: str) -> None:
    options = {} if state == "-" else {"state": state}
    exposed = {"runs": Runs(runs)}
    server = backwater.start_clear_server(secret, exposed, port=port, address="127.0.0.1", **options)
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), *sys.argv[2:5]))
