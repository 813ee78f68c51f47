"""The numbers of one client: nonces, calls, and which calls are settled.

A stream's name is random, so that no two clients share one. Numbers rise; a call is settled when its caller has its
answer or has given up, and every request tells the server the lowest number that is not settled yet, so that the server
may forget the rest.

Rule: safe across threads; a child process gets a stream of its own (`renew`).
"""

from __future__ import annotations

import secrets
from threading import Lock


class Stream:
    """Numbers for one client."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start over under a new name; nothing that was issued before is used again."""
        self.name = secrets.token_urlsafe(8)
        self._lock = Lock()
        self._next = 0
        self._nonce = 0
        #: Numbers in use, in order; a dict keeps the order and forgets cheaply.
        self._open: dict[int, None] = {}

    def begin(self) -> int:
        """The number of a new call."""
        with self._lock:
            number = self._next
            self._next += 1
            self._open[number] = None
            return number

    def settle(self, number: int) -> None:
        """The call has its answer, or was given up."""
        with self._lock:
            self._open.pop(number, None)

    def draw(self) -> tuple[str, int]:
        """A new nonce, and the number below which every call is settled."""
        with self._lock:
            self._nonce += 1
            settled = next(iter(self._open), self._next)
            return f"{self.name}.{self._nonce}", settled
