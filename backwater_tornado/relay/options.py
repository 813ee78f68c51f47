"""How a relay works: frozen values, checked when they are made; seconds wherever time is meant."""

from __future__ import annotations

import msgspec

from backwater_tornado.errors import InvalidOption
from backwater_tornado.worker.consumer import TTL, WAIT


class RelayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """See the head of this module; raises `InvalidOption`."""

    #: Messages that are away at a time: taken from the near broker, and not known to have ended.
    prefetch: int = 10_000
    #: The near broker lets another have what this holds when it has not heard of it for so long.
    ttl: float = TTL
    #: How long a poll waits at the near broker, and a question for results at the far one.
    wait: float = WAIT
    #: Between two looks at whether the relay is deaf.
    watch: float = 30.0

    def __post_init__(self) -> None:
        if self.prefetch < 1:
            raise InvalidOption(f"prefetch is a whole number from 1, not {self.prefetch!r}")
        if not 0 <= self.wait < self.ttl:
            raise InvalidOption(f"ttl is longer than a poll waits, or sessions would end between two: {self.wait:g} s")
