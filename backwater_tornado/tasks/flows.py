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
    CallFailed,
    DeadlineExceeded,
    OutcomeUnknown,
    TaskNotAccepted,
)

from . import asks
from .asks import Ask
from .companions import Companions
from .workflow import Order

T = TypeVar("T")
Flow = Generator["Ask[Any] | Nap", Any, T]

#: Messages in one request, and bytes of them: what the broker's limits on a request take with ease.
MAX_MESSAGES, MAX_BYTES = 2_000, 2 << 20
#: Ids in one request.
MAX_IDS = 500
#: The longest pause between two attempts while the link is down, seconds.
MAX_NAP = 2.0
#: How much longer than its caller has an ask may take, seconds: so that its answer, due in the last moment, arrives.
GRACE = 1.0


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


def _portions(orders: Sequence[Order]) -> Iterator[tuple[list[Join], list[Publication]]]:
    """As much as fits into a request; what a message is counted for is there before it."""
    joins: list[Join] = []
    portion: list[Publication] = []
    size = 0
    for order in orders:
        parts: tuple[Join | Publication, ...] = (*order.joins, *order.publications)
        for each in parts:
            weight = _weight(each)
            if (joins or portion) and (len(joins) + len(portion) >= MAX_MESSAGES or size + weight > MAX_BYTES):
                yield joins, portion
                joins, portion, size = [], [], 0
            if isinstance(each, Join):
                joins.append(each)
            else:
                portion.append(each)
            size += weight
    if joins or portion:
        yield joins, portion


def _weight(each: Join | Publication) -> int:
    """Bytes, more or less."""
    if isinstance(each, Join):
        return sum(map(_weight, (*each.then, *(each.otherwise or ()))))
    return len(each.message.body) + len(each.message.headers) + 256


def wait_flow(
    ids: Iterable[str],
    timeout: float | None,
    wait: float,
    clock: Callable[[], float],
    companions: Companions | None = None,
) -> Flow[dict[str, Result]]:
    """The final results of all these, by id.

    Several are looked at in as few requests as they need, and then the last is waited for: it mostly ends last.

    Args:
        timeout: seconds; None: as long as it takes. A link that is down is waited for.
        wait: how long one ask may wait, seconds.
        clock: seconds, monotonic.
        companions: asked for along with the one that is waited for.

    Raises:
        DeadlineExceeded: not all were final in time.
    """
    until = None if timeout is None else clock() + timeout
    missing = dict.fromkeys(ids)
    found: dict[str, Result] = {}
    while missing:
        if len(missing) > 1:
            look = yield from _look(list(missing), lambda portion: _ask_results(portion, 0.0, until, clock))
            _move(look, missing, found)
        if missing:
            beside = [] if companions is None else companions.choose()
            last, *others = yield from _ask_results([next(reversed(missing))], wait, until, clock, beside)
            _move([last], missing, found)
            if companions is not None:
                companions.note(beside, others)
        if missing and until is not None and clock() >= until:
            raise _too_late(len(missing))
    return found


def completed_flow(
    ids: Iterable[str], timeout: float | None, wait: float, clock: Callable[[], float]
) -> Flow[dict[str, Result]]:
    """The final results of those that have ended, by id, as soon as one has; arguments and errors as `wait_flow`."""
    until = None if timeout is None else clock() + timeout
    missing = dict.fromkeys(ids)
    found: dict[str, Result] = {}
    portions = list(_slices(list(missing)))
    while missing and not found:
        for portion in portions[:-1]:
            _move((yield from _ask_results(portion, 0.0, until, clock)), missing, found)
        patience = 0.0 if found else wait if len(portions) == 1 else min(wait, MAX_NAP)
        _move((yield from _ask_results(portions[-1], patience, until, clock)), missing, found)
        if not found and until is not None and clock() >= until:
            raise _too_late(len(missing))
    return found


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[begin : begin + MAX_IDS] for begin in range(0, len(ids), MAX_IDS))


def _move(answers: Iterable[Result | None], missing: dict[str, None], found: dict[str, Result]) -> None:
    """What is final is missing no more."""
    for answer in answers:
        if answer is not None and answer.final:
            found[answer.id] = answer
            del missing[answer.id]


def _ask_results(
    ids: Sequence[str], wait: float, until: float | None, clock: Callable[[], float], beside: Sequence[str] = ()
) -> Flow[list[Result | None]]:
    """Ask until the link lets an answer through; raises `DeadlineExceeded` if that is not in time."""
    failures = 0
    while True:
        longest, within = wait, None
        if until is not None:
            left = max(until - clock(), 0.0)
            longest, within = min(wait, left), left + GRACE
        try:
            answers: list[Result | None] = yield asks.results(ids, longest, within, beside)
        except CallFailed as error:
            if not (error.retryable or isinstance(error, OutcomeUnknown | DeadlineExceeded)):
                raise
            left = MAX_NAP if until is None else until - clock()
            if left <= 0:
                raise DeadlineExceeded("the broker could not be asked in time") from error
            failures += 1
            yield Nap(min(MAX_NAP, left, 0.05 * 2 ** min(failures, 6)))
        else:
            return answers


def _too_late(missing: int) -> DeadlineExceeded:
    return DeadlineExceeded(
        "the task has not ended in time" if missing == 1 else f"{missing} tasks have not ended in time"
    )


def look_flow(ids: Iterable[str]) -> Flow[list[Result | None]]:
    """The last known of each, now."""
    return (yield from _look(list(ids), _ask_once))


def _ask_once(ids: Sequence[str]) -> Flow[list[Result | None]]:
    found: list[Result | None] = yield asks.results(ids)
    return found


def _look(ids: Sequence[str], ask: Callable[[Sequence[str]], Flow[list[Result | None]]]) -> Flow[list[Result | None]]:
    """Of each what is known; None is asked for again as long as more comes: it may just not have fitted in."""
    found: dict[str, Result] = {}
    for portion in _slices(ids):
        asked, known = portion, -1
        while asked and known < len(found):
            known = len(found)
            found |= {each.id: each for each in (yield from ask(asked)) if each is not None}
            asked = [each for each in asked if each not in found]
    return [found.get(each) for each in ids]


def revoke_flow(ids: Iterable[str], outcome: Outcome) -> Flow[None]:
    """End tasks wherever they are."""
    for portion in _slices(list(ids)):
        yield asks.cancel(portion, outcome)


def forget_flow(ids: Iterable[str]) -> Flow[None]:
    """Drop results before their time."""
    for portion in _slices(list(ids)):
        yield asks.forget(portion)
