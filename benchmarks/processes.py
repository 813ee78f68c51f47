"""The processes of a run: servers, callers and relays, all asleep but the one that is told to work."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent


class BenchmarkError(Exception):
    """A process did not do what it was told; the text says which and why."""


class Process:
    """A Python process of ours with a pipe to it. It ends when the pipe closes.

    `python` is the one that runs it, `environment` is added to ours.
    """

    def __init__(
        self,
        name: str,
        script: str,
        *arguments: object,
        python: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.popen = subprocess.Popen(
            [str(python), str(HERE / script), *map(str, arguments)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if script != "serve.py" else self.log,
            stderr=self.log,
            text=True,
        )

    def ask(self, line: str | None, timeout: float) -> dict[str, Any]:
        """Send a line (None: only wait for one) and give its answer."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        if line is not None:
            try:
                self.popen.stdin.write(line + "\n")
                self.popen.stdin.flush()
            except BrokenPipeError:
                raise self.failure("has ended") from None
        readable, _, _ = select.select([self.popen.stdout], [], [], timeout)
        answer = self.popen.stdout.readline() if readable else ""
        if not answer:
            raise self.failure(f"gave no answer within {timeout:g} s" if not readable else "has ended")
        decoded: dict[str, Any] = json.loads(answer)
        if "error" in decoded:
            raise self.failure(decoded["error"])
        return decoded

    def failure(self, what: str) -> BenchmarkError:
        """An error that shows the end of what the process wrote."""
        self.log.seek(0)
        written = self.log.read().decode(errors="replace").strip().splitlines()
        return BenchmarkError(f"{self.name}: {what}" + ("\n  " + "\n  ".join(written[-8:]) if written else ""))

    def stop(self) -> None:
        """Close the pipe; kill if that does not help."""
        if self.popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()
        try:
            self.popen.wait(3)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.log.close()


class Server(Process):
    """Serves one variant."""

    def __init__(self, variant: str) -> None:
        self.port = free_port()
        super().__init__(f"server of {variant}", "serve.py", variant, self.port)

    def wait_until_it_listens(self, timeout: float = 30) -> None:
        """Or fails."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.popen.poll() is not None:
                raise self.failure(f"exited with {self.popen.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise self.failure("does not listen")


class Caller(Process):
    """Calls one variant's server, at that port (the server's own or a relay's)."""

    def __init__(self, variant: str, port: int, server_pid: int, kind: str = "records") -> None:
        super().__init__(f"caller of {variant}", "caller.py", variant, port, server_pid, kind)

    def wait_until_ready(self) -> None:
        """Connected, and its first answers were right."""
        self.ask(None, 30)

    def run(self, case: str, callers: int, seconds: float, limit: int = 1_000_000_000) -> dict[str, Any]:
        """A slice of calls."""
        command = {"case": case, "callers": callers, "seconds": seconds, "limit": limit}
        answer = self.ask(json.dumps(command), seconds + 30)
        answer["histogram"] = {int(bucket): count for bucket, count in answer["histogram"].items()}
        return answer


class Link(Process):
    """A relay in front of some ports."""

    def __init__(self, targets: Sequence[int], delay: float = 0) -> None:
        super().__init__("relay", "link.py", "--delay", delay, *targets)
        ports: list[int] = self.ask(None, 10)["ports"]
        self.ports = dict(zip(targets, ports, strict=True))

    def counts(self, *, reset: bool = False) -> dict[int, tuple[int, int]]:
        """Bytes up and down for each target since the last reset."""
        answer: list[list[int]] = self.ask("reset" if reset else "counts", 10)["counts"]
        return {target: (up, down) for target, (up, down) in zip(self.ports, answer, strict=True)}


def free_port() -> int:
    """One that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
