"""What the tasks wait in: a Redis, a RabbitMQ, a file, our broker. Each on a free port, its data in a folder of ours.

Redis and RabbitMQ run with the settings that Debian gives them. All are ended by their process ids.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from processes import HERE, BenchmarkError, free_port

#: Where Debian keeps the commands of RabbitMQ that do not insist on its own user.
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: The snapshots of Debian's redis.conf: seconds and writes.
SNAPSHOTS = "3600 1 300 100 60 10000"


class Program:
    """A program in a process group of its own, with its output kept."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd=HERE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self.popen.pid

    def check(self) -> None:
        """Raises what it wrote if it has ended."""
        if self.popen.poll() is not None:
            raise self.failure(f"exited with {self.popen.returncode}")

    def failure(self, what: str) -> BenchmarkError:
        """An error with the end of its output."""
        self.log.seek(0)
        written = self.log.read().decode(errors="replace").strip().splitlines()
        return BenchmarkError("\n  ".join([f"{self.name}: {what}", *written[-8:]]))

    def stop(self, patience: float = 10) -> None:
        """Ask, then kill its group: nobody of it stays."""
        self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self.log.close()


@dataclass(frozen=True)
class Site:
    """A running service. `port` is None where there is none to relay."""

    address: Callable[[int], str]
    port: int | None
    programs: tuple[Program, ...]
    folder: Path

    @property
    def url(self) -> str:
        """As its users write it."""
        return self.address(self.port or 0)

    @property
    def pids(self) -> list[int]:
        """Of its programs."""
        return [program.pid for program in self.programs]

    @property
    def secret(self) -> Path:
        """Of our broker."""
        return self.folder / "secret"

    def stop(self) -> None:
        """End it and drop what it kept."""
        for program in self.programs:
            program.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def redis() -> Site:
    """A Redis without its log of writes, as Debian has it."""
    folder, port = _folder(), free_port()
    command = [
        "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
        "--save", SNAPSHOTS, "--appendonly", "no",
    ]  # fmt: skip
    program = Program("redis", command)
    wait_for(port, program)
    return Site(lambda port: f"redis://127.0.0.1:{port}/0", port, (program,), folder)


def rabbitmq() -> Site:
    """A RabbitMQ, with a name server of its own for Erlang."""
    folder, port, names = _folder(), free_port(), free_port()
    environment = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"benchmark{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
    }
    program_of_names = Program("epmd", ["epmd", "-port", str(names), "-address", "127.0.0.1"], environment)
    wait_for(names, program_of_names)
    program = Program("rabbitmq", [str(RABBITMQ)], environment)
    wait_for(port, program, 60)
    return Site(lambda port: f"amqp://guest:guest@127.0.0.1:{port}//", port, (program, program_of_names), folder)


def file() -> Site:
    """Nothing runs; the file is made by whoever opens it."""
    folder = _folder()
    return Site(lambda _: str(folder / "queue.db"), None, (), folder)


def ours() -> Site:
    """Our broker with its store on disk."""
    folder, port = _folder(), free_port()
    backwater, secret = str(Path(sys.executable).with_name("backwater")), folder / "secret"
    made = subprocess.run([backwater, "keygen"], capture_output=True, text=True, check=True).stdout
    secret.touch(0o600)
    secret.write_text(made, encoding="utf-8")
    command = [
        backwater, "broker", "--store", f"sqlite:///{folder}/broker.db", "--secret-file", str(secret),
        "--address", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    program = Program("our broker", command)
    wait_for(port, program)
    return Site(lambda port: f"http://127.0.0.1:{port}", port, (program,), folder)


#: By the name in the table of rivals.
SERVICES: dict[str, Callable[[], Site]] = {"redis": redis, "rabbitmq": rabbitmq, "file": file, "ours": ours}


def missing(service: str) -> str | None:
    """The command that is not installed, and how to install it; None if all is there."""
    if service == "redis" and shutil.which("redis-server") is None:
        return "redis-server (apt-get install redis-server)"
    if service == "rabbitmq" and not (RABBITMQ.exists() and shutil.which("epmd")):
        return "rabbitmq-server (apt-get install rabbitmq-server)"
    return None


def wait_for(port: int, program: Program, timeout: float = 20) -> None:
    """Until it accepts connections, or fails."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        program.check()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise program.failure("does not listen")


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="backwater-benchmark-"))
