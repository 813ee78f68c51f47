"""What lies in an outbox: an order as it was sent, with the moment of it.

An order is one parcel, so that joins travel with what they wait for. Its spans (`delay`, `lifetime`) begin when it is
sent, and not when it is forwarded: what has passed by then is taken off them.

Rule: pure; moments are given, Unix seconds by the sender's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from backwater_tornado.broker.values import Join, Publication, pack, unpack
from backwater_tornado.tasks.workflow import Order


@dataclass(frozen=True, slots=True)
class Parcel:
    """An order, packed."""

    #: Of its first message.
    id: str
    #: The queues (or exchanges) that its messages go to: what others for the same must not overtake.
    queues: tuple[str, ...]
    messages: int
    body: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parcel lies, and what has to be known of it to choose it; bytes."""

    number: int
    queues: tuple[str, ...]
    messages: int
    size: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A parcel that is about to be forwarded."""

    number: int
    parcel: Parcel
    #: When it was taken for the first time: it may have arrived since then. None: it never was.
    tried: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the broker does not take, and why."""

    parcel: Parcel
    reason: str


def make_parcels(orders: Iterable[Order], at: float) -> list[Parcel]:
    """Orders as parcels; those with nothing in them are left out."""
    return [pack_parcel(each.joins, each.publications, at) for each in orders if each.publications]


def pack_parcel(joins: Sequence[Join], publications: Sequence[Publication], at: float) -> Parcel:
    """Joins and publications as a parcel; there is at least one publication."""
    queues = dict.fromkeys(target(each) for each in publications)
    return Parcel(publications[0].message.id, tuple(queues), len(publications), pack((joins, publications)), at)


def open_parcel(parcel: Parcel, now: float) -> Order:
    """The order in a parcel, as it has to be published now; raises `BodyUndecodable`."""
    joins, publications = unpack(parcel.body, tuple[tuple[Join, ...], tuple[Publication, ...]])
    passed = max(now - parcel.at, 0.0)  # a clock that was set back has nothing begin earlier
    return Order(tuple(_shortened(each, passed) for each in publications), joins, None, ())


def target(publication: Publication) -> str:
    """By what the order of publications is kept."""
    return publication.exchange or publication.routing_key


def _shortened(publication: Publication, passed: float) -> Publication:
    delay, lifetime = publication.delay, publication.lifetime
    if not delay and lifetime is None:
        return publication
    left = None if lifetime is None else max(lifetime - passed, 0.0)
    return replace(publication, delay=max(delay - passed, 0.0), lifetime=left)
