"""What a forwarder asks of the broker, as generators (`tasks.flows`).

What an answer means:

* accepted, or a duplicate: the parcel is gone;
* unrouted, or refused with a reason: that message is kept here with the reason, and the broker is told to end it as
  failed, so that whoever waits for its result, or for what follows it, does not wait in vain;
* a request refused for what is in it (`BLAMED`): it is cut in halves until the parcel is found that is to blame, which
  is kept;
* anything else is thrown: the link, the broker, or the key. The same again is safe, as messages have ids.

Rule: no socket; the moment is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backwater_tornado.broker.values import Outcome, Publication
from backwater_tornado.errors import (
    BodyTooLarge,
    BodyUndecodable,
    InvalidArguments,
    MalformedBatch,
    MessageTooLarge,
    QueueNotInScope,
    TaskNotAccepted,
)
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.flows import Flow, send_flow

from .parcels import Kept, Taken, open_parcel, pack_parcel

#: What a request is refused with for something in it; it would be refused again.
BLAMED: Final = (
    BodyTooLarge,
    BodyUndecodable,
    InvalidArguments,
    MalformedBatch,
    MessageTooLarge,
    QueueNotInScope,
)
#: The broker knows another message of that id, which must not be ended.
_ANOTHERS: Final = "id_of_another_message"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the broker did not take: one publication, or all of a parcel."""

    kept: Kept
    publication: Publication | None = None


def publish_flow(parcels: Sequence[Taken], now: float) -> Flow[list[Refusal]]:
    """Hand parcels to the broker; gives what it does not take for good.

    Raises:
        CallFailed: it could not be asked, or not now.
    """
    try:
        orders = [open_parcel(each.parcel, now) for each in parcels]
        yield from send_flow(orders)
    except TaskNotAccepted as error:
        reasons: dict[str, str] = error.extra["refused"]
        return [
            Refusal(Kept(pack_parcel((), [each], taken.parcel.at), reasons[each.message.id]), each)
            for taken, order in zip(parcels, orders, strict=True)
            for each in order.publications
            if each.message.id in reasons
        ]
    except BLAMED as error:
        if len(parcels) == 1:
            return [Refusal(Kept(parcels[0].parcel, f"{error.code}: {error.detail}"))]
    else:
        return []
    middle = len(parcels) // 2
    refused = yield from publish_flow(parcels[:middle], now)
    refused += yield from publish_flow(parcels[middle:], now)
    return refused


def end_flow(refused: Sequence[Refusal]) -> Flow[None]:
    """Have what was refused end as failed, by its reason; what others wait for ends with it.

    A message that is cancelled before it comes is accepted, into no queue, and ends at once.
    """
    by_reason: dict[str, list[Publication]] = {}
    for each in refused:
        if each.publication is not None and each.kept.reason != _ANOTHERS:
            by_reason.setdefault(each.kept.reason, []).append(each.publication)
    for reason, publications in by_reason.items():
        yield asks.cancel([each.message.id for each in publications], Outcome(reason, failed=True))
        yield asks.publish(publications)
