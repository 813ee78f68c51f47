"""What an application does with its broker, as generators: each yields an `Ask`, or a `Nap`, and is sent the answer.

A failed ask is thrown in (`driving`), so that each flow says itself what it rides through: waiting for a result goes on
when the link comes back; sending gives up when the client has.

Rule: no socket and no sleep; time is a function that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from backwater_tornado.broker.values import Join, Outcome, Publication, Published, PublishState, Result
from backwater_tornado.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    TaskNotAccepted,
    Unreachable,
)

from . import asks
from .asks import Ask
from .workflow import Order

T = TypeVar("T")
Flow = Generator["Ask[Any] | Nap", Any, T]

#: Messages in one request, and bytes of them: what the broker's limits on a request take with ease.
MAX_MESSAGES, MAX_BYTES = 2_000, 2 << 20
#: Results asked for at once.
MAX_IDS = 500
#: The longest pause between two attempts while the link is down, seconds.
MAX_NAP = 2.0


@dataclass(frozen=True, slots=True)
class Nap:
    """Wait so many seconds."""

    seconds: float


def send_flow(orders: Sequence[Order]) -> Flow[None]:
    """Hand orders to the broker.

    Raises:
        TaskNotAccepted: some were refused; all others have been accepted, and `.extra["refused"]` names those.
        CallFailed: the broker could not be asked; sending the same orders again is safe.
    """
    refused: dict[str, str] = {}
    for joins, publications in _portions(orders):
        answers: list[Published] = yield asks.publish(publications, joins)
        for publication, answer in zip(publications, answers, strict=True):
            if answer.state not in (PublishState.ACCEPTED, PublishState.DUPLICATE):
                refused[publication.message.id] = answer.reason or answer.state.value
    if refused:
        first, reason = next(iter(refused.items()))
        others = f" and {len(refused) - 1} others" if len(refused) > 1 else ""
        raise TaskNotAccepted(f"the broker did not take the task {first}{others}: {reason}", refused=refused)


def _portions(orders: Sequence[Order]) -> Iterator[tuple[Sequence[Join], list[Publication]]]:
    """Messages as many as fit into a request; what a message is counted for is there before it."""
    joins: list[Join] = []
    portion: list[Publication] = []
    size = 0
    for order in orders:
        joins.extend(order.joins)
        size += sum(len(each.message.body) for join in order.joins for each in join.then)
        for publication in order.publications:
            size += len(publication.message.body) + 64
            if portion and (len(portion) >= MAX_MESSAGES or size > MAX_BYTES):
                yield joins, portion
                joins, portion, size = [], [], len(publication.message.body) + 64
            portion.append(publication)
    if portion or joins:
        yield joins, portion


def wait_flow(
    ids: Iterable[str], timeout: float | None, wait: float, clock: Callable[[], float]
) -> Flow[dict[str, Result]]:
    """The final results of all these, by id.

    Args:
        timeout: seconds; None: as long as it takes. A link that is down is waited for.
        wait: how long one ask may wait, seconds.
        clock: seconds, monotonic.

    Raises:
        DeadlineExceeded: not all were final in time.
    """
    until = None if timeout is None else clock() + timeout
    missing = dict.fromkeys(ids)
    found: dict[str, Result] = {}
    failures = 0
    while missing:
        left = wait if until is None else min(wait, until - clock())
        asked = list(missing)[:MAX_IDS]
        try:
            answers: list[Result | None] = yield asks.results(asked, max(left, 0.0))
            failures = 0
        except (Unreachable, OutcomeUnknown, DeadlineExceeded) as error:
            if until is not None and clock() >= until:
                raise _too_late(len(missing), timeout) from error
            failures += 1
            yield Nap(min(MAX_NAP, 0.05 * 2 ** min(failures, 6)))
            continue
        for each, answer in zip(asked, answers, strict=True):
            if answer is not None and answer.final:
                found[each] = answer
                del missing[each]
        if missing and until is not None and clock() >= until:
            raise _too_late(len(missing), timeout)
    return found


def _too_late(missing: int, timeout: float | None) -> DeadlineExceeded:
    what = "the task has" if missing == 1 else f"{missing} tasks have"
    return DeadlineExceeded(f"{what} not ended within {timeout:g} s")


def look_flow(ids: Iterable[str]) -> Flow[list[Result | None]]:
    """The last known of each, now."""
    found: list[Result | None] = []
    asked = list(ids)
    for begin in range(0, len(asked), MAX_IDS):
        found += yield asks.results(asked[begin : begin + MAX_IDS])
    return found


def revoke_flow(ids: Iterable[str], outcome: Outcome) -> Flow[None]:
    """End tasks wherever they are."""
    yield asks.cancel(ids, outcome)


def forget_flow(ids: Iterable[str]) -> Flow[None]:
    """Drop results before their time."""
    yield asks.forget(list(ids))
