"""The one seat of a forwarder at an outbox, and the bell that wakes who has it.

Both are one named pipe beside the file: whoever forwards has it open and locked, and the kernel gives the lock back
when the process dies, however it dies. Who puts something into the outbox writes a byte into the pipe, from any
process; when nobody listens, nothing is lost by it, as a forwarder also looks by itself.

Rule: nothing here knows what is forwarded.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

from backwater_tornado.errors import ConfigurationError


def _beside(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}-forwarder"


def make_seat(path: str | os.PathLike[str]) -> None:
    """Make the pipe beside an outbox, where it is missing; raises `OSError`."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(_beside(path), 0o600)


class Seat:
    """The seat at an outbox; `fd` is readable when the bell has rung, while it is taken."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path: Final = _beside(path)
        self.fd = -1

    def take(self) -> bool:
        """Take it, unless another has it; raises `ConfigurationError`."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            raise ConfigurationError(f"the pipe {self._path!r} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self.fd = fd
        return True

    def hush(self) -> bool:
        """Hear all that has rung so far as one; gives whether the seat is still taken, as a file's always is."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.fd, 65536)) == 65536:
                pass
        return True

    def leave(self) -> None:
        """Another may have it."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)  # said aloud: a child forked meanwhile has the descriptor too
            self.abandon()

    def abandon(self) -> None:
        """In a child process: it is the parent's."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def ring(path: str | os.PathLike[str]) -> None:
    """Wake the forwarder of an outbox, if there is one."""
    with contextlib.suppress(OSError):  # nobody listens, or has been rung for so often that it will wake anyway
        fd = os.open(_beside(path), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, b"\0")
        finally:
            os.close(fd)
