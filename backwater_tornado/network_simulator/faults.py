"""What may happen to single HTTP requests, and who says which. Values, and policies that give them.

A policy is any callable from `Seen` to `Fault`; `Script` and `Mix` are two.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace


class Kind(enum.StrEnum):
    """What may happen to one request."""

    PASS = "pass"  # noqa: S105 - no password
    CUT_BEFORE_REQUEST = "cut before request"  # the server never hears of it, the client's connection ends
    CUT_AFTER_REQUEST = "cut after request"  # the server has answered, the client's connection ends without a byte
    CUT_MID_RESPONSE = "cut mid response"  # half of the answer is delivered
    STALL = "stall"  # the whole answer is held back for some seconds, or for ever
    DUPLICATE = "duplicate"  # the server gets it twice; the first answer is delivered
    DUPLICATE_ANSWERED = "duplicate answered"  # the server gets it twice; the second answer is delivered
    TRUNCATE_REQUEST = "truncate request"  # the server gets half of it, then both connections end
    DROP = "drop"  # nothing is forwarded or answered, and the connection stays open


@dataclass(frozen=True)
class Fault:
    """What to do with one request.

    Attributes:
        seconds: how long a stall lasts; None is for ever, which is until the client or the proxy closes.
        reset: a cut is a TCP reset instead of an orderly end.
    """

    kind: Kind
    seconds: float | None = None
    reset: bool = False

    def with_reset(self) -> Fault:
        """The same, cutting with a TCP reset."""
        return replace(self, reset=True)


PASS = Fault(Kind.PASS)
CUT_BEFORE_REQUEST = Fault(Kind.CUT_BEFORE_REQUEST)
CUT_AFTER_REQUEST = Fault(Kind.CUT_AFTER_REQUEST)
CUT_MID_RESPONSE = Fault(Kind.CUT_MID_RESPONSE)
STALL_FOREVER = Fault(Kind.STALL)
DUPLICATE = Fault(Kind.DUPLICATE)
DUPLICATE_ANSWERED = Fault(Kind.DUPLICATE_ANSWERED)
TRUNCATE_REQUEST = Fault(Kind.TRUNCATE_REQUEST)
DROP = Fault(Kind.DROP)


def stall(seconds: float) -> Fault:
    """Holds the whole answer back for that long."""
    return Fault(Kind.STALL, seconds)


@dataclass(frozen=True)
class Seen:
    """One request as the proxy read it.

    Attributes:
        number: counts all requests from 0.
        connection: counts the client's connections from 0.
        on_connection: counts the requests of its connection from 0.
        head: request line and headers with the empty line behind them; `body` as it was framed.
    """

    number: int
    connection: int
    on_connection: int
    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        """GET, POST."""
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """Path and query as sent."""
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        """Header fields by lower-case name."""
        return {name: value.decode("latin-1") for name, value in headers_of(self.head).items()}


Policy = Callable[[Seen], Fault]


class Script:
    """One fault after the other, then `afterwards` for all the rest."""

    def __init__(self, faults: Iterable[Fault], afterwards: Fault = PASS) -> None:
        self._faults = iter(list(faults))
        self._afterwards = afterwards

    def __call__(self, seen: Seen) -> Fault:
        return next(self._faults, self._afterwards)


class Mix:
    """Faults drawn by weight from a seeded generator: the same seed gives the same order of faults."""

    def __init__(self, seed: int, weights: Mapping[Fault, float]) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - to be repeated
        self._faults = list(weights)
        self._weights = list(weights.values())

    def __call__(self, seen: Seen) -> Fault:
        return self._dice.choices(self._faults, self._weights)[0]


def headers_of(head: bytes) -> dict[str, bytes]:
    """Header fields by lower-case name."""
    lines = head.split(b"\r\n")[1:]
    pairs = (line.partition(b":") for line in lines if line)
    return {name.strip().lower().decode("latin-1"): value.strip() for name, _, value in pairs}
