"""Who among several processes is alive: locks that the kernel releases when a process dies, however it dies.

An *owner* holds a lock on a file of its own in a common directory; whoever wants to know whether it lives tries to
share that lock. The *gate* is one more file there: who holds it may look at all owners and decide for all. It also
says of which boot of the machine, and of which version, the thing is that is owned.

Rules: an owner without a file is dead. The locks are `flock`, not those of `fcntl`: the latter are lost as soon as the
process closes any other descriptor of the same file. A forked child shares its parent's lock and has to `forget` it,
or the parent would seem to live on in it.

This module does not know what is owned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Gate:
    """The locked file that says of which boot of the machine, and of which version, the database is."""

    def __init__(self, fd: int, version: int) -> None:
        self._fd = fd
        #: The boot of the machine, or an empty text where the system does not tell.
        self.boot = _boot_id()
        self._expected = f"{version} {self.boot}\n".encode()

    def fits(self) -> bool:
        """Whether what is behind the gate is of this boot and version."""
        return os.pread(self._fd, 1000, 0) == self._expected

    def claim(self) -> None:
        """Say that it is, from now on."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, self._expected, 0)


class Owners:
    """Who has something open: a directory with a locked file for each.

    Args:
        directory: made when it is first needed, readable by its owner only.
        version: of what is behind the gate.

    Attributes:
        me: this owner's name; empty when it is none.
    """

    def __init__(self, directory: Path, version: int) -> None:
        self._directory: Final = directory
        self._version: Final = version
        self._fd = -1
        self.me = ""

    @contextlib.contextmanager
    def gate(self) -> Iterator[Gate]:
        """Alone among all processes, for as long as the block lasts."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self._directory / "gate", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield Gate(fd, self._version)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # said aloud: a child forked meanwhile has the descriptor too
            os.close(fd)

    def join(self) -> None:
        """Become an owner; behind the gate, so that nobody sees the file before it is locked."""
        me = os.urandom(8).hex()
        self._fd = os.open(self._directory / me, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.me = me

    def leave(self) -> None:
        """Be an owner no more."""
        if self.me:
            (self._directory / self.me).unlink(missing_ok=True)
            self.forget()

    def forget(self) -> None:
        """In a child, give up the parent's lock without releasing it."""
        if self.me:
            os.close(self._fd)
            self.me = ""

    def alive(self, owner: str) -> bool:
        """Whether the process of an owner still has the memory open."""
        if owner == self.me:
            return True
        try:
            fd = os.open(self._directory / owner, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not see each other
        except BlockingIOError:
            return True
        else:
            fcntl.flock(fd, fcntl.LOCK_UN)
            return False
        finally:
            os.close(fd)

    def anyone_alive(self) -> bool:
        """Behind the gate: whether there is an owner; what the dead have left is removed."""
        found = False
        for file in self._directory.iterdir():
            if file.name == "gate":
                continue
            if self.alive(file.name):
                found = True
            else:
                file.unlink(missing_ok=True)
        return found


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
