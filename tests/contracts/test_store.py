"""What every store does with topology, publications, deliveries and sessions; the rest is in `test_store_ends`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest

from backwater_tornado.broker.store import BATCH_BYTES
from backwater_tornado.broker.values import (
    Binding,
    Delivery,
    Effects,
    Exchange,
    Message,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    Settlement,
    SettleState,
    Verdict,
)
from backwater_tornado.errors import (
    DeclarationConflict,
    SessionGone,
    SessionTaken,
    UnknownExchange,
    UnknownQueue,
)
from tests.stores import OK, START, Hand, publication

MakeStore = Callable[..., Hand]
DUPLICATE, ACCEPTED, UNROUTED = PublishState.DUPLICATE, PublishState.ACCEPTED, PublishState.UNROUTED


def refused(reason: str) -> Published:
    return Published(PublishState.REFUSED, reason=reason)  # type: ignore[arg-type]


# Topology ------------------------------------------------------------------------------------------------------------


def test_declaring_again_changes_nothing(hand: Hand) -> None:
    things = (Exchange("x", "topic"), Queue("q"), Binding("x", "q", "a.*"))
    hand.declare(*things)
    hand.put("1")
    hand.declare(*things)
    assert hand.store.exchanges() == [Exchange("x", "topic")]
    assert hand.store.bindings() == [Binding("x", "q", "a.*")]
    assert hand.ids() == ["1"]


def test_topology_is_listed_in_order(hand: Hand) -> None:
    names = [Exchange("z"), Exchange("y", "fanout"), Queue("p")]
    bindings = [Binding("z", "q", "b"), Binding("z", "q", "a"), Binding("y", "q"), Binding("z", "p", "c")]
    hand.declare(*names, *bindings)
    assert hand.store.exchanges() == [Exchange("y", "fanout"), Exchange("z")]
    assert hand.store.bindings() == [
        Binding("y", "q"),
        Binding("z", "p", "c"),
        Binding("z", "q", "a"),
        Binding("z", "q", "b"),
    ]
    assert [stats.queue.name for stats in hand.store.stats(None, hand.now)] == ["p", "q"]


@pytest.mark.parametrize(
    ("thing", "error"),
    [
        (Exchange("x", "fanout"), DeclarationConflict),
        (Exchange("x", auto_delete=True), DeclarationConflict),
        (Exchange(""), DeclarationConflict),
        (Binding("y", "q"), UnknownExchange),
        (Binding("", "q"), UnknownExchange),
        (Binding("x", "r"), UnknownQueue),
        (Queue("q", exclusive="s"), DeclarationConflict),
        (Queue("mine"), DeclarationConflict),
        (Queue("mine", exclusive="t"), DeclarationConflict),
        (Queue("r", exclusive="nobody"), SessionGone),
    ],
)
def test_a_declaration_that_cannot_be_made_makes_nothing(
    hand: Hand, thing: Exchange | Queue | Binding, error: type[Exception]
) -> None:
    hand.open("t")
    hand.declare(Exchange("x"), Queue("mine", exclusive="s"))
    with pytest.raises(error):
        hand.declare(Queue("new"), Exchange("new"), thing)
    assert hand.store.stats(["new"], hand.now) == []
    assert hand.store.exchanges() == [Exchange("x")]


def test_a_binding_may_come_with_what_it_binds(hand: Hand) -> None:
    hand.declare(Exchange("x"), Queue("r"), Binding("x", "r", "k"))
    assert hand.send(publication("1", "k", "x")) == [Published(ACCEPTED, ("r",))]


def test_limits_are_changed_by_a_declaration_and_messages_stay(hand: Hand) -> None:
    hand.put("1", "2", "3")
    hand.queue(max_running=1, max_length=2, overflow="refuse")
    assert hand.ids() == ["1"]
    assert hand.send(publication("4")) == [refused("queue_full")]
    assert hand.stats().queue == Queue("q", max_running=1, max_length=2)


def test_deleting_a_queue_drops_what_waits_and_its_bindings(hand: Hand) -> None:
    hand.declare(Exchange("x"), Binding("x", "q", "k"))
    hand.put("1", "2")
    hand.put("3", not_before=START + 5)
    assert hand.delete(Queue("q")) == 3
    assert hand.store.bindings() == []
    assert hand.send(publication("4")) == [Published(UNROUTED)]
    hand.queue()
    hand.later(10)
    assert hand.ids() == []
    assert hand.send(publication("1")) == [Published(DUPLICATE, ("q",))]


def test_deleting_what_is_not_there_is_no_error(hand: Hand) -> None:
    assert hand.delete(Queue("r"), Exchange("x"), Binding("x", "q")) == 0
    hand.declare(Exchange("x"))
    assert hand.delete(Binding("x", "q")) == 0


def test_an_exchange_and_a_binding_are_deleted_by_name(hand: Hand) -> None:
    hand.declare(Exchange("x", "topic"), Binding("x", "q", "a"), Binding("x", "q", "b"))
    hand.delete(Binding("x", "q", "a"))
    assert hand.send(publication("1", "a", "x"), publication("2", "b", "x")) == [
        Published(UNROUTED),
        Published(ACCEPTED, ("q",)),
    ]
    hand.delete(Exchange("x"))
    assert (hand.store.exchanges(), hand.store.bindings()) == ([], [])
    assert hand.send(publication("3", "b", "x")) == [refused("unknown_exchange")]


def test_an_auto_delete_exchange_goes_with_its_last_binding_however_that_goes(hand: Hand) -> None:
    hand.declare(Exchange("x", auto_delete=True), Queue("r"), Binding("x", "q", "a"), Binding("x", "r", "b"))
    hand.delete(Binding("x", "q", "a"))
    assert hand.store.exchanges() == [Exchange("x", auto_delete=True)]
    hand.delete(Queue("r"))
    assert hand.store.exchanges() == []


def test_purging_drops_what_waits_and_leaves_what_runs(hand: Hand) -> None:
    hand.put("1", "2")
    running = hand.one()
    hand.put("3", not_before=START + 5)
    assert hand.purge() == 2
    assert hand.counts() == (0, 0, 1, 0)
    assert hand.settle(running) is SettleState.DONE
    hand.later(10)
    assert hand.ids() == []
    with pytest.raises(UnknownQueue):
        hand.purge("r")


# Publishing ----------------------------------------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_published(hand: Hand) -> None:
    hand.declare(Exchange("x", "topic"), Binding("x", "q", "#"))
    message = Message("1", b"body", b"headers", "application/json", "zstd", priority=3, unique="u", keep_result=9.0)
    hand.put("0")
    hand.now += 1
    hand.send(Publication(message, "a.b", "x"))
    first, second = hand.take()
    assert first == Delivery(first.token, "q", message, "x", "a.b", 1, START + 1)
    assert second == Delivery(second.token, "q", Message("0", b"0"), "", "q", 1, START)


def test_each_publication_of_a_batch_has_its_own_answer_in_order(hand: Hand) -> None:
    hand.declare(Queue("small", max_length=1), Queue("r"))
    answers = hand.send(
        publication("1"),
        publication("2", "nowhere"),
        publication("3", "q", "no exchange"),
        publication("4", "small"),
        publication("5", "small"),
        publication("1"),
        publication("6", "r"),
    )
    assert answers == [
        Published(ACCEPTED, ("q",)),
        Published(UNROUTED),
        refused("unknown_exchange"),
        Published(ACCEPTED, ("small",)),
        refused("queue_full"),
        Published(DUPLICATE, ("q",)),
        Published(ACCEPTED, ("r",)),
    ]
    assert hand.effects.queues == {"q", "small", "r"}
    assert hand.ids("s", "q", "small", "r") == ["1", "4", "6"]


def test_a_repeated_publication_does_nothing_whatever_has_become_of_the_first(hand: Hand) -> None:
    again = [Published(DUPLICATE, ("q",))]
    hand.put("1")
    assert hand.send(publication("1")) == again
    assert hand.effects == Effects()
    delivery = hand.one()
    assert hand.send(publication("1")) == again
    hand.settle(delivery)
    assert hand.send(publication("1")) == again
    assert hand.ids() == []
    assert hand.stats().published == 1


def test_a_repetition_may_have_new_times_and_another_priority(hand: Hand) -> None:
    hand.put("1", not_before=START + 5, expires=START + 9)
    again = publication("1", not_before=START + 6, expires=START + 10, priority=4)
    assert hand.send(again) == [Published(DUPLICATE, ("q",))]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    "other",
    [
        publication("1", body=b"other"),
        publication("1", headers=b"other"),
        publication("1", content_type="other"),
        publication("1", content_encoding="other"),
        publication("1", "r"),
        publication("1", "q", "x"),
    ],
)
def test_an_id_of_another_message_is_refused(hand: Hand, other: object, ended: bool) -> None:
    hand.queue("r")
    hand.put("1")
    if ended:
        hand.settle(hand.one())
    assert hand.send(other) == [refused("id_of_another_message")]  # type: ignore[arg-type]


def test_an_id_is_free_when_it_was_refused_or_unrouted(hand: Hand) -> None:
    hand.queue("r", max_length=0)
    hand.send(publication("1", "nowhere"), publication("2", "r"), publication("3", "q", "no exchange"))
    hand.put("1", "2", "3", body=b"other")


def test_an_id_is_remembered_for_its_span_after_its_end(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.queue()
    hand.open(ttl=1000.0)
    hand.put("1")
    hand.later(200)
    delivery = hand.one()
    hand.later(200)
    hand.settle(delivery)
    hand.later(99)
    hand.reopen()
    assert hand.send(publication("1")) == [Published(DUPLICATE, ("q",))]
    assert hand.settle(delivery) is SettleState.DONE
    hand.later(2)
    assert hand.settle(delivery) is SettleState.STALE
    hand.put("1", body=b"other")


def test_an_id_among_the_dead_is_remembered_as_long_as_it_is_there(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.queue()
    hand.open()
    hand.put("1")
    hand.settle(hand.one(), Verdict.REJECT)
    hand.later(200)
    assert hand.send(publication("1")) == [Published(DUPLICATE, ("q",))]
    hand.drop(*hand.numbers())
    hand.later(99)
    assert hand.send(publication("1")) == [Published(DUPLICATE, ("q",))]
    hand.later(2)
    hand.put("1")


def test_an_id_is_remembered_while_one_of_its_copies_is_among_the_dead(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.open()
    hand.declare(Queue("q"), Queue("r"), Exchange("x", "fanout"), Binding("x", "q"), Binding("x", "r"))
    hand.put("1", exchange="x")
    hand.settle(hand.one("s", "q"), Verdict.REJECT)
    hand.settle(hand.one("s", "r"))
    hand.later(200)
    assert hand.send(publication("1", exchange="x"))[0].state is DUPLICATE
    assert hand.replay(*hand.numbers()) == 1
    assert hand.counts() == (1, 0, 0, 0)


def test_a_fanout_is_one_message_in_each_queue_and_each_is_settled_by_itself(hand: Hand) -> None:
    hand.declare(Exchange("x", "fanout"), Queue("r"), Binding("x", "q", "a"), Binding("x", "r"), Binding("x", "q", "b"))
    (published,) = hand.send(publication("1", "whatever", "x"))
    assert published.state is ACCEPTED
    assert sorted(published.queues) == ["q", "r"]
    assert hand.effects.queues == {"q", "r"}
    first, second = hand.one("s", "q"), hand.one("s", "r")
    hand.settle(first)
    assert hand.counts("r") == (0, 0, 1, 0)
    hand.settle(second, Verdict.REQUEUE)
    assert hand.ids("s", "q") == []
    assert hand.ids("s", "r") == ["1"]


def test_a_publication_is_in_all_of_its_queues_or_in_none(hand: Hand) -> None:
    hand.declare(Exchange("x", "fanout"), Queue("r", max_length=0), Binding("x", "q"), Binding("x", "r"))
    assert hand.send(publication("1", "", "x")) == [refused("queue_full")]
    assert hand.ids("s", "q", "r") == []


def test_direct_and_topic_exchanges_route_by_key(hand: Hand) -> None:
    hand.declare(Exchange("d"), Exchange("t", "topic"), Queue("r"))
    hand.declare(Binding("d", "q", "a.*"), Binding("t", "r", "a.*"), Binding("t", "q", "#.z"))
    sent = hand.send(
        publication("1", "a.*", "d"),
        publication("2", "a.b", "d"),
        publication("3", "a.b", "t"),
        publication("4", "z", "t"),
    )
    assert [published.queues for published in sent] == [("q",), (), ("r",), ("q",)]


# Order ---------------------------------------------------------------------------------------------------------------


def test_higher_priorities_come_first_and_within_one_the_earlier(hand: Hand) -> None:
    for name, priority in [("a", 0), ("b", 5), ("c", 9), ("d", 5), ("e", 200), ("f", 0)]:
        hand.put(name, priority=priority)
    assert hand.ids() == ["c", "e", "b", "d", "a", "f"]


def test_a_priority_above_the_queues_counts_as_that(hand: Hand) -> None:
    hand.queue("r", max_priority=0)
    for name, priority in [("a", 0), ("b", 5), ("c", 9)]:
        hand.put(name, queue="r", priority=priority)
    delivered = hand.take("s", "r")
    assert [delivery.message.id for delivery in delivered] == ["a", "b", "c"]
    assert delivered[2].message.priority == 9


def test_what_comes_back_comes_back_to_its_old_place(hand: Hand) -> None:
    hand.put("1", "2", "3", "4")
    hand.put("0", priority=1)
    first, second, third = hand.take(credit=3)
    hand.settle(third, Verdict.REQUEUE)
    hand.settle(first, Verdict.REQUEUE)
    assert hand.effects.queues == {"q"}
    assert hand.ids() == ["0", "2", "3", "4"]
    assert hand.counts() == (0, 0, 5, 0)
    assert second.message.id == "1"


def test_credit_wants_and_preference_bound_a_batch(hand: Hand) -> None:
    hand.declare(Queue("r"))
    hand.put("1", "2", "3")
    hand.put("4", "5", "6", queue="r", priority=9)
    assert hand.ids(credit=0) == []
    batch = hand.poll(wants=(("r", 2), ("missing", 5), ("q", 5)), credit=3)
    assert [delivery.message.id for delivery in batch.deliveries] == ["4", "5", "1"]
    assert hand.poll(wants=(("r", 0), ("q", 1)), credit=5).deliveries[0].message.id == "2"


def test_many_that_end_while_they_wait_leave_the_others_in_order(hand: Hand) -> None:
    names = [str(number) for number in range(400)]
    for number, name in enumerate(names):
        hand.put(name, priority=number % 3)
    hand.cancel(*names[3:300])
    hand.cancel(*names[310:390])
    left = [*range(3), *range(300, 310), *range(390, 400)]
    assert hand.ids() == [str(number) for number in sorted(left, key=lambda number: (-(number % 3), number))]


def test_a_delayed_message_is_not_handed_out_before_it_is_due_and_then_in_its_place(hand: Hand) -> None:
    hand.put("late", not_before=START + 10)
    assert hand.effects.queues == set()
    hand.put("soon")
    assert hand.store.next_due(hand.now) == START + 10
    assert hand.counts() == (1, 1, 0, 0)
    hand.settle(hand.one())
    hand.put("later")
    hand.now += 9.9
    assert hand.store.sweep(hand.now) == Effects()
    hand.open()
    hand.now += 0.2
    assert hand.store.sweep(hand.now).queues == {"q"}
    assert hand.ids() == ["late", "later"]


def test_spans_are_counted_from_the_publication_by_the_stores_clock(hand: Hand) -> None:
    both = msgspec.structs.replace(
        publication("1", not_before=START + 90, expires=START + 91), delay=5.0, lifetime=20.0
    )
    then = msgspec.structs.replace(publication("2"), delay=3.0, lifetime=4.0)
    hand.send(both)
    assert hand.store.next_due(hand.now) == START + 5
    hand.now += 5
    first = hand.one()
    assert (first.message.not_before, first.message.expires) == (START + 5, START + 20)
    hand.now += 100
    hand.settle(first, then=(then,))
    assert hand.ids() == []
    hand.later(3.0)
    assert hand.store.next_due(hand.now) == START + 109
    assert hand.ids() == ["2"]


def test_after_a_break_of_the_broker_every_session_has_its_whole_time_again(hand: Hand) -> None:
    hand.put("1")
    held = hand.one()
    hand.now += 10_000
    hand.store.resume(hand.now)
    assert hand.later(29.9).queues == set()
    assert hand.settle(held) is SettleState.DONE
    hand.store.resume(hand.now)
    hand.later(30.1)
    with pytest.raises(SessionGone):
        hand.poll()


def test_what_is_due_is_received_before_it_is_swept(hand: Hand) -> None:
    hand.put("1", not_before=START + 10)
    hand.put("2", expires=START + 10)
    hand.now += 10
    assert hand.ids() == ["1"]
    assert hand.dead() == [("2", "expired")]


def test_a_requeue_with_a_delay_is_not_handed_out_before(hand: Hand) -> None:
    hand.put("1", "2")
    first = hand.one()
    hand.settle(first, Verdict.REQUEUE, delay=10.0)
    assert hand.counts() == (1, 1, 0, 0)
    assert hand.store.next_due(hand.now) == START + 10
    hand.later(10)
    assert hand.effects.queues == {"q"}
    again, other = hand.take()
    assert (again.message.id, again.count, other.count) == ("1", 2, 1)
    assert again.token > first.token


def test_a_replacement_takes_the_place_under_the_old_id(hand: Hand) -> None:
    hand.queue(max_deliveries=1)
    hand.put("1", "2")
    for attempt in range(4):
        delivery = hand.one()
        assert (delivery.message.id, delivery.count) == ("1", 1)
        replacement = Message("ignored", b"try %d" % attempt, priority=7, not_before=hand.now + 8)
        hand.settle(delivery, Verdict.REQUEUE, replacement=replacement, delay=5.0)
        hand.later(7)
        assert hand.counts() == (1, 1, 0, 0)
        hand.later(1)
    hand.put("3", priority=7)
    first, second, third = hand.take()
    assert [first.message.id, second.message.id, third.message.id] == ["1", "3", "2"]
    assert first.message == Message("1", b"try 3", priority=7, not_before=START + 32)
    assert hand.send(publication("1")) == [Published(DUPLICATE, ("q",))]


# Limits --------------------------------------------------------------------------------------------------------------


def test_a_message_expires_while_it_waits_but_not_while_it_runs(hand: Hand) -> None:
    hand.put("1", "2", expires=START + 10)
    hand.put("3", expires=START + 10, not_before=START + 20)
    running = hand.one()
    assert hand.store.next_due(hand.now) == START + 10
    hand.later(10)
    assert sorted(hand.dead()) == [("2", "expired"), ("3", "expired")]
    assert hand.settle(running) is SettleState.DONE


def test_a_message_that_comes_back_too_late_expires(hand: Hand) -> None:
    hand.put("1", expires=START + 10)
    running = hand.one()
    hand.later(15)
    hand.settle(running, Verdict.REQUEUE)
    assert hand.ids() == []
    hand.later(0)
    assert hand.dead() == [("1", "expired")]


def test_a_queues_ttl_counts_from_when_a_message_is_due(hand: Hand) -> None:
    hand.queue(message_ttl=10.0)
    hand.put("1")
    hand.put("2", not_before=START + 5)
    hand.put("3", expires=START + 7)
    hand.later(6)
    hand.later(3)
    assert hand.dead() == [("3", "expired")]
    hand.later(2)
    assert hand.dead() == [("3", "expired"), ("1", "expired")]
    hand.later(4)
    assert [name for name, _ in hand.dead()] == ["3", "1", "2"]


def test_a_queue_that_keeps_no_dead_drops_them(hand: Hand) -> None:
    hand.queue(keep_dead=False, max_deliveries=1, message_ttl=10.0)
    hand.put("1", "2", "3", "4", keep_result=100.0)
    hand.settle(hand.one(), Verdict.REJECT)
    hand.settle(hand.one(), Verdict.PARK)
    hand.settle(hand.one(), Verdict.REQUEUE)
    hand.later(10)
    assert hand.dead() == []
    assert [hand.state(name) for name in "1234"] == ["rejected", "parked", "max_deliveries", "expired"]


def test_an_unused_queue_expires(hand: Hand) -> None:
    hand.queue("r", expires=10.0)
    hand.put("1", queue="r", keep_result=100.0)
    hand.later(9)
    hand.queue("r", expires=10.0)
    assert hand.store.next_due(hand.now) == START + 19
    hand.later(9)
    assert hand.counts("r") == (1, 0, 0, 0)
    hand.later(1)
    assert hand.store.stats(["r"], hand.now) == []
    assert hand.state("1") == "dropped"


def test_a_queue_with_a_receiver_does_not_expire(hand: Hand) -> None:
    hand.queue("r", expires=10.0)
    hand.poll("s", "r")
    hand.later(25)
    assert hand.stats("r").sessions == 1
    hand.close()
    hand.later(9)
    assert hand.stats("r").sessions == 0
    hand.later(1)
    assert hand.store.stats(["r"], hand.now) == []


@pytest.mark.parametrize("close", [False, True])
def test_an_exclusive_queue_is_one_sessions_and_goes_with_it(hand: Hand, close: bool) -> None:
    hand.open("t", ttl=100.0)
    hand.queue("mine", exclusive="s")
    hand.put("1", queue="mine")
    assert hand.ids("t", "mine") == []
    assert hand.ids("s", "mine") == ["1"]
    hand.queue("mine", exclusive="s")
    hand.close() if close else hand.later(30)
    assert hand.store.stats(["mine"], hand.now) == []


def test_a_name_that_was_exclusive_is_anybodys_afterwards(hand: Hand) -> None:
    hand.queue("mine", exclusive="s")
    hand.delete(Queue("mine"))
    hand.queue("mine")
    hand.put("1", queue="mine")
    hand.close()
    assert hand.counts("mine") == (1, 0, 0, 0)


def test_a_session_lives_as_long_as_it_said_last(hand: Hand) -> None:
    hand.poll()
    hand.open(ttl=100.0)
    hand.poll()
    hand.later(99)
    hand.poll()
    hand.open(ttl=10.0)
    hand.poll()
    hand.later(10)
    with pytest.raises(SessionGone):
        hand.poll()


def test_an_auto_delete_queue_goes_with_its_last_receiver(hand: Hand) -> None:
    hand.open("t")
    hand.queue("r", auto_delete=True)
    hand.later(1)
    hand.put("1", queue="r")
    hand.poll("s", "r", credit=0)
    hand.poll("t", "r", credit=0)
    assert hand.stats("r").sessions == 2
    hand.close("s")
    assert hand.counts("r") == (1, 0, 0, 0)
    hand.close("t")
    assert hand.store.stats(["r"], hand.now) == []


def test_a_queue_without_a_receiver_yet_is_not_auto_deleted(hand: Hand) -> None:
    hand.queue("r", auto_delete=True)
    hand.close()
    hand.later(1000)
    assert hand.counts("r") == (0, 0, 0, 0)


def test_a_queue_made_anew_has_none_of_the_receivers_of_the_old(hand: Hand) -> None:
    hand.queue("r", auto_delete=True)
    hand.poll("s", "r", credit=0)
    hand.delete(Queue("r"))
    hand.queue("r", auto_delete=True)
    assert hand.stats("r").sessions == 0
    hand.close("s")
    assert hand.counts("r") == (0, 0, 0, 0)
    hand.open("t")
    for _ in range(2):
        hand.poll("t", "r", credit=0)
        assert hand.stats("r").sessions == 1
        hand.delete(Queue("r"))
        hand.queue("r", auto_delete=True)


def test_a_full_queue_refuses(hand: Hand) -> None:
    hand.queue(max_length=2)
    hand.put("1")
    hand.put("2", not_before=START + 5)
    assert hand.send(publication("3")) == [refused("queue_full")]
    running = hand.one()
    hand.put("4")
    hand.settle(running, Verdict.REQUEUE)
    assert hand.counts() == (2, 1, 0, 0)


def test_a_full_queue_drops_what_would_be_received_next(hand: Hand) -> None:
    hand.queue(max_length=2, overflow="drop_head")
    hand.put("1")
    hand.put("2", priority=5)
    hand.put("3")
    assert hand.dead() == [("2", "dropped")]
    hand.put("4", priority=9)
    assert hand.dead() == [("2", "dropped"), ("1", "dropped")]
    assert hand.ids() == ["4", "3"]


def test_a_full_queue_of_delayed_messages_drops_the_next_due(hand: Hand) -> None:
    hand.queue(max_length=2, overflow="drop_head")
    hand.put("1", not_before=START + 9)
    hand.put("2", not_before=START + 8)
    hand.put("3")
    assert hand.dead() == [("2", "dropped")]


def test_a_queue_without_room_at_all_drops_everything(hand: Hand) -> None:
    hand.queue(max_length=0, overflow="drop_head")
    hand.put("1")
    assert hand.dead() == [("1", "dropped")]
    assert hand.counts() == (0, 0, 0, 1)


def test_a_lower_bound_drops_as_many_as_it_takes(hand: Hand) -> None:
    hand.put("1", "2", "3", "4")
    hand.queue(max_length=2, overflow="drop_head")
    hand.put("5")
    assert hand.ids() == ["4", "5"]


def test_after_max_deliveries_a_message_is_dead(hand: Hand) -> None:
    hand.queue(max_deliveries=3)
    hand.put("1", keep_result=100.0)
    for count in (1, 2, 3):
        delivery = hand.one()
        assert delivery.count == count
        hand.settle(delivery, Verdict.REQUEUE)
    assert hand.effects.results == {"1"}
    assert hand.ids() == []
    assert hand.dead() == [("1", "max_deliveries")]
    assert hand.state("1") == "max_deliveries"


def test_max_deliveries_counts_lost_sessions_too(hand: Hand) -> None:
    hand.queue(max_deliveries=2)
    hand.put("1")
    for _ in range(2):
        hand.open()
        assert len(hand.take()) == 1
        hand.close()
        hand.confirmed.clear()
    assert hand.dead() == [("1", "max_deliveries")]


def test_a_token_is_never_given_away_twice_not_even_by_a_store_that_comes_after(hand: Hand) -> None:
    hand.put("1")
    first = hand.one().token
    hand.store.close()
    after = Hand(hand.kind, hand.folder)
    after.now += 1
    after.queue()
    after.open("t")
    after.put("2")
    assert after.one("t").token > first
    hand.store = after.store


def test_what_is_returned_unbegun_does_not_count(hand: Hand) -> None:
    hand.queue(max_deliveries=1)
    hand.put("1", "2")
    for _ in range(3):
        delivery = hand.one()
        assert (delivery.message.id, delivery.count) == ("1", 1)
        hand.settle(delivery, Verdict.RETURN)
    hand.settle(hand.one(), Verdict.RETURN, delay=5.0)
    assert hand.ids() == ["2"]
    hand.later(5.0)
    assert hand.ids() == ["1"]


def test_what_is_returned_too_late_has_expired(hand: Hand) -> None:
    hand.put("1", expires=START + 5, keep_result=100.0)
    delivery = hand.one()
    hand.now += 5
    hand.settle(delivery, Verdict.RETURN)
    hand.later(0.0)
    assert hand.state("1") == "expired"


@pytest.mark.parametrize("verdict", [Verdict.REQUEUE, None])
def test_what_must_not_begin_twice_is_dead_when_it_comes_back(hand: Hand, verdict: Verdict | None) -> None:
    hand.put("1", keep_result=100.0)
    delivery = hand.one()
    assert hand.settle(delivery, Verdict.KEEP, once=True) is SettleState.DONE
    hand.reopen()
    if verdict is None:
        hand.close()
    else:
        hand.settle(delivery, verdict)
    assert hand.effects.results == {"1"}
    assert hand.dead() == [("1", "lost")]
    assert hand.state("1") == "lost"
    assert hand.counts() == (0, 0, 0, 1)


def test_what_must_not_begin_twice_may_be_retried_and_replayed(hand: Hand) -> None:
    hand.put("1")
    delivery = hand.one()
    hand.settle(delivery, Verdict.KEEP, once=True)
    hand.settle(delivery, Verdict.REQUEUE, replacement=delivery.message)
    for _ in range(2):  # nothing is said of these deliveries
        again = hand.one()
        hand.settle(again, Verdict.REQUEUE)
    again = hand.one()
    hand.settle(again, Verdict.KEEP, once=True)
    hand.settle(again, Verdict.REQUEUE)
    (letter,) = hand.store.dead_letters(None, 0, 10)
    hand.store.replay([letter.number], hand.now)
    hand.settle(hand.one(), Verdict.REQUEUE)
    assert hand.ids() == ["1"]


def test_a_batch_has_only_so_many_bytes_or_one_message(hand: Hand) -> None:
    hand.queue("r")
    hand.put("1", body=b"x" * (BATCH_BYTES + 1))
    hand.put("2", body=b"x" * (BATCH_BYTES - 10))
    hand.put("3", body=b"x" * 10)
    hand.put("4", "5")
    hand.put("6", queue="r")
    batches = [hand.take("s", "q", "r"), hand.take("s", "q", "r"), hand.take("s", "q", "r")]
    assert [[each.message.id for each in batch] for batch in batches] == [["1"], ["2", "3"], ["4", "5", "6"]]


def test_without_max_deliveries_a_message_comes_for_ever(hand: Hand) -> None:
    hand.queue(max_deliveries=None)
    hand.put("1")
    for count in range(1, 50):
        delivery = hand.one()
        assert delivery.count == count
        hand.settle(delivery, Verdict.REQUEUE)


def test_a_paused_queue_hands_out_nothing(hand: Hand) -> None:
    hand.queue(paused=True)
    hand.put("1")
    assert hand.effects.queues == set()
    assert hand.ids() == []
    assert hand.queue().queues == {"q"}
    assert hand.ids() == ["1"]


def test_max_running_holds_over_several_sessions(hand: Hand) -> None:
    hand.open("t")
    hand.queue(max_running=2)
    hand.put("1", "2", "3", "4")
    (first,) = hand.take("s", credit=1)
    assert hand.ids("t") == ["2"]
    assert hand.ids("s") == []
    hand.settle(first)
    assert hand.effects.queues == {"q"}
    assert hand.ids("t") == ["3"]
    assert hand.close("t").queues == {"q"}
    assert hand.ids("s") == ["2", "3"]
    assert hand.queue(max_running=3).queues == {"q"}
    assert hand.ids("s") == ["4"]


def test_a_rate_is_kept_evenly_over_several_sessions(hand: Hand) -> None:
    hand.open("t", ttl=1000.0)
    hand.open("s", ttl=1000.0)
    hand.queue(rate=2.0)
    hand.put(*[str(number) for number in range(30)])
    when = []
    for step in range(100):
        for session in ("s", "t"):
            when += [hand.now for _ in hand.take(session)]
        hand.later(0.1)
        if step == 0:
            assert hand.store.next_due(hand.now) == pytest.approx(START + 0.5, abs=0.11)
    assert len(when) == pytest.approx(20, abs=1)
    assert all(later - sooner == pytest.approx(0.5, abs=0.11) for sooner, later in pairwise(when))


def test_a_high_rate_is_kept_by_few_polls(hand: Hand) -> None:
    hand.queue(rate=1000.0)
    hand.put(*[str(number) for number in range(3000)])
    assert 1 <= len(hand.take()) <= 101
    taken = 0
    for _ in range(20):
        hand.later(0.05)
        taken += len(hand.take())
    assert taken == pytest.approx(1000, abs=2)
    hand.later(20)
    assert len(hand.take()) <= 101


def test_a_queue_held_back_by_its_rate_is_named_when_it_may_go_on(hand: Hand) -> None:
    hand.queue(rate=1.0)
    hand.put("1", "2")
    assert hand.ids() == ["1"]
    assert hand.store.next_due(hand.now) == pytest.approx(START + 1, abs=0.11)
    assert hand.later(0.5).queues == set()
    assert hand.later(0.5).queues == {"q"}
    assert hand.ids() == ["2"]


def test_a_deleted_queue_is_not_named_when_its_rate_would_let_it_go_on(hand: Hand) -> None:
    hand.queue(rate=1.0)
    hand.put("1", "2")
    hand.ids()
    hand.delete(Queue("q"))
    assert hand.later(2) == Effects()


# Deliveries ----------------------------------------------------------------------------------------------------------


def test_an_unconfirmed_batch_is_handed_out_again_unchanged(hand: Hand) -> None:
    hand.put("1", "2")
    first = hand.poll(credit=1)
    second = hand.poll(confirm=False)
    hand.put("3")
    hand.reopen()
    again = hand.poll(confirm=False)
    assert again == second
    assert [delivery.message.id for delivery in first.deliveries + second.deliveries] == ["1", "2"]
    third = hand.poll(confirmed=second.number)
    assert [delivery.message.id for delivery in third.deliveries] == ["3"]
    assert third.number > second.number > first.number > 0
    assert [first.deliveries[0].token, second.deliveries[0].token] == sorted(
        {first.deliveries[0].token, second.deliveries[0].token}
    )


def test_an_empty_batch_has_the_number_of_the_last_that_was_not(hand: Hand) -> None:
    assert hand.poll().number == 0
    hand.put("1")
    full = hand.poll()
    empty = hand.poll()
    assert (empty.number, empty.deliveries) == (full.number, ())


def test_what_was_settled_is_not_in_a_repeated_batch(hand: Hand) -> None:
    hand.put("1", "2", "3")
    batch = hand.poll(credit=2, confirm=False)
    hand.settle(batch.deliveries[0])
    again = hand.poll(confirm=False)
    assert (again.number, again.deliveries) == (batch.number, batch.deliveries[1:])
    hand.settle(batch.deliveries[1])
    assert hand.ids() == ["3"]


def test_a_poll_that_was_overtaken_takes_nothing(hand: Hand) -> None:
    hand.put("1", "2")
    first = hand.poll(credit=1, held=())
    second = hand.poll(credit=1, held=(first.deliveries[0].token,))
    hand.poll(held=(first.deliveries[0].token, second.deliveries[0].token))
    hand.poll(confirmed=0, held=())
    hand.poll(confirmed=first.number, held=(first.deliveries[0].token,))
    assert hand.counts() == (0, 0, 2, 0)


def test_what_a_session_does_not_hold_any_more_goes_back(hand: Hand) -> None:
    hand.open("t")
    hand.put("1", "2", "3")
    first, second, third = hand.take()
    hand.poll(held=(first.token, third.token), credit=0)
    assert hand.effects.queues == {"q"}
    assert hand.settle(second) is SettleState.STALE
    (again,) = hand.take("t")
    assert (again.message.id, again.count) == ("2", 2)
    hand.poll(credit=0)
    assert hand.counts() == (0, 0, 3, 0)


def test_what_is_in_the_unconfirmed_batch_need_not_be_held(hand: Hand) -> None:
    hand.put("1", "2")
    hand.poll(credit=1)
    lost = hand.poll(confirm=False)
    again = hand.poll(held=(), confirm=False)
    assert again.deliveries == lost.deliveries
    assert hand.counts() == (1, 0, 1, 0)


def test_a_settled_message_never_comes_again_and_its_settlement_may_be_repeated(hand: Hand) -> None:
    hand.put("1")
    delivery = hand.one()
    assert hand.settle(delivery) is SettleState.DONE
    hand.reopen()
    assert hand.settle(delivery) is SettleState.DONE
    assert hand.settle(delivery, Verdict.REQUEUE) is SettleState.DONE
    assert hand.ids() == []
    hand.close()
    hand.open("t")
    assert hand.settle(delivery, session="t") is SettleState.DONE
    assert hand.stats().acked == 1


def test_a_stale_settlement_does_nothing(hand: Hand) -> None:
    hand.open("t")
    hand.put("1", keep_result=100.0)
    old = hand.one()
    assert hand.settle(old, session="t") is SettleState.STALE
    hand.poll(held=(), credit=0)
    new = hand.one("t")
    for verdict in Verdict:
        assert hand.settle(old, verdict, OK, then=(publication("then"),)) is SettleState.STALE
        assert hand.effects == Effects()
    assert hand.result("1") is None
    assert hand.settle(new, session="t") is SettleState.DONE
    assert hand.settle(4711) is SettleState.STALE
    assert hand.ids() == []


def test_settlements_of_a_batch_are_answered_in_order(hand: Hand) -> None:
    hand.put("1", "2")
    first, second = hand.take()
    settlements = [Settlement(second.token), Settlement(999), Settlement(first.token, Verdict.REQUEUE)]
    states, effects = hand.store.settle("s", settlements, hand.now)
    assert states == [SettleState.DONE, SettleState.STALE, SettleState.DONE]
    assert effects.queues == {"q"}


def test_what_a_settlement_publishes_comes_with_it_once(hand: Hand) -> None:
    hand.queue("r")
    hand.put("1")
    delivery = hand.one()
    then = (publication("2", "r"), publication("3", "r"))
    hand.settle(delivery, then=then)
    assert hand.effects.queues == {"r"}
    hand.settle(delivery, then=then)
    assert hand.ids("s", "r") == ["2", "3"]


def test_what_the_store_publishes_goes_into_a_full_queue_or_fails_visibly(hand: Hand) -> None:
    hand.queue("r", max_length=0)
    hand.put("0", queue="q", unique="k")
    hand.put("1")
    then = (
        publication("2", "r", keep_result=50.0),
        publication("3", "nowhere", keep_result=50.0),
        publication("4", "q", "no exchange", keep_result=50.0),
        publication("5", unique="k", keep_result=50.0),
        publication("0", body=b"other", keep_result=50.0),
    )
    hand.one()
    hand.settle(hand.one(), then=then)
    assert hand.effects.results == {"3", "4", "5"}
    assert hand.ids("s", "r") == ["2"]
    assert [hand.state(name) for name in "2345"] == [None, "unrouted", "unknown_exchange", "unique_key_held"]
    assert hand.result("3").final  # type: ignore[union-attr]
    assert hand.result("0") is None
    assert hand.send(publication("3", "nowhere")) == [Published(DUPLICATE)]


def test_a_deleted_queues_deliveries_can_be_settled(hand: Hand) -> None:
    hand.put("1", "2", "3", keep_result=100.0)
    first, second, third = hand.take()
    assert hand.delete(Queue("q")) == 0
    assert hand.settle(first, outcome=OK) is SettleState.DONE
    assert hand.settle(second, Verdict.REQUEUE) is SettleState.DONE
    assert hand.settle(third, Verdict.REJECT) is SettleState.DONE
    assert [hand.state(name) for name in "123"] == ["SUCCESS", "dropped", "rejected"]
    assert hand.dead() == [("3", "rejected")]
    assert hand.store.leased(None) == []


def test_what_comes_back_goes_to_a_queue_declared_again(hand: Hand) -> None:
    hand.put("1", "2")
    first, _ = hand.take()
    hand.delete(Queue("q"))
    hand.queue(max_running=2)
    assert hand.counts() == (0, 0, 2, 0)
    hand.put("3")
    assert hand.ids() == []
    hand.settle(first, Verdict.REQUEUE)
    assert hand.ids() == ["1"]


def test_what_runs_is_listed(hand: Hand) -> None:
    hand.open("t")
    hand.put("1", "2")
    first, second = hand.one("s"), hand.one("t")
    assert hand.store.leased(None) == [("s", first.token, "1"), ("t", second.token, "2")]
    assert hand.store.leased("t") == [("t", second.token, "2")]
    assert hand.store.leased("nobody") == []


# Sessions ------------------------------------------------------------------------------------------------------------


def test_a_session_that_was_never_opened_is_gone(hand: Hand) -> None:
    hand.put("1")
    with pytest.raises(SessionGone):
        hand.poll("t")
    with pytest.raises(SessionGone):
        hand.store.settle("t", [], hand.now)
    assert hand.close("t") == Effects()
    assert hand.counts() == (1, 0, 0, 0)


def test_a_session_is_its_owners(hand: Hand) -> None:
    with pytest.raises(SessionTaken):
        hand.open("s", owner="another")
    hand.put("1")
    hand.one()
    hand.open("s")
    assert hand.counts() == (0, 0, 1, 0)
    hand.close()
    hand.open("s", owner="another")


def test_a_silent_session_goes_and_what_it_held_goes_back_in_order(hand: Hand) -> None:
    hand.put("1", "2", "3")
    held = hand.take(credit=2)
    assert hand.store.next_due(hand.now) == START + 30
    assert hand.later(29.9) == Effects()
    assert hand.later(0.2).queues == {"q"}
    with pytest.raises(SessionGone):
        hand.poll()
    with pytest.raises(SessionGone):
        hand.settle(held[0])
    hand.confirmed.clear()
    hand.open("t")
    assert [(delivery.message.id, delivery.count) for delivery in hand.take("t")] == [("1", 2), ("2", 2), ("3", 1)]


@pytest.mark.parametrize("sign", ["poll", "settle", "open"])
def test_a_session_lives_as_long_as_it_is_heard_of(hand: Hand, sign: str) -> None:
    hand.put("1")
    hand.one()
    for _ in range(5):
        hand.later(20)
        if sign == "poll":
            hand.store.receive("s", Poll((), 0, 10**9), hand.now)
        elif sign == "settle":
            hand.store.settle("s", [], hand.now)
        else:
            hand.open()
    assert hand.counts() == (0, 0, 1, 0)
    assert hand.store.next_due(hand.now) == hand.now + 30


def test_opening_again_changes_the_ttl(hand: Hand) -> None:
    hand.open(ttl=5.0)
    assert hand.store.next_due(hand.now) == START + 5


def test_closing_a_session_gives_back_at_once(hand: Hand) -> None:
    hand.put("1", "2")
    hand.poll(credit=1)
    hand.poll(credit=1, confirm=False)
    assert hand.close().queues == {"q"}
    assert hand.counts() == (2, 0, 0, 0)
    assert hand.close() == Effects()
    assert hand.store.next_due(hand.now) is None
    hand.confirmed.clear()
    hand.open()
    assert hand.ids() == ["1", "2"]


# Claims --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "silent", "not held"])
def test_what_came_back_unsettled_is_claimed_by_its_last_session_under_its_old_token(hand: Hand, how: str) -> None:
    hand.put("1", "2", "3", keep_result=100.0)
    held = hand.take(credit=2)
    if how == "closed":
        hand.close()
    elif how == "silent":
        hand.later(31)
    else:
        hand.poll(credit=0, held=())
    assert hand.counts() == (3, 0, 0, 0)
    tokens = [delivery.token for delivery in held]
    assert hand.open(claim=[tokens[1], 10**12]) == [tokens[1]]
    assert hand.open(claim=tokens) == tokens
    assert hand.counts() == (1, 0, 2, 0)
    assert hand.store.leased("s") == [("s", tokens[0], "1"), ("s", tokens[1], "2")]
    assert hand.settle(held[0], outcome=OK) is SettleState.DONE
    assert hand.settle(held[1], Verdict.REQUEUE) is SettleState.DONE
    assert (hand.state("1"), hand.counts()) == (OK.state, (2, 0, 0, 0))
    assert hand.open(claim=tokens) == []  # what was settled is nobody's
    hand.confirmed.clear()
    assert [(delivery.message.id, delivery.count) for delivery in hand.take()] == [("2", 2), ("3", 1)]


def test_what_was_claimed_is_in_no_batch_and_is_held_until_a_poll_says_otherwise(hand: Hand) -> None:
    hand.put("1", "2", "3")
    held = hand.take(credit=2)
    hand.close()
    tokens = [delivery.token for delivery in held]
    hand.open(claim=tokens)
    first = hand.poll(confirmed=0, confirm=False)
    assert [delivery.message.id for delivery in first.deliveries] == ["3"]
    assert hand.poll(confirmed=0, confirm=False) == first
    assert hand.counts() == (0, 0, 3, 0)
    hand.poll(confirmed=first.number, held=(tokens[1], first.number), credit=0)
    assert hand.counts() == (1, 0, 2, 0)


def test_an_empty_batch_after_a_claim_repeats_nothing(hand: Hand) -> None:
    hand.put("1")
    (token,) = [delivery.token for delivery in hand.take()]
    hand.close()
    hand.open(claim=[token])
    batch = hand.poll(confirmed=0)
    assert (batch.number, batch.deliveries) == (token, ())
    hand.put("2")
    assert [delivery.message.id for delivery in hand.poll(confirmed=0, credit=1).deliveries] == ["2"]


def test_what_was_handed_out_again_or_settled_or_ended_cannot_be_claimed(hand: Hand) -> None:
    hand.queue(max_deliveries=2)
    hand.put("handed out", "acked", "requeued", "cancelled", "purged", "dead")
    held = {delivery.message.id: delivery.token for delivery in hand.take()}
    hand.settle(held["acked"])
    hand.settle(held["requeued"], Verdict.REQUEUE)
    hand.close()
    hand.open("t")
    assert hand.take("t", credit=1)[0].message.id == "handed out"
    assert hand.settle(hand.one("t"), session="t") is SettleState.DONE  # what was requeued
    hand.cancel("cancelled")
    hand.take("t", credit=2)
    hand.close("t")
    assert [name for name, _ in hand.dead()] == ["handed out", "purged", "dead"]
    assert hand.open(claim=list(held.values())) == []
    hand.replay(*hand.numbers())
    assert hand.open(claim=list(held.values())) == []
    assert hand.counts() == (3, 0, 0, 0)


def test_what_was_purged_cannot_be_claimed(hand: Hand) -> None:
    hand.put("1")
    delivery = hand.one()
    hand.close()
    hand.purge()
    assert hand.open(claim=[delivery.token]) == []
    assert hand.settle(delivery) is SettleState.STALE


def test_a_claim_is_of_ones_own_only_and_as_long_as_nobody_else_had_it(hand: Hand) -> None:
    hand.put("1")
    delivery = hand.one()
    assert hand.open("t", claim=[delivery.token]) == []
    hand.close()
    assert hand.open("t", claim=[delivery.token]) == []
    (again,) = hand.take("t")
    hand.close("t")
    assert hand.open(claim=[delivery.token, again.token]) == []
    assert hand.open("t", claim=[delivery.token, again.token]) == [again.token]


def test_limits_of_a_queue_are_not_in_the_way_of_a_claim(hand: Hand) -> None:
    hand.queue(max_running=1)
    hand.put("1", "2", priority=0)
    first = hand.one()
    hand.close()
    hand.put("3", priority=1)
    hand.open("t")
    assert hand.one("t").message.id == "3"
    hand.queue(max_running=1, paused=True)
    assert hand.open(claim=[first.token]) == [first.token]
    assert hand.counts() == (1, 0, 2, 0)
    assert hand.settle(first) is SettleState.DONE
    assert hand.counts() == (1, 0, 1, 0)


def test_what_was_claimed_does_not_expire_until_it_comes_back(hand: Hand) -> None:
    hand.put("1", expires=START + 40)
    delivery = hand.one()
    hand.later(31)
    assert hand.open(claim=[delivery.token], ttl=100.0) == [delivery.token]
    hand.later(30)
    assert hand.counts() == (0, 0, 1, 0)
    hand.settle(delivery, Verdict.REQUEUE)
    hand.later(0)
    assert hand.dead() == [("1", "expired")]


def test_a_claim_survives_a_restart_of_the_store(hand: Hand) -> None:
    hand.put("1")
    delivery = hand.one()
    hand.close()
    hand.reopen()
    hand.open("t")
    assert hand.open(claim=[delivery.token]) == [delivery.token]
    assert hand.take("t") == []


# Time ----------------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_ahead_loses_nothing_and_hands_nothing_to_two(hand: Hand) -> None:
    hand.put("1", "2")
    hand.put("3", not_before=START + 10)
    held = hand.one()
    hand.later(10**7)
    with pytest.raises(SessionGone):
        hand.settle(held)
    hand.now = START + 1
    hand.later(0)
    hand.confirmed.clear()
    hand.open()
    assert hand.ids() == ["1", "2", "3"]
    hand.open("t")
    assert hand.ids("t") == []


def test_a_clock_that_is_set_back_does_not_keep_the_dead_alive(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.queue()
    hand.queue("r", expires=20.0, rate=1.0)
    hand.open()
    hand.put("1", "2", "3", keep_result=50.0)
    settled = hand.one()
    hand.settle(settled, outcome=OK)
    hand.one()
    hand.now -= 10**6
    hand.later(0)
    assert hand.counts() == (1, 0, 1, 0)
    hand.later(21)
    assert hand.store.stats(["r"], hand.now) == []
    hand.later(10)
    with pytest.raises(SessionGone):
        hand.poll()
    hand.confirmed.clear()
    hand.open()
    assert hand.ids() == ["2", "3"]
    hand.later(20)
    assert hand.result("1") is None
    hand.later(51)
    hand.open()
    assert hand.settle(settled) is SettleState.STALE
    hand.put("1", body=b"other")


def test_a_rate_goes_on_when_the_clock_is_set_back(hand: Hand) -> None:
    hand.queue(rate=1.0)
    hand.put("1", "2", "3")
    assert hand.ids() == ["1"]
    assert hand.ids() == []
    hand.now -= 10**6
    assert hand.later(0).queues == {"q"}
    hand.ids()
    hand.later(1)
    assert len(hand.take()) == 1


def test_nothing_is_due_where_there_is_nothing(make_store: MakeStore) -> None:
    hand = make_store()
    assert hand.store.next_due(hand.now) is None
    assert hand.later(10**6) == Effects()


# Looking -------------------------------------------------------------------------------------------------------------


def test_counts_tell_what_is_where(hand: Hand) -> None:
    hand.now += 1
    hand.put("1", "2", "3", "4", "5")
    hand.now += 1
    hand.put("6", priority=9)
    hand.put("7", not_before=START + 50)
    hand.settle(hand.one())
    hand.settle(hand.one(), Verdict.REJECT)
    hand.settle(hand.one(), Verdict.REQUEUE)
    hand.one()
    (stats,) = hand.store.stats(["q", "missing", "q"], hand.now)
    assert stats.oldest == START + 1
    assert (stats.ready, stats.delayed, stats.leased, stats.dead, stats.sessions) == (3, 1, 1, 1, 1)
    assert (stats.published, stats.delivered, stats.acked) == (7, 4, 1)
    hand.reopen()
    assert hand.store.stats(None, hand.now) == [stats]
    hand.queue("empty")
    assert hand.stats("empty").oldest is None
