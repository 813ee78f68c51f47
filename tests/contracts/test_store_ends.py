"""What every store does when messages end: results, joins, unique keys, cancelling, the dead, and the schedule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backwater_tornado.broker.values import (
    Binding,
    Effects,
    Entry,
    Exchange,
    Join,
    Message,
    Outcome,
    Published,
    PublishState,
    Queue,
    Result,
    Settlement,
    SettleState,
    Verdict,
)
from tests.stores import ANY, FAILED, OK, START, STOPPED, Hand, publication

MakeStore = Callable[..., Hand]
HALF = Outcome("PROGRESS", b"50 %")
HELD = Published(PublishState.REFUSED, reason="unique_key_held")


# Results -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "outcome"), [(Verdict.ACK, OK), (Verdict.REJECT, FAILED)])
def test_a_final_result_never_changes(hand: Hand, verdict: Verdict, outcome: Outcome) -> None:
    hand.declare(Exchange("x", "fanout"), Queue("r"), Binding("x", "q"), Binding("x", "r"))
    hand.put("1", exchange="x", keep_result=100.0)
    first, second = hand.one("s", "q"), hand.one("s", "r")
    hand.settle(first, verdict, outcome)
    assert hand.effects.results == {"1"}
    kept = hand.result("1")
    assert kept == Result("1", outcome, final=True, at=START)
    hand.settle(second, Verdict.KEEP, HALF)
    hand.settle(second, Verdict.ACK, Outcome("OTHER"))
    assert hand.effects.results == set()
    hand.reopen()
    assert hand.result("1") == kept


def test_progress_is_told_while_it_goes_on(hand: Hand) -> None:
    hand.put("1", keep_result=100.0)
    delivery = hand.one()
    hand.now += 1
    assert hand.settle(delivery, Verdict.KEEP, HALF) is SettleState.DONE
    assert hand.effects.results == {"1"}
    assert hand.result("1") == Result("1", HALF, final=False, at=START + 1)
    assert hand.settle(delivery, Verdict.KEEP) is SettleState.DONE
    assert hand.counts() == (0, 0, 1, 0)
    hand.settle(delivery, Verdict.ACK, OK)
    assert hand.state("1") == "SUCCESS"


def test_progress_may_publish(hand: Hand) -> None:
    hand.put("1")
    hand.settle(hand.one(), Verdict.KEEP, then=(publication("2"),))
    assert hand.ids() == ["2"]


def test_a_retry_and_a_parked_message_have_a_result_that_may_change(hand: Hand) -> None:
    hand.put("1", "2", keep_result=100.0)
    hand.settle(hand.one(), Verdict.REQUEUE, Outcome("RETRY"), delay=5.0)
    hand.settle(hand.one(), Verdict.PARK, Outcome("PENDING"))
    for name, state in (("1", "RETRY"), ("2", "PENDING")):
        assert hand.result(name) == Result(name, Outcome(state), final=False, at=START)


def test_a_message_that_keeps_no_result_has_none(hand: Hand) -> None:
    hand.put("1", "2")
    hand.settle(hand.one(), outcome=OK)
    hand.settle(hand.one(), Verdict.REJECT)
    assert hand.effects.results == set()
    assert [hand.result("1"), hand.result("2")] == [None, None]


def test_an_ack_without_an_outcome_leaves_what_is_there(hand: Hand) -> None:
    hand.put("1", "2", keep_result=100.0)
    first, second = hand.take()
    hand.settle(first, Verdict.KEEP, HALF)
    hand.settle(first)
    hand.settle(second)
    assert [hand.result("1"), hand.result("2")] == [Result("1", HALF, final=False, at=START), None]


def test_a_result_is_kept_as_long_as_its_message_says(hand: Hand) -> None:
    hand.put("1", keep_result=10.0)
    hand.put("2", keep_result=20.0)
    for delivery in hand.take():
        hand.settle(delivery, Verdict.KEEP, HALF)
    hand.later(5)
    for _, token, _ in hand.store.leased("s"):
        hand.settle(token, outcome=OK)
    hand.now += 9.9
    assert hand.store.results(["2", "1", "3"], hand.now) == [
        Result("2", OK, final=True, at=START + 5),
        Result("1", OK, final=True, at=START + 5),
        None,
    ]
    hand.now += 0.1
    assert [hand.state("1"), hand.state("2")] == [None, "SUCCESS"]
    hand.later(0)
    assert [hand.state("1"), hand.state("2")] == [None, "SUCCESS"]
    hand.later(10)
    assert hand.state("2") is None


def test_a_message_is_known_as_long_as_its_result_is_kept(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.queue()
    hand.open(ttl=10_000.0)
    hand.put("1", keep_result=500.0)
    hand.put("2", keep_result=50.0)
    for delivery in hand.take():
        hand.settle(delivery, outcome=OK)
    hand.later(99)
    assert [it.state for it in hand.send(publication("1"), publication("2"))] == [PublishState.DUPLICATE] * 2
    hand.later(300)
    hand.reopen()
    assert [hand.state("1"), hand.state("2")] == ["SUCCESS", None]
    duplicate, accepted = hand.send(publication("1"), publication("2"))
    assert (duplicate.state, accepted.state) == (PublishState.DUPLICATE, PublishState.ACCEPTED)
    hand.later(102)
    assert hand.send(publication("1"))[0].state is PublishState.ACCEPTED


def test_a_result_from_the_future_is_kept_no_longer_for_it(hand: Hand) -> None:
    hand.put("1", "2", keep_result=1000.0)
    hand.open(ttl=10.0**9)
    hand.settle(hand.one(), outcome=OK)
    hand.now += 10**6
    hand.store.settle("s", [Settlement(hand.one().token, outcome=OK)], hand.now)
    hand.now = START + 500
    hand.later(0)
    hand.later(499)
    assert [hand.state("1"), hand.state("2")] == ["SUCCESS", "SUCCESS"]
    hand.later(1)
    assert [hand.state("1"), hand.state("2")] == [None, "SUCCESS"]
    hand.later(500)
    assert hand.state("2") is None


def test_results_are_forgotten_before_their_time(hand: Hand) -> None:
    hand.put("1", "2", keep_result=10.0)
    for delivery in hand.take():
        hand.settle(delivery, outcome=OK)
    hand.store.forget_results(["1", "3"], hand.now)
    assert [hand.state("1"), hand.state("2")] == [None, "SUCCESS"]
    hand.later(10)


def test_messages_that_are_dropped_say_so(hand: Hand) -> None:
    hand.put("1", keep_result=10.0)
    hand.purge()
    assert hand.effects.results == {"1"}
    assert hand.result("1") == Result("1", Outcome("dropped", failed=True), final=True, at=START)
    hand.put("2", keep_result=10.0)
    hand.delete(Queue("q"))
    assert (hand.effects.results, hand.state("2")) == ({"2"}, "dropped")


# Unique keys ---------------------------------------------------------------------------------------------------------


def test_a_unique_key_is_held_while_its_message_waits_or_runs(hand: Hand) -> None:
    hand.put("1", unique="k")
    hand.put("other", unique="l")
    assert hand.send(publication("2", unique="k")) == [HELD]
    hand.settle(hand.one(), Verdict.REQUEUE, delay=5.0)
    hand.reopen()
    assert hand.send(publication("2", unique="k")) == [HELD]
    hand.later(5)
    running = hand.one()
    assert hand.send(publication("2", unique="k")) == [HELD]
    assert hand.send(publication("1", unique="k")) == [Published(PublishState.DUPLICATE, ("q",))]
    hand.settle(running)
    hand.put("2", unique="k")
    assert hand.send(publication("3", unique="k")) == [HELD]


@pytest.mark.parametrize(("outcome", "published"), [(OK, ["1st", "2nd", "3rd"]), (FAILED, ["4th", "5th"])])
def test_a_join_publishes_all_of_its_publications(hand: Hand, outcome: Outcome, published: list[str]) -> None:
    then = tuple(publication(name) for name in ("1st", "2nd", "3rd"))
    otherwise = tuple(publication(name) for name in ("4th", "5th"))
    hand.send(publication("1", joins=("j",)), joins=(Join("j", 1, then, otherwise),))
    delivery = hand.one()
    hand.reopen()
    hand.settle(delivery, outcome=outcome)
    hand.reopen()
    assert hand.ids() == published


def test_an_empty_otherwise_publishes_nothing(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",)), joins=(Join("j", 1, (publication("then"),), ()),))
    hand.settle(hand.one(), outcome=FAILED)
    assert hand.ids() == []
    hand.send(publication("2", joins=("j",)), joins=(join(1),))
    hand.settle(hand.one(), outcome=OK)
    assert hand.ids() == []  # it has come together, with nothing to publish


def test_a_message_may_count_for_several_joins(hand: Hand) -> None:
    both = tuple(Join(name, size, (publication(f"then {name}"),)) for name, size in (("j", 1), ("k", 2)))
    hand.send(publication("1", joins=("j", "k")), publication("2", joins=("k",)), joins=both)
    first, second = hand.take()
    assert first.message.joins == ("j", "k")
    hand.reopen()
    hand.settle(first)
    assert hand.ids() == ["then j"]
    hand.settle(second)
    assert hand.ids() == ["then k"]


def test_a_message_counts_once_for_a_join_that_it_names_twice(hand: Hand) -> None:
    hand.send(publication("1", joins=("j", "j")), joins=(join(2),))
    hand.settle(hand.one())
    assert hand.ids() == []


def test_a_repeated_publication_counts_once(hand: Hand) -> None:
    for _ in range(2):
        hand.send(publication("1", joins=("j", "k")), joins=(join(2),))
    hand.settle(hand.one())
    assert hand.send(publication("1", joins=("j", "k")), joins=(join(2),))[0].state is PublishState.DUPLICATE
    assert hand.ids() == []


def test_a_message_may_end_before_its_joins_are_known(hand: Hand) -> None:
    hand.put("1", joins=("j", "k"))
    hand.settle(hand.one(), outcome=FAILED)
    hand.send(joins=(Join("k", 1, (publication("then k"),), ()), join(1)))
    assert hand.ids() == ["otherwise"]


def test_a_retry_counts_for_the_joins_of_the_first(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",), unique="u", unique_until=START + 5), joins=(join(1),))
    hand.settle(hand.one(), Verdict.REQUEUE, replacement=Message("1", joins=("k",), unique="v", body=b"again"))
    again = hand.one()
    assert again.message == Message("1", b"again", joins=("j",), unique="u", unique_until=START + 5)
    hand.settle(again)
    assert hand.ids() == ["then"]


@pytest.mark.parametrize("end", ["reject", "expire", "purge", "cancel", "delete"])
def test_a_unique_key_is_free_after_any_end(hand: Hand, end: str) -> None:
    hand.queue("r")
    hand.put("1", unique="k", expires=START + 20)
    if end == "reject":
        hand.settle(hand.one(), Verdict.REJECT)
    elif end == "expire":
        hand.later(20)
    elif end == "purge":
        hand.purge()
    elif end == "cancel":
        hand.cancel("1")
    else:
        hand.delete(Queue("q"))
    hand.put("2", queue="r", unique="k")


def test_a_unique_key_is_free_after_its_time_in_any_case(hand: Hand) -> None:
    hand.put("1", unique="k", unique_until=START + 10)
    hand.now += 9
    assert hand.send(publication("2", unique="k")) == [HELD]
    hand.now += 1
    hand.put("2", unique="k")
    hand.settle(hand.one())
    assert hand.send(publication("3", unique="k")) == [HELD]


def test_a_unique_key_is_held_until_the_last_copy_ends(hand: Hand) -> None:
    hand.declare(Exchange("x", "fanout"), Queue("r"), Binding("x", "q"), Binding("x", "r"))
    hand.put("1", exchange="x", unique="k")
    hand.settle(hand.one("s", "q"))
    assert hand.send(publication("2", unique="k")) == [HELD]
    hand.settle(hand.one("s", "r"), Verdict.REJECT)
    hand.put("2", unique="k")


def test_dropping_a_dead_copy_ends_it_no_second_time(hand: Hand) -> None:
    hand.declare(Exchange("x", "fanout"), Queue("r"), Binding("x", "q"), Binding("x", "r"))
    hand.put("1", exchange="x", unique="k")
    hand.settle(hand.one("s", "q"), Verdict.REJECT)
    hand.drop(*hand.numbers())
    assert hand.send(publication("2", unique="k")) == [HELD]
    hand.settle(hand.one("s", "r"))
    hand.put("2", unique="k")


def test_a_parked_message_holds_its_key(hand: Hand) -> None:
    hand.put("1", unique="k")
    hand.settle(hand.one(), Verdict.PARK)
    assert hand.send(publication("2", unique="k")) == [HELD]
    hand.drop(*hand.numbers())
    hand.put("2", unique="k")


def test_a_replayed_message_holds_its_key_again_if_it_is_free(hand: Hand) -> None:
    hand.put("1", unique="k")
    hand.settle(hand.one(), Verdict.REJECT)
    hand.replay(*hand.numbers())
    assert hand.send(publication("2", unique="k")) == [HELD]
    hand.settle(hand.one(), Verdict.REJECT)
    hand.put("2", unique="k")
    hand.replay(*hand.numbers())
    second, first = sorted(hand.take(), key=lambda delivery: delivery.message.id, reverse=True)
    hand.settle(first)
    assert hand.send(publication("3", unique="k")) == [HELD]
    hand.settle(second)
    hand.put("3", unique="k")


# Joins ---------------------------------------------------------------------------------------------------------------


def join(size: int = 2, **more: object) -> Join:
    return Join("j", size, (publication("then"),), (publication("otherwise"),), **more)  # type: ignore[arg-type]


def test_a_join_publishes_once_all_have_ended(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",)), publication("2", joins=("j",)), publication("3"), joins=(join(),))
    first, second, third = hand.take()
    hand.settle(third)
    hand.settle(first)
    hand.reopen()
    assert hand.ids() == []
    hand.settle(second)
    assert hand.effects.queues == {"q"}
    assert hand.ids() == ["then"]


def test_a_failed_member_makes_it_otherwise(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",)), publication("2", joins=("j",)), joins=(join(),))
    first, second = hand.take()
    hand.settle(first, outcome=FAILED)
    hand.settle(second, outcome=OK)
    assert hand.ids() == ["otherwise"]


def test_without_otherwise_a_failure_makes_no_difference(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",)), joins=(Join("j", 1, (publication("then"),)),))
    hand.settle(hand.one(), Verdict.REJECT)
    assert hand.ids() == ["then"]


@pytest.mark.parametrize("end", ["reject", "expire", "purge", "cancel", "max_deliveries", "delete"])
def test_a_join_counts_every_kind_of_end(hand: Hand, end: str) -> None:
    hand.queue("r", max_deliveries=1)
    hand.send(publication("1", "r", joins=("j",), expires=START + 20), joins=(join(1),))
    if end == "reject":
        hand.settle(hand.one("s", "r"), Verdict.REJECT, Outcome("whatever"))
    elif end == "expire":
        assert hand.later(20).queues == {"q"}
    elif end == "purge":
        hand.purge("r")
    elif end == "cancel":
        hand.cancel("1")
    elif end == "delete":
        hand.delete(Queue("r"))
    else:
        hand.settle(hand.one("s", "r"), Verdict.REQUEUE)
    assert hand.effects.queues >= {"q"}
    assert hand.ids() == ["otherwise"]


def test_a_message_counts_once_however_often_it_ends(hand: Hand) -> None:
    hand.declare(Exchange("x", "fanout"), Queue("r"), Binding("x", "q"), Binding("x", "r"))
    hand.send(publication("1", exchange="x", joins=("j",)), publication("2", "r", joins=("j",)), joins=(join(),))
    first, copy, second = hand.take("s", "q", "r")
    hand.settle(first, Verdict.REJECT)
    hand.replay(*hand.numbers())
    again = hand.one()
    hand.settle(again)
    hand.settle(again)
    hand.settle(copy, Verdict.REQUEUE)
    copy = hand.one("s", "r")
    hand.settle(copy, Verdict.REJECT)
    hand.replay(*hand.numbers())
    hand.settle(hand.one("s", "r"))
    assert hand.ids("s", "q", "r") == []
    hand.settle(second)
    assert hand.ids() == ["otherwise"]


def test_a_join_that_comes_after_its_members_comes_together_at_once(hand: Hand) -> None:
    hand.put("1", "2", joins=("j",))
    hand.settle(hand.one(), outcome=FAILED)
    hand.settle(hand.one())
    hand.reopen()
    hand.send(joins=(join(),))
    assert hand.effects.queues == {"q"}
    assert hand.ids() == ["otherwise"]


def test_a_join_never_comes_together_twice(hand: Hand) -> None:
    hand.put("1", "2", "3", joins=("j",))
    for delivery in hand.take(credit=2):
        hand.settle(delivery)
    for _ in range(2):
        hand.send(joins=(join(),))
    hand.settle(hand.one())
    assert hand.ids() == ["then"]
    hand.send(joins=(Join("j", 1, (publication("another"),)),))
    assert hand.ids() == []


def test_a_join_of_a_known_id_is_left_as_it_is(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",)), joins=(join(2),))
    hand.send(joins=(Join("j", 1, (publication("another"),)),))
    hand.settle(hand.one())
    assert hand.ids() == []


def test_a_join_of_nothing_comes_together_at_once(hand: Hand) -> None:
    hand.send(joins=(join(0),))
    assert hand.ids() == ["then"]


def test_a_join_that_expires_never_comes_together(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",)), joins=(join(1, expires=START + 10),))
    assert hand.store.next_due(hand.now) == START + 10
    hand.later(10)
    hand.settle(hand.one())
    hand.send(joins=(join(1),))
    assert hand.ids() == []


def test_joins_and_their_members_are_remembered_for_their_span(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.queue()
    hand.open(ttl=10_000.0)
    hand.put("1", joins=("early",))
    hand.settle(hand.one())
    hand.send(publication("2", joins=("j",)), joins=(join(1),))
    hand.settle(hand.one())
    assert hand.ids() == ["then"]
    hand.later(99)
    hand.send(joins=(join(0),))
    assert hand.ids() == []
    hand.later(2)
    hand.send(joins=(Join("early", 1, (publication("never"),)),))
    assert hand.ids() == []
    hand.send(joins=(Join("j", 0, (publication("anew"),)),))
    assert hand.ids() == ["anew"]


def test_an_open_join_waits_as_long_as_it_takes(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.queue()
    hand.open(ttl=10_000.0)
    hand.put("1", "2", joins=("j",))
    hand.settle(hand.one())
    hand.send(joins=(join(),))
    hand.later(500)
    hand.settle(hand.one())
    assert hand.ids() == ["then"]


def test_a_parked_member_has_not_ended(hand: Hand) -> None:
    hand.send(publication("1", joins=("j",)), joins=(join(1),))
    hand.settle(hand.one(), Verdict.PARK)
    assert hand.ids() == []
    hand.replay(*hand.numbers())
    hand.settle(hand.one(), outcome=OK)
    assert hand.ids() == ["then"]


def test_joins_may_lead_to_joins_however_many(hand: Hand) -> None:
    size = 2_000
    chain = [Join(str(n), 1, (), (publication(str(n + 1), "nowhere", joins=(str(n + 1),)),)) for n in range(size)]
    last = Join(str(size), 1, (publication("end"),), (publication("failed"),))
    hand.send(publication("0", joins=("0",)), joins=(*chain, last))
    hand.settle(hand.one(), outcome=FAILED)
    assert hand.ids() == ["failed"]


def test_what_a_join_publishes_may_have_been_cancelled_and_counts_for_its_own_joins(hand: Hand) -> None:
    hand.cancel("2", outcome=STOPPED)
    then = publication("2", joins=("k", "l"), keep_result=100.0), publication("3")
    last = (Join(name, 1, (), (publication(f"otherwise {name}"),)) for name in ("k", "l"))
    hand.send(publication("1", joins=("j",)), joins=(Join("j", 1, then), *last))
    hand.settle(hand.one(), outcome=OK)
    assert hand.effects == Effects(queues=frozenset({"q"}), results=frozenset({"2"}))
    assert hand.state("2") == STOPPED.state
    assert hand.ids() == ["3", "otherwise k", "otherwise l"]


def test_cancelled_messages_lead_from_join_to_join_however_many(hand: Hand) -> None:
    size = 2_000
    names = [str(number) for number in range(1, size + 1)]
    hand.cancel(*names)
    chain = [Join(name, 1, (publication(name, joins=(f"{name}+",)),)) for name in names]
    links = [
        Join(f"{name}+", 1, (), (publication(f"to {name}", "nowhere", joins=(after,)),))
        for name, after in zip(names, [*names[1:], "end"], strict=True)
    ]
    hand.send(publication("0", joins=("1",)), joins=(*chain, *links, Join("end", 1, (), (publication("end"),))))
    hand.settle(hand.one(), outcome=OK)
    assert hand.ids() == ["end"]


# Cancelling ----------------------------------------------------------------------------------------------------------


def test_cancelling_ends_what_waits_at_once(hand: Hand) -> None:
    hand.put("1", "2", "3", keep_result=100.0)
    hand.put("4", not_before=START + 10, keep_result=100.0)
    assert hand.cancel("1", "4") == Effects(results=frozenset({"1", "4"}))
    assert hand.result("1") == Result("1", STOPPED, final=True, at=START)
    hand.later(10)
    assert hand.ids() == ["2", "3"]
    assert hand.dead() == []


def test_cancelling_marks_what_runs_with_every_poll(hand: Hand) -> None:
    hand.open("t")
    hand.put("1", "2", "3", keep_result=100.0)
    first, second = hand.take(credit=2)
    assert hand.cancel("1") == Effects(sessions=frozenset({"s"}))
    assert hand.poll(credit=0).cancelled == (first.token,)
    hand.reopen()
    assert hand.poll(credit=0).cancelled == (first.token,)
    assert hand.poll("t", credit=0).cancelled == ()
    assert hand.result("1") is None
    hand.settle(first, outcome=OK)
    assert hand.state("1") == "SUCCESS"
    assert hand.poll(credit=0).cancelled == ()
    assert second.message.id == "2"


@pytest.mark.parametrize("way", ["requeue", "not held", "close", "lapse", "park"])
def test_a_cancelled_message_that_comes_back_ends_so(hand: Hand, way: str) -> None:
    hand.put("1", keep_result=100.0)
    delivery = hand.one()
    hand.cancel("1")
    hand.cancel("1", outcome=OK)
    if way == "requeue":
        hand.settle(delivery, Verdict.REQUEUE)
    elif way == "park":
        hand.settle(delivery, Verdict.PARK)
    elif way == "not held":
        hand.poll(held=(), credit=0)
    elif way == "close":
        hand.close()
    else:
        hand.later(30)
    assert hand.effects.results == {"1"}
    assert hand.result("1").outcome == STOPPED  # type: ignore[union-attr]
    assert hand.counts() == (0, 0, 0, 0)


def test_what_has_yet_to_come_ends_as_it_comes(hand: Hand) -> None:
    hand.send(joins=(Join("j", 1, (publication("then"),), (publication("otherwise"),)),))
    assert hand.cancel("1") == Effects()
    hand.cancel("1", outcome=OK)
    hand.reopen()
    assert hand.send(publication("1", keep_result=100.0, joins=("j",))) == [Published(PublishState.ACCEPTED)]
    assert hand.effects == Effects(queues=frozenset({"q"}), results=frozenset({"1"}))
    assert hand.state("1") == "REVOKED"
    assert hand.send(publication("1")) == [Published(PublishState.DUPLICATE)]
    assert hand.send(publication("1", body=b"x")) == [Published(PublishState.REFUSED, reason="id_of_another_message")]
    assert hand.ids() == ["otherwise"]


def test_a_mark_for_what_has_yet_to_come_is_remembered_for_its_span(make_store: MakeStore) -> None:
    hand = make_store(remember=100.0)
    hand.queue()
    hand.open(ttl=1000.0)
    hand.cancel("1")
    hand.later(99)
    hand.cancel("2")
    hand.later(2)
    hand.put("1", "2")
    assert hand.ids() == ["1"]


def test_cancelling_what_has_ended_does_nothing(hand: Hand) -> None:
    hand.put("1", "2", keep_result=100.0)
    hand.settle(hand.one(), outcome=OK)
    hand.settle(hand.one(), Verdict.REJECT)
    assert hand.cancel("1", "2") == Effects()
    assert [hand.state("1"), hand.state("2")] == ["SUCCESS", "rejected"]
    assert hand.dead() == [("2", "rejected")]


def test_cancelling_reaches_every_copy(hand: Hand) -> None:
    hand.declare(Exchange("x", "fanout"), *[Queue(name) for name in "abc"], *[Binding("x", name) for name in "abc"])
    hand.put("1", exchange="x", keep_result=100.0)
    running = hand.one("s", "a")
    hand.settle(hand.one("s", "b"), Verdict.PARK)
    assert hand.cancel("1") == Effects(results=frozenset({"1"}), sessions=frozenset({"s"}))
    assert [hand.counts(name) for name in "abc"] == [(0, 0, 1, 0), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert hand.settle(running) is SettleState.DONE


# The dead ------------------------------------------------------------------------------------------------------------


def test_the_dead_are_listed_as_they_were(hand: Hand) -> None:
    hand.declare(Exchange("x"), Binding("x", "q", "k"))
    hand.put("1", exchange="x", queue="k", priority=3)
    hand.settle(hand.one(), Verdict.REQUEUE)
    hand.now += 1
    hand.settle(hand.one(), Verdict.REJECT, reason="no such colour")
    (letter,) = hand.store.dead_letters(None, 0, ANY)
    assert letter.message == Message("1", b"1", priority=3)
    assert (letter.queue, letter.exchange, letter.routing_key) == ("q", "x", "k")
    assert (letter.reason, letter.detail, letter.at, letter.count) == ("rejected", "no such colour", START + 1, 2)
    hand.reopen()
    assert hand.store.dead_letters(None, 0, ANY) == [letter]


def test_the_dead_are_listed_page_by_page(hand: Hand) -> None:
    hand.queue("r")
    hand.put(*"abcdef")
    hand.put(*"uvw", queue="r")
    for delivery in hand.take("s", "q", "r"):
        hand.settle(delivery, Verdict.PARK if delivery.message.id in "bv" else Verdict.REJECT)
    pages, after = [], 0
    while page := hand.store.dead_letters("q", after, 4):
        pages.append("".join(letter.message.id for letter in page))
        after = page[-1].number
    assert pages == ["abcd", "ef"]
    numbers = hand.numbers()
    assert numbers == sorted(numbers)
    hand.drop(numbers[1], numbers[3])
    assert [letter.message.id for letter in hand.store.dead_letters(None, 0, 3)] == ["a", "c", "e"]
    assert hand.store.dead_letters(None, 0, 0) == []
    assert hand.dead("r") == [("u", "rejected"), ("v", "parked"), ("w", "rejected")]
    assert (hand.stats("q").dead, hand.stats("r").dead) == (4, 3)


def test_a_replayed_message_is_new_at_the_end_of_its_queue(hand: Hand) -> None:
    hand.queue(max_deliveries=1, message_ttl=50.0)
    hand.put("1", keep_result=100.0, expires=START + 10)
    hand.put("2", keep_result=100.0, not_before=START + 40, expires=START + 20)
    hand.settle(hand.one(), Verdict.REQUEUE)
    hand.later(25)
    assert hand.dead() == [("1", "max_deliveries"), ("2", "expired")]
    hand.put("3")
    assert hand.replay(*hand.numbers(), 999) == 2
    assert hand.effects.queues == {"q"}
    assert [hand.result("1"), hand.result("2")] == [None, None]
    assert hand.dead() == []
    third, first, second = hand.take()
    assert [third.message.id, first.message.id, second.message.id] == ["3", "1", "2"]
    assert (first.count, first.published_at, first.message.expires) == (1, START + 25, None)
    hand.settle(third)
    hand.settle(first, outcome=OK)
    assert hand.state("1") == "SUCCESS"
    assert hand.replay(*hand.numbers()) == 0
    hand.settle(second, Verdict.REQUEUE)
    hand.replay(*hand.numbers())
    hand.later(29)
    hand.later(25)
    assert hand.dead() == [("2", "expired")]


def test_what_has_no_queue_any_more_is_not_replayed(hand: Hand) -> None:
    hand.put("1")
    hand.settle(hand.one(), Verdict.REJECT)
    hand.delete(Queue("q"))
    assert hand.replay(*hand.numbers()) == 0
    assert hand.dead() == [("1", "rejected")]
    hand.queue()
    assert hand.counts() == (0, 0, 0, 1)
    assert hand.replay(*hand.numbers()) == 1
    assert hand.ids() == ["1"]


def test_a_message_that_was_cancelled_before_it_died_may_be_replayed(hand: Hand) -> None:
    hand.put("1")
    delivery = hand.one()
    hand.cancel("1")
    hand.settle(delivery, Verdict.REJECT)
    hand.replay(*hand.numbers())
    delivery = hand.one()
    assert hand.poll(credit=0).cancelled == ()
    hand.settle(delivery, Verdict.REQUEUE)
    assert hand.ids() == ["1"]


def test_the_dead_are_dropped_for_good(hand: Hand) -> None:
    hand.put("1", "2", "3", keep_result=100.0)
    hand.settle(hand.one(), Verdict.REJECT, FAILED)
    hand.settle(hand.one(), Verdict.PARK, HALF)
    assert hand.drop(*hand.numbers(), 999) == 2
    assert hand.effects.results == {"2"}
    assert [hand.state("1"), hand.state("2")] == ["FAILURE", "dropped"]
    assert hand.dead() == []
    assert hand.counts() == (1, 0, 0, 0)
    assert hand.drop(*hand.numbers()) == 0


# The schedule --------------------------------------------------------------------------------------------------------


def entry(due: float, name: str = "nightly", spec: bytes = b"0 3 * * *") -> Entry:
    return Entry(name, due, publication(f"{name}@{due}"), spec)


def test_an_entry_is_written_only_over_the_one_expected(hand: Hand) -> None:
    plan = hand.store.plan
    assert plan(entry(10.0), 5.0, hand.now, None) == (False, Effects())
    assert hand.store.schedule() == []
    assert plan(entry(10.0), None, hand.now, None) == (True, Effects())
    assert plan(entry(20.0), None, hand.now, None) == (False, Effects())
    done, effects = plan(entry(20.0), 10.0, hand.now, entry(10.0).publication)
    assert (done, effects.queues) == (True, {"q"})
    assert plan(entry(20.0), 10.0, hand.now, publication("twice")) == (False, Effects())
    assert hand.ids() == ["nightly@10.0"]
    hand.reopen()
    assert hand.store.schedule() == [entry(20.0)]


def test_entries_are_listed_the_next_due_first(hand: Hand) -> None:
    for due, name in [(30.0, "c"), (10.0, "b"), (20.0, "a"), (10.0, "a2")]:
        hand.store.plan(entry(due, name), None, hand.now, None)
    assert [found.name for found in hand.store.schedule()] == ["a2", "b", "a", "c"]


def test_an_entry_is_removed(hand: Hand) -> None:
    hand.store.plan(entry(10.0), None, hand.now, None)
    assert hand.store.unplan("nightly")
    assert not hand.store.unplan("nightly")
    assert hand.store.plan(entry(10.0), 10.0, hand.now, None) == (False, Effects())


def test_what_the_schedule_publishes_into_nowhere_fails_visibly(hand: Hand) -> None:
    lost = publication("lost", "nowhere", keep_result=10.0)
    _, effects = hand.store.plan(entry(10.0), None, hand.now, lost)
    assert (effects.results, hand.state("lost")) == ({"lost"}, "unrouted")


# Restarts ------------------------------------------------------------------------------------------------------------


def test_all_is_there_after_a_restart_where_a_store_survives_it(hand: Hand) -> None:
    hand.declare(Exchange("x", "topic"), Binding("x", "q", "#"))
    hand.put("1", "2", "3", keep_result=100.0)
    hand.put("4", not_before=START + 10)
    held = hand.one()
    hand.settle(hand.one(), Verdict.REJECT)
    before = hand.stats(), hand.dead(), hand.store.bindings(), hand.store.leased(None), hand.store.next_due(hand.now)
    hand.reopen()
    after = hand.stats(), hand.dead(), hand.store.bindings(), hand.store.leased(None), hand.store.next_due(hand.now)
    assert before == after
    assert hand.settle(held, outcome=OK) is SettleState.DONE
    hand.later(10)
    assert hand.ids() == ["3", "4"]
    new = hand.store.leased(None)
    assert all(token > held.token for _, token, _ in new)
