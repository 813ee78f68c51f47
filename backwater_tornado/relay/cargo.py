"""What goes away and what comes home: a delivery of the near broker as a publication at the far one, and back.

A message goes under its own id, so that it is there once however often it is published. What belongs to the near broker
stays there: its joins, its moments (by the near broker's clock, which may be another than the far one's: what is left
of its lifetime goes with it as a span), and its exchange. Headers and body go as they are. Only a task that comes after
others is told here of their results, which the far broker does not have.

Rule: pure; moments are given, on the relay's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from backwater_tornado.broker.values import (
    DEFAULT_EXCHANGE,
    Delivery,
    Message,
    Outcome,
    Publication,
    Published,
    PublishState,
    Result,
    Settlement,
    Verdict,
)
from backwater_tornado.errors import CallFailed
from backwater_tornado.tasks.messages import TaskHeaders, encode_headers, read_headers
from backwater_tornado.worker.deliveries import arguments_of, needs_of, returned

#: How long the far broker keeps an outcome that is not taken home, seconds: longer than a link is away.
KEEP: Final = 30 * 86_400.0
#: After so long a message that the far broker's queue has no room for is tried again, seconds.
FULL_PAUSE: Final = 10.0


@dataclass(slots=True, eq=False)
class Away:
    """One delivery of the near broker, from its arrival until that is told how it ended."""

    #: Of its lease.
    token: int
    #: Of the message at the far broker.
    id: str
    #: Its end is waited for.
    is_awaited: bool
    #: The delivery, until the far broker has it.
    delivery: Delivery | None
    #: What is published; None: it waits for results that it needs, or the far broker has it.
    publication: Publication | None = None
    #: When it expires, on the relay's own clock; None: never.
    expires: float | None = None
    #: This relay has tried to hand it over.
    is_tried: bool = False
    #: Since when the far broker has it, on the relay's own clock.
    since: float = 0.0
    #: The moment of what was last said of it, by the far broker's clock.
    heard: float | None = None
    #: Somebody has cancelled it.
    is_cancelled: bool = False
    #: How it ended is known.
    is_home: bool = False
    #: The near broker is being told.
    is_ended: bool = False


def take(delivery: Delivery, skew: float) -> Away:
    """A delivery that has come.

    Args:
        skew: the relay's clock less the near broker's, seconds.
    """
    message = delivery.message
    expires = None if message.expires is None else message.expires + skew
    return Away(delivery.token, _far_id(delivery), _is_awaited(message), delivery, expires=expires)


def _far_id(delivery: Delivery) -> str:
    """Its own; what came through an exchange may be in several queues, and each copy is a message of its own there."""
    if delivery.exchange == DEFAULT_EXCHANGE:
        return delivery.message.id
    return f"{delivery.message.id}@{delivery.queue}"


def _is_awaited(message: Message) -> bool:
    return message.keep_result is not None or bool(message.joins) or message.unique is not None


def is_worn(delivery: Delivery) -> bool:
    """Whether relays that were lost are counted against it, so that it would count as deadly in the end."""
    return delivery.count > 1


def renewed(delivery: Delivery) -> Settlement:
    """Let it come anew, as one that was never handed out."""
    return Settlement(delivery.token, Verdict.REQUEUE, replacement=delivery.message)


def needs(delivery: Delivery) -> tuple[str, ...]:
    """The ids of the results that have to be known before it can go."""
    headers = _headers(delivery.message)
    return () if headers is None else needs_of(headers)


def _headers(message: Message) -> TaskHeaders | None:
    """Those of a task; of any other message none."""
    try:
        return read_headers(message)
    except CallFailed:
        return None


def load(delivery: Delivery, queue: str, results: Mapping[str, Result | None]) -> Publication | Settlement:
    """What is published for a delivery, with the results that it needs; or how it ends where one of them failed."""
    message = delivery.message
    headers = _headers(message)
    if headers is not None and (headers.upstream_failed or results):
        body = arguments_of(delivery, headers, results)
        if isinstance(body, Settlement):
            return body
        message = replace(message, body=body, headers=encode_headers(replace(headers, inputs=None)))
    kept = KEEP if _is_awaited(message) else None
    message = replace(message, id=_far_id(delivery), joins=(), not_before=None, expires=None, keep_result=kept)
    return Publication(message, queue)


def depart(away: Away, now: float) -> Publication:
    """What is published now, with what is left of its lifetime."""
    assert away.publication is not None
    away.is_tried = True
    return replace(away.publication, lifetime=None if away.expires is None else max(away.expires - now, 0.0))


def refusal(away: Away, published: Published) -> Settlement | None:
    """How it ends if the far broker did not take it; None: it did."""
    if published.state in (PublishState.ACCEPTED, PublishState.DUPLICATE):
        return None
    if published.reason == "queue_full":
        return returned(away.token, FULL_PAUSE)
    reason = published.reason or published.state.value
    return Settlement(away.token, Verdict.REJECT, Outcome(reason, failed=True), reason=f"the far broker: {reason}")


def arrival(away: Away, result: Result) -> Settlement | None:
    """What the near broker is told of a result; None: nothing that it does not know."""
    if result.final:
        away.is_home = True
        return Settlement(away.token, outcome=result.outcome)
    if result.at == away.heard:
        return None
    away.heard = result.at
    return Settlement(away.token, Verdict.KEEP, result.outcome)
