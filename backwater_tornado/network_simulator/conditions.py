"""How good a link is: how long bytes are on their way, how many a second, and what holds them up. Values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from backwater_tornado.errors import InvalidOption


class Side(enum.StrEnum):
    """One of the two that are connected."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True)
class Stalls:
    """What lost packets look like above TCP: now and then bytes come late, and all that follow wait for them.

    Attributes:
        share: of the pieces of data that are held up, 0 to 1.
        seconds: for how long; TCP itself waits 0.2 s and more before it sends again.
        seed: the same seed holds up the same pieces.
    """

    share: float
    seconds: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.seconds < 0:
            raise InvalidOption("stalls: a share from 0 to 1, and seconds from 0")


@dataclass(frozen=True)
class Conditions:
    """What holds for every connection over a link.

    Attributes:
        delay: seconds each way; bytes travel side by side, so that it takes nothing from the throughput. A new
            connection waits another round trip, as its handshake does.
        bandwidth: bytes a second each way, all connections together; None is no limit.
        stalls: what loss does.
        drip: seconds from one byte to the next of a connection, as from a slow-loris; None sends what there is.
    """

    delay: float = 0.0
    bandwidth: float | None = None
    stalls: Stalls | None = None
    drip: float | None = None

    def __post_init__(self) -> None:
        if self.delay < 0:
            raise InvalidOption("delay: seconds from 0")
        if any(given is not None and given <= 0 for given in (self.bandwidth, self.drip)):
            raise InvalidOption("bandwidth and drip: above 0, or None")


@dataclass(frozen=True)
class Counts:
    """What went over a link so far.

    Attributes:
        up, down: bytes from clients and to them, with those that got lost on the way.
        connections: that clients have opened.
        open: that are not over.
    """

    up: int = 0
    down: int = 0
    connections: int = 0
    open: int = 0
