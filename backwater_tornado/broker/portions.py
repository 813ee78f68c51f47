"""How much goes in one answer: what is handed out has to fit into it, or its receiver would be stuck for ever.

The store bounds what it hands out at once, and does not know how large an answer may be here. A batch that is too
large goes in portions. Its receiver confirms each by the highest token in it; the store, which knows of no portions,
gives the rest of the batch again, with what was confirmed, and that is left out here.

Rule: at least one in each portion; so no message may be larger than a portion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, TypeVar

import msgspec

from backwater_tornado.errors import MessageTooLarge

from .values import Batch, DeadLetter, Delivery, Message, Publication, Result, Settlement

H = TypeVar("H", Delivery, DeadLetter)

#: Bytes of results that come along with another's.
ALONG: Final = 32 << 10


def size_of(message: Message) -> int:
    """Bytes of its headers and body."""
    return len(message.body) + len(message.headers)


def check_sizes(publications: Iterable[Publication], largest: int) -> None:
    """Raise `MessageTooLarge` for the first that could not be handed out."""
    _check((each.message for each in publications), largest)


def check_settled(settlements: Iterable[Settlement], largest: int) -> None:
    """As `check_sizes`, for what settlements publish and put in another's place."""
    for settlement in settlements:
        then = (each.message for each in settlement.then)
        _check(then if settlement.replacement is None else chain(then, [settlement.replacement]), largest)


def _check(messages: Iterable[Message], largest: int) -> None:
    for message in messages:
        if size_of(message) > largest:
            raise MessageTooLarge(f"{message.id[:100]!r} has {size_of(message)} bytes; {largest} at most")


def portion(batch: Batch, confirmed: int, largest: int) -> Batch:
    """What fits of a batch, beyond what its receiver has."""
    left = [each for each in batch.deliveries if each.token > confirmed]
    fitting = fit(left, largest)
    if len(fitting) == len(left):
        return batch if len(left) == len(batch.deliveries) else msgspec.structs.replace(batch, deliveries=tuple(left))
    return msgspec.structs.replace(batch, number=fitting[-1].token, deliveries=tuple(fitting))


def fit(holders: Sequence[H], largest: int) -> Sequence[H]:
    """The first of them that fit, at least one."""
    room = largest
    for place, each in enumerate(holders):
        room -= size_of(each.message)
        if room < 0 and place:
            return holders[:place]
    return holders


def fit_results(found: Sequence[Result | None], largest: int) -> list[Result | None]:
    """Those that fit, final ones first, and at least one; the others are None, and may be asked for again."""
    known = [(place, result) for place, result in enumerate(found) if result is not None]
    known.sort(key=lambda each: not each[1].final)
    fitting: list[Result | None] = [None] * len(found)
    room = largest
    for place, result in known:
        room -= len(result.outcome.body)
        if room < 0 and place != known[0][0]:
            break
        fitting[place] = result
    return fitting


def fit_small(found: Sequence[Result | None]) -> list[Result | None]:
    """The final ones that fit into what nobody minds to get along with something else; the others are None."""
    fitting: list[Result | None] = [None] * len(found)
    room = ALONG
    for place, result in enumerate(found):
        if result is not None and result.final and len(result.outcome.body) <= room:
            room -= len(result.outcome.body)
            fitting[place] = result
    return fitting
