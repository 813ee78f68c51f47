"""What an application asks of its broker, step by step: the test plays the broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from backwater_tornado.broker.values import (
    Join,
    Outcome,
    Publication,
    Published,
    PublishState,
    Result,
    unpack,
)
from backwater_tornado.driving import drive
from backwater_tornado.errors import (
    CallFailed,
    DeadlineExceeded,
    Draining,
    OutcomeUnknown,
    TaskNotAccepted,
    TLSFailed,
    UnknownKey,
    Unreachable,
)
from backwater_tornado.tasks import flows
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.companions import Companions
from backwater_tornado.tasks.flows import (
    GRACE,
    MAX_IDS,
    MAX_MESSAGES,
    MAX_NAP,
    Nap,
    completed_flow,
    forget_flow,
    look_flow,
    revoke_flow,
    send_flow,
    wait_flow,
)
from backwater_tornado.tasks.signatures import Canvas, chain, group, signature
from backwater_tornado.tasks.workflow import Context, Order, plan_canvas

TAKEN = Published(PublishState.ACCEPTED, ("default",))
A = signature("m.a")
WAIT = 6.0


def orders(*canvases: Canvas) -> list[Order]:
    numbers = count(1)
    context = Context(now=0.0, new_id=lambda: f"id{next(numbers)}")
    return [plan_canvas(canvas, context) for canvas in canvases]


class Broker:
    """Answers each ask; time passes when it is told to."""

    def __init__(self, *failures: CallFailed) -> None:
        self.now = 100.0
        self.failures = list(failures)
        self.asks: list[Ask[Any]] = []
        self.naps: list[float] = []
        #: Ids that are final, by when.
        self.ended: dict[str, float] = {}
        self.refused: dict[str, Published] = {}
        self.sent: list[tuple[list[Join], list[Publication]]] = []
        #: Results that fit into one answer.
        self.most = 10**9

    def clock(self) -> float:
        return self.now

    def __call__(self, step: Ask[Any] | Nap) -> Any:
        if isinstance(step, Nap):
            self.naps.append(step.seconds)
            self.now += step.seconds
            return None
        self.asks.append(step)
        if self.failures:
            self.now += 1.0
            raise self.failures.pop(0)
        return getattr(self, step.verb)(*step.args)

    def publish(self, publications: bytes, joins: bytes | None, create: bool) -> list[Published]:
        assert create
        given = unpack(publications, list[Publication])
        self.sent.append((unpack(joins, list[Join]) if joins is not None else [], given))
        return [self.refused.get(each.message.id, TAKEN) for each in given]

    def results(self, ids: list[str], wait: float, beside: Sequence[str] = ()) -> list[Result | None]:
        def look() -> list[Result | None]:
            return [
                Result(each, Outcome("SUCCESS"), self.ended.get(each, 1e9) <= self.now, self.now)
                if each in self.ended
                else None
                for each in (*ids, *beside)
            ]

        if not any(each is not None and each.final for each in look()):
            self.now = min(self.now + wait, *(self.ended.get(each, 1e9) for each in ids), 1e9)
        fitting, room = look(), self.most
        for place, each in enumerate(fitting):
            room -= each is not None
            fitting[place] = each if room >= 0 else None
        return fitting

    def cancel(self, ids: list[str], outcome: Outcome) -> None:
        pass

    def forget(self, ids: list[str]) -> None:
        pass


# Sending -------------------------------------------------------------------------------------------------------------


def test_what_is_sent_arrives_with_its_joins() -> None:
    broker = Broker()
    (order,) = orders(A | A)
    drive(send_flow([order]), broker)
    assert broker.sent == [(list(order.joins), list(order.publications))]


def test_many_are_sent_in_few_requests_and_in_their_order() -> None:
    broker = Broker()
    given = orders(*[A] * (2 * MAX_MESSAGES + 1))
    drive(send_flow(given), broker)
    assert [len(publications) for _, publications in broker.sent] == [MAX_MESSAGES, MAX_MESSAGES, 1]
    assert [each.message.id for _, several in broker.sent for each in several] == [order.ids[0] for order in given]


def test_a_request_is_bounded_in_bytes_too_and_a_large_message_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MAX_BYTES", 2_000)
    broker = Broker()
    small, large = signature("m.a", ["x" * 500]), signature("m.a", ["x" * 5_000])
    drive(send_flow(orders(small, small, large, small)), broker)
    assert [len(publications) for _, publications in broker.sent] == [2, 1, 1]


def test_joins_count_for_the_size_of_a_request_and_come_before_what_they_count() -> None:
    broker = Broker()
    (order,) = orders(group([A | A] * MAX_MESSAGES))
    drive(send_flow([order]), broker)
    assert [(len(joins), len(publications)) for joins, publications in broker.sent] == [
        (MAX_MESSAGES, 0),
        (0, MAX_MESSAGES),
    ]


def test_an_order_of_nothing_asks_nothing() -> None:
    broker = Broker()
    drive(send_flow(orders(group())), broker)
    assert broker.asks == []


def test_a_repetition_is_as_good_as_the_first() -> None:
    broker = Broker()
    broker.refused = {"id1": Published(PublishState.DUPLICATE, ("default",))}
    drive(send_flow(orders(A)), broker)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Published(PublishState.REFUSED, reason="queue_full"), "queue_full"),
        (Published(PublishState.UNROUTED), "unrouted"),
    ],
)
def test_who_was_refused_is_told_and_all_others_have_been_sent(answer: Published, reason: str) -> None:
    broker = Broker()
    broker.refused = {"id1": answer}
    with pytest.raises(TaskNotAccepted, match=f"did not take the task id1: {reason}") as caught:
        drive(send_flow(orders(*[A] * (MAX_MESSAGES + 1))), broker)
    assert caught.value.extra["refused"] == {"id1": reason}
    assert sum(len(publications) for _, publications in broker.sent) == MAX_MESSAGES + 1


def test_of_many_refused_the_first_is_named_and_the_others_counted() -> None:
    broker = Broker()
    broker.refused = {f"id{n}": Published(PublishState.REFUSED, reason="queue_full") for n in (1, 2, 3)}
    with pytest.raises(TaskNotAccepted, match="the task id1 and 2 others: queue_full"):
        drive(send_flow(orders(A, A, A)), broker)


def test_sending_gives_up_when_the_client_has() -> None:
    with pytest.raises(Unreachable):
        drive(send_flow(orders(A)), Broker(Unreachable()))


# Waiting -------------------------------------------------------------------------------------------------------------


def wait(broker: Broker, *ids: str, timeout: float | None = None) -> list[str]:
    return list(drive(wait_flow(ids, timeout, WAIT, broker.clock), broker))


def test_one_is_waited_for_in_one_request() -> None:
    broker = Broker()
    broker.ended = {"a": 103.0}
    assert wait(broker, "a") == ["a"]
    assert [(each.args, each.wait, each.within) for each in broker.asks] == [((["a"], WAIT), WAIT, None)]
    assert broker.now == 103.0


def test_what_has_ended_beside_it_comes_along() -> None:
    class Handle:
        id, known = "b", None

    broker, companions, handle = Broker(), Companions(), Handle()
    companions.add(handle)
    broker.ended = {"a": 103.0, "b": 101.0}
    found = drive(wait_flow(["a"], None, WAIT, broker.clock, companions), broker)
    assert list(found) == ["a"]
    assert [each.args for each in broker.asks] == [(["a"], WAIT, ["b"])]
    assert companions.take(handle) == Result("b", Outcome("SUCCESS"), True, 103.0)


def test_it_is_asked_for_again_as_long_as_it_takes() -> None:
    broker = Broker()
    broker.ended = {"a": 100.0 + 10 * WAIT}
    assert wait(broker, "a") == ["a"]
    assert len(broker.asks) == 10


def test_a_result_that_is_not_final_is_not_enough() -> None:
    broker = Broker()
    broker.ended = {"a": 1e6}
    with pytest.raises(DeadlineExceeded, match="the task has not ended in time"):
        wait(broker, "a", timeout=10)
    assert broker.now == 110.0
    assert [(each.wait, each.within) for each in broker.asks] == [(6.0, 10.0 + GRACE), (4.0, 4.0 + GRACE)]


def test_with_no_time_it_is_looked_at_once() -> None:
    broker = Broker()
    with pytest.raises(DeadlineExceeded):
        wait(broker, "a", timeout=0)
    assert [(each.wait, each.within) for each in broker.asks] == [(0.0, GRACE)]
    broker.ended = {"a": 0.0}
    assert wait(broker, "a", timeout=0) == ["a"]


def test_a_large_group_that_has_ended_costs_few_requests() -> None:
    broker = Broker()
    ids = [f"{n}" for n in range(10 * MAX_IDS)]
    broker.ended = dict.fromkeys(ids, 0.0)
    assert wait(broker, *ids) == ids
    assert len(broker.asks) == 10


def test_a_large_group_that_is_under_way_costs_few_requests() -> None:
    broker = Broker()
    ids = [f"{n}" for n in range(2 * MAX_IDS)]
    broker.ended = {each: 100.0 + number / 1000 for number, each in enumerate(ids)}
    assert sorted(wait(broker, *ids)) == sorted(ids)
    assert len(broker.asks) <= 6


def test_of_several_that_are_late_it_is_told_how_many() -> None:
    broker = Broker()
    broker.ended = {"a": 0.0}
    with pytest.raises(DeadlineExceeded, match="2 tasks have not ended in time"):
        wait(broker, "a", "b", "c", timeout=1)


def test_none_are_waited_for_without_asking() -> None:
    assert wait(broker := Broker()) == []
    assert broker.asks == []


def test_an_id_given_twice_is_waited_for_once() -> None:
    broker = Broker()
    broker.ended = {"a": 0.0}
    assert wait(broker, "a", "a") == ["a"]


@pytest.mark.parametrize("error", [Unreachable(), OutcomeUnknown(), DeadlineExceeded(), Draining()])
def test_a_link_that_is_down_is_waited_for_with_growing_pauses(error: CallFailed) -> None:
    broker = Broker(*[error] * 8)
    broker.ended = {"a": 0.0}
    assert wait(broker, "a") == ["a"]
    assert broker.naps == [0.1, 0.2, 0.4, 0.8, 1.6, MAX_NAP, MAX_NAP, MAX_NAP]


def test_it_is_not_waited_for_longer_than_the_caller_has() -> None:
    broker = Broker(*[Unreachable("cut")] * 99)
    with pytest.raises(DeadlineExceeded, match="could not be asked in time") as caught:
        wait(broker, "a", timeout=2.0)
    assert isinstance(caught.value.__cause__, Unreachable)
    assert broker.now <= 104.0
    assert sum(broker.naps) <= 2.0


@pytest.mark.parametrize("error", [UnknownKey("who?"), TLSFailed()])
def test_what_no_waiting_mends_is_raised(error: CallFailed) -> None:
    with pytest.raises(type(error)):
        wait(Broker(error), "a")


# One after the other -------------------------------------------------------------------------------------------------


def completed(broker: Broker, *ids: str, timeout: float | None = None) -> list[str]:
    return list(drive(completed_flow(ids, timeout, WAIT, broker.clock), broker))


def test_those_that_have_ended_are_given_as_soon_as_there_is_one() -> None:
    broker = Broker()
    broker.ended = {"a": 120.0, "b": 113.0, "c": 113.0}
    assert completed(broker, "a", "b", "c") == ["b", "c"]
    assert broker.now == 113.0


def test_of_very_many_all_are_looked_at() -> None:
    broker = Broker()
    ids = [f"{n}" for n in range(3 * MAX_IDS)]
    broker.ended = {"7": 0.0, f"{3 * MAX_IDS - 1}": 0.0}
    assert completed(broker, *ids) == ["7", f"{3 * MAX_IDS - 1}"]
    assert [each.wait for each in broker.asks] == [0.0, 0.0, 0.0]
    broker = Broker()
    broker.ended = {"7": 105.0}
    assert completed(broker, *ids) == ["7"]
    assert {each.wait for each in broker.asks} == {0.0, MAX_NAP}


def test_if_none_ends_in_time_it_is_told() -> None:
    broker = Broker()
    with pytest.raises(DeadlineExceeded, match="2 tasks"):
        completed(broker, "a", "b", timeout=3)
    assert broker.now == 103.0


def test_of_none_none_has_ended() -> None:
    assert completed(Broker()) == []


# The rest ------------------------------------------------------------------------------------------------------------

MANY = [f"{n}" for n in range(2 * MAX_IDS + 1)]


@pytest.mark.parametrize(
    ("flow", "verb"),
    [
        (look_flow, "results"),
        (forget_flow, "forget"),
        (lambda ids: revoke_flow(ids, Outcome("REVOKED", failed=True)), "cancel"),
    ],
)
def test_many_are_asked_for_in_portions(flow: Callable[..., Any], verb: str) -> None:
    broker = Broker()
    drive(flow(iter(MANY)), broker)
    assert [(each.verb, len(each.args[0])) for each in broker.asks] == [(verb, MAX_IDS), (verb, MAX_IDS), (verb, 1)]
    assert [one for each in broker.asks for one in each.args[0]] == MANY


def test_the_last_known_is_given_in_order() -> None:
    broker = Broker()
    broker.ended = {"a": 0.0, "c": 1e6}
    found = drive(look_flow(["a", "b", "c"]), broker)
    assert [None if each is None else each.final for each in found] == [True, None, False]


def test_what_did_not_fit_into_an_answer_is_asked_for_again() -> None:
    broker = Broker()
    broker.most, broker.ended = 2, {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1e6, "e": 0.0}
    assert wait(broker, "a", "b", "c", "e", timeout=0) == ["a", "b", "c", "e"]
    broker.asks.clear()
    found = drive(look_flow(["a", "b", "unknown", "c", "d", "e", "a"]), broker)
    assert [each and each.id for each in found] == ["a", "b", None, "c", "d", "e", "a"]
    assert [len(each.args[0]) for each in broker.asks] == [7, 4, 2, 1]


def test_what_is_not_known_is_not_asked_for_again() -> None:
    broker = Broker()
    assert drive(look_flow(["a", "b"]), broker) == [None, None]
    assert len(broker.asks) == 1


def test_a_revocation_says_how_it_ends() -> None:
    broker = Broker()
    outcome = Outcome("REVOKED", failed=True)
    drive(revoke_flow(["a"], outcome), broker)
    assert broker.asks[0].args == (["a"], outcome)


def test_a_chain_is_sent_by_its_first() -> None:
    broker = Broker()
    drive(send_flow(orders(chain(A, A, A))), broker)
    assert [(len(joins), len(publications)) for joins, publications in broker.sent] == [(2, 1)]
