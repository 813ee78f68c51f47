"""Orders as parcels: nothing is lost on the way, and spans go on while they lie there."""

from __future__ import annotations

import pytest

from backwater_tornado.broker.values import Join, Message, Publication
from backwater_tornado.errors import BodyUndecodable
from backwater_tornado.outbox.parcels import Parcel, make_parcels, open_parcel, pack_parcel
from backwater_tornado.tasks.signatures import Canvas, chain, group, signature
from backwater_tornado.tasks.workflow import Context, Order, plan_canvas

A = signature("m.a", queue="a")
B = signature("m.b", queue="b")
NOW = 1000.0


def order(canvas: Canvas) -> Order:
    numbers = iter(range(100))
    return plan_canvas(canvas, Context(now=NOW, new_id=lambda: f"id{next(numbers)}"))


def test_a_parcel_tells_where_it_goes_and_gives_back_what_was_put_in() -> None:
    sent = order(group(A, B, A) | B)
    (parcel,) = make_parcels([sent], NOW)
    assert (parcel.id, parcel.queues, parcel.messages, parcel.at) == ("id1", ("a", "b"), 3, NOW)
    opened = open_parcel(parcel, NOW)
    assert (opened.publications, opened.joins) == (sent.publications, sent.joins)
    assert sent.joins


def test_what_goes_through_an_exchange_is_in_the_order_of_that() -> None:
    publication = Publication(Message("1", b""), "key", "exchange")
    assert pack_parcel((), [publication], NOW).queues == ("exchange",)


def test_nothing_is_no_parcel() -> None:
    assert make_parcels([order(group()), order(A)], NOW)[0].queues == ("a",)
    assert make_parcels([order(group())], NOW) == []


@pytest.mark.parametrize(
    ("options", "passed", "delay", "lifetime"),
    [
        ({"countdown": 10}, 4.0, 6.0, None),
        ({"countdown": 10}, 10.0, 0.0, None),
        ({"countdown": 10, "expires": 30}, 20.0, 0.0, 10.0),
        ({"expires": 30}, 31.0, 0.0, 0.0),
        ({"countdown": 10, "expires": 30}, -5.0, 10.0, 30.0),
        ({}, 50.0, 0.0, None),
    ],
)
def test_spans_begin_when_it_is_sent(
    options: dict[str, float], passed: float, delay: float, lifetime: float | None
) -> None:
    (parcel,) = make_parcels([order(signature("m.a", **options))], NOW)
    (publication,) = open_parcel(parcel, NOW + passed).publications
    assert (publication.delay, publication.lifetime) == (delay, lifetime)


def test_what_follows_begins_its_spans_when_it_is_published() -> None:
    (parcel,) = make_parcels([order(chain(A, signature("m.b", countdown=10)))], NOW)
    (join,) = open_parcel(parcel, NOW + 60).joins
    assert [each.delay for each in join.then] == [10.0]
    assert isinstance(join, Join)


def test_what_is_no_parcel_is_told() -> None:
    with pytest.raises(BodyUndecodable):
        open_parcel(Parcel("1", ("a",), 1, b"\xc1", NOW), NOW)
