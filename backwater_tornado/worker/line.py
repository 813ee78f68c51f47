"""The way to the broker, which may be cut at any time: whoever asks over it gets an answer in the end.

One attempt follows the other, with pauses between that grow to a second and are drawn by dice, so that a thousand
workers do not come back at one moment. When one attempt succeeds, all that pause go on. On a link that has failed a
moment ago polls are short, and none waits long for the end of the one before (`hedging`). It is said once that the
broker is away, and once that it is back.

Rule: everything asked here may be asked again without harm (`broker.broker`); nothing the link does ends a worker.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from backwater_tornado.errors import (
    BodyTooLarge,
    CallFailed,
    MalformedBatch,
    MessageTooLarge,
    Refused,
    ResultTooLarge,
    SessionGone,
    SessionTaken,
)
from backwater_tornado.hedging import hedge
from backwater_tornado.tasks.asks import Ask

log = logging.getLogger("backwater.worker")

T = TypeVar("T")

#: Pauses between attempts: the first, the longest, and what none is below, seconds.
FIRST_PAUSE, LONGEST_PAUSE, LEAST_PAUSE = 0.05, 1.0, 0.02
#: For so long after a failure polls wait at the broker no longer than that, seconds: silence is found out sooner.
SHAKY, BRIEF = 60.0, 1.0
#: What the broker says to the one who asks; asking again would not help.
_FOR_THE_ASKER = (SessionGone, SessionTaken, BodyTooLarge, MessageTooLarge, MalformedBatch, ResultTooLarge)


class Link(Protocol):
    """What asks a broker: an `AsyncApp`, or a broker in place."""

    async def ask(self, ask: Ask[T]) -> T:
        """The answer; raises `CallFailed`."""
        ...


class SplitLink:
    """Two links to one broker: asks that wait there go over one, all others over the other.

    So whatever gathers calls into requests, or holds answers back, never has a settlement wait for a poll.
    """

    def __init__(self, waiting: Link, other: Link) -> None:
        self._waiting, self._other = waiting, other

    async def ask(self, ask: Ask[T]) -> T:
        """See `Link`."""
        return await (self._waiting if ask.wait else self._other).ask(ask)


class Line:
    """Asks until there is an answer.

    Args:
        name: what the log calls the broker.

    Attributes:
        heard: when the broker last answered, by `clock`; when this was made, as long as it has not.
        failing: what went wrong at last, by verb; empty while the link is up.
    """

    def __init__(
        self,
        link: Link,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
        name: str = "the broker",
    ) -> None:
        self.name = name
        self._link = link
        self._clock = clock
        self._dice = dice
        self.heard = clock()
        self.failing: dict[str, CallFailed] = {}
        self._failed_at = 0.0
        self._shaken_at = -math.inf
        self._answered = asyncio.Event()

    @property
    def down(self) -> float:
        """For how long something has failed again and again, seconds; 0 while the link is up."""
        return self._clock() - self._failed_at if self.failing else 0.0

    async def ask(self, ask: Ask[T]) -> T:
        """One attempt; raises `CallFailed`."""
        try:
            answer = await self._link.ask(ask)
        except _FOR_THE_ASKER:
            self._note_answer(ask)
            raise
        except CallFailed as error:
            self._note_failure(ask, error)
            raise
        self._note_answer(ask)
        return answer

    async def insist(self, make: Callable[[], Ask[T]]) -> T:
        """Ask until there is an answer; `make` gives what to ask, anew for each attempt.

        Raises:
            SessionGone, SessionTaken, BodyTooLarge, MessageTooLarge, MalformedBatch, ResultTooLarge: asking again would
                not help.
        """
        failures = 0
        while True:
            try:
                return await self._attempt(make)
            except _FOR_THE_ASKER:
                raise
            except CallFailed:
                failures += 1
                await self._pause(failures)

    async def _attempt(self, make: Callable[[], Ask[T]]) -> T:
        ask = make()
        if not ask.wait or self._clock() - self._shaken_at > SHAKY:
            return await self.ask(ask)
        return await hedge(lambda: self.ask(make().waiting(BRIEF)), 0.0 if ask.verb in self.failing else BRIEF)

    async def _pause(self, failures: int) -> None:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
        await asyncio.sleep(LEAST_PAUSE)
        try:
            async with asyncio.timeout(longest * self._dice()):
                await self._answered.wait()
        except TimeoutError:
            return

    def _note_answer(self, ask: Ask[Any]) -> None:
        self.heard = self._clock()
        self._answered.set()
        if self.failing and self.failing.pop(ask.verb, None) is not None and not self.failing:
            log.info("%s is back", self.name)

    def _note_failure(self, ask: Ask[Any], error: CallFailed) -> None:
        self._answered.clear()
        now = self._clock()
        if not isinstance(error, Refused):
            self._shaken_at = now
        if not self.failing:
            self._failed_at = now
            said = f"{type(error).__name__}: {error}"
            log.warning("%s cannot be asked; it is tried until it answers: %s", self.name, said)
        self.failing[ask.verb] = error
