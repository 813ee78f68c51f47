"""What every store does with transient queues: as with others, until it is opened again."""

from __future__ import annotations

import pytest

from backwater_tornado.broker.values import (
    Binding,
    Exchange,
    Join,
    Published,
    PublishState,
    Queue,
    SettleState,
    Verdict,
)
from tests.stores import OK, STOPPED, STORES, Hand, publication

#: Of the others nothing is left.
LASTING = pytest.mark.parametrize("store_kind", [kind for kind in STORES if kind.survives], ids=lambda kind: kind.name)


@pytest.fixture
def lasting(hand: Hand) -> Hand:
    """A store that survives, with a transient queue `t` beside the durable `q`; both take what goes to `x`."""
    hand.declare(Queue("t", transient=True), Exchange("x", "fanout"), Binding("x", "t"), Binding("x", "q"))
    return hand


def test_a_session_receives_from_both_kinds_in_one_poll(hand: Hand) -> None:
    hand.queue("t", transient=True)
    hand.put("1", "2")
    hand.put("3", "4", queue="t")
    batch = hand.poll("s", "t", "q", credit=3)
    assert [delivery.message.id for delivery in batch.deliveries] == ["3", "4", "1"]
    tokens = [delivery.token for delivery in batch.deliveries]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == batch.number
    assert [hand.settle(token) for token in tokens] == [SettleState.DONE] * 3
    assert hand.ids("s", "q", "t") == ["2"]


@LASTING
def test_it_is_gone_when_the_store_is_opened_again_with_all_that_was_in_it(lasting: Hand) -> None:
    lasting.put("1", "2", "3", "4", queue="t", keep_result=100.0)
    lasting.put("5", queue="t", not_before=lasting.now + 5, keep_result=100.0)
    lasting.settle(lasting.one("s", "t"), Verdict.REJECT)
    lasting.settle(lasting.one("s", "t"), Verdict.PARK)
    out = lasting.one("s", "t")
    lasting.reopen()
    assert [stats.queue.name for stats in lasting.store.stats(None, lasting.now)] == ["q"]
    assert lasting.store.bindings() == [Binding("x", "q")]
    assert lasting.dead() == []
    assert lasting.store.leased(None) == []
    assert [lasting.state(name) for name in "12345"] == ["rejected", *["dropped"] * 4]
    assert lasting.settle(out) is SettleState.STALE
    assert lasting.send(publication("6", "t")) == [Published(PublishState.UNROUTED)]
    lasting.queue("t", transient=True)
    assert lasting.ids("s", "t") == []
    assert lasting.counts("t") == (0, 0, 0, 0)


@LASTING
def test_what_goes_to_both_kinds_stays_in_the_durable_queue(lasting: Hand) -> None:
    assert lasting.send(publication("1", "", "x")) == [Published(PublishState.ACCEPTED, ("t", "q"))]
    lasting.reopen()
    assert lasting.ids() == ["1"]


@LASTING
def test_what_was_lost_with_it_has_ended_for_joins_and_keys(lasting: Hand) -> None:
    join = Join("j", 2, (publication("then"),), (publication("otherwise"),))
    members = publication("1", "t", joins=("j",), unique="u"), publication("2", "t", joins=("j",), keep_result=9.0)
    lasting.send(*members, joins=(join,))
    lasting.one("s", "t")
    lasting.reopen()
    assert lasting.ids() == ["otherwise"]
    lasting.put("3", unique="u")


@LASTING
def test_a_message_that_was_out_and_cancelled_has_that_outcome(lasting: Hand) -> None:
    lasting.put("1", queue="t", keep_result=100.0)
    lasting.one("s", "t")
    lasting.cancel("1", outcome=STOPPED)
    lasting.reopen()
    assert lasting.state("1") == STOPPED.state


@LASTING
def test_no_token_is_given_away_twice(lasting: Hand) -> None:
    lasting.put("1", "2", queue="t")
    lost = lasting.one("s", "t"), lasting.one("s", "t")
    lasting.reopen()
    lasting.put("3")
    kept = lasting.one()
    assert kept.token > max(delivery.token for delivery in lost)
    lasting.reopen()
    assert lasting.settle(kept, outcome=OK) is SettleState.DONE


@LASTING
def test_a_queue_may_become_transient_and_durable_again(lasting: Hand) -> None:
    lasting.put("1")
    lasting.put("2", queue="t")
    lasting.declare(Queue("q", transient=True), Queue("t"))
    lasting.reopen()
    assert lasting.ids("s", "t") == ["2"]
    assert lasting.send(publication("3")) == [Published(PublishState.UNROUTED)]
