"""A relay at work, whatever becomes of it, of the links and of what it carries."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from backwater_tornado.broker.values import Delivery, Message, Outcome, Poll, Settlement, Verdict
from backwater_tornado.errors import InvalidOption, MessageTooLarge, QueueNotInScope
from backwater_tornado.outbox.rules import LEAST_MESSAGES
from backwater_tornado.relay import carrier, homeward, outward, relay
from backwater_tornado.relay.errands import Errand
from backwater_tornado.relay.homeward import LEAST, Ring
from backwater_tornado.relay.options import RelayOptions
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.asks import Ask
from backwater_tornado.tasks.flows import MAX_IDS
from backwater_tornado.tasks.messages import TaskHeaders, encode_headers
from tests.unit.relay.bench import DONE, Bench, hold_back, packed, relaying, when


def test_a_message_goes_and_its_outcome_comes_home() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a")
        await bench.far.until(1, 0, 0, 0)
        (delivery,) = await bench.far.take()
        await bench.far.end(delivery)
        assert (await bench.near.result("a")).outcome == DONE
        await bench.near.until(0, 0, 0, 0)
        await bench.far.until_known("a", None)  # it was taken home

    relaying(test)


def test_what_nobody_waits_for_has_ended_when_it_is_there() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a", keep_result=None)
        await bench.near.until(0, 0, 0, 0)
        assert await bench.far.counts() == (1, 0, 0, 0)
        assert bench.far.link.count("results") == 0

    relaying(test)


@pytest.mark.parametrize("fault", ["before", "after", "twice"])
@pytest.mark.parametrize("verb", ["publish", "results", "forget", "cancel"])
def test_a_message_goes_once_whatever_the_link_does(fault: str, verb: str) -> None:
    async def test(bench: Bench) -> None:
        bench.far.link.faults[verb] = [fault, fault]
        await bench.near.publish("a", "b")
        await bench.far.until(2, 0, 0, 0)
        one, other = await bench.far.take()
        await bench.near.broker.cancel([other.message.id], Outcome("REVOKED", failed=True))
        await bench.far.end(one)
        assert (await bench.near.result(one.message.id)).outcome == DONE
        await bench.far.link.until("forget", 0)

    relaying(test)


def test_the_next_relay_finds_what_a_lost_one_had_handed_over() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a", "b")
        await bench.far.until(2, 0, 0, 0)
        one, other = await bench.far.take()
        await bench.kill()
        await bench.far.end(one)
        bench.start()
        assert (await bench.near.result(one.message.id)).outcome == DONE
        await bench.far.end(other)
        assert (await bench.near.result(other.message.id)).outcome == DONE
        assert await bench.far.counts() == await bench.near.counts() == (0, 0, 0, 0)

    relaying(test)


def test_no_number_of_lost_relays_makes_a_message_deadly() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a")
        await bench.far.until(1, 0, 0, 0)
        for _ in range(5):
            await bench.kill()
            bench.start()
            await bench.far.link.until("results")
        assert await bench.near.counts() == (0, 0, 1, 0)

    relaying(test)


def test_what_is_away_when_a_relay_stops_is_no_delivery() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a")
        for _ in range(3):
            await bench.far.until(1, 0, 0, 0)
            await bench.near.until(0, 0, 1, 0)
            await bench.stop()
            assert await bench.near.counts() == (1, 0, 0, 0)
            bench.start()
        await bench.far.link.until("results")
        await bench.stop()
        (delivery,) = await bench.near.take()
        assert delivery.count == 1

    relaying(test)


def test_a_session_that_was_gone_loses_nothing() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a", "b")
        await bench.far.until(2, 0, 0, 0)
        bench.near.store.close_session(f"\n{bench.relay.consumer.session}", bench.clock.now)
        (taken,) = await bench.near.take(1)  # another has it
        bench.relay.consumer.overtake()
        for delivery in await bench.far.take():
            await bench.far.end(delivery)
        kept = "b" if taken.message.id == "a" else "a"
        assert (await bench.near.result(kept)).outcome == DONE
        assert await bench.near.known(taken.message.id) is None
        assert await bench.far.known(taken.message.id) is not None  # whoever has it may yet ask

    relaying(test)


def test_what_another_has_by_now_is_not_settled_by_the_answer_to_its_publication() -> None:
    async def test(bench: Bench) -> None:
        answered = hold_back(bench.far, "publish")
        await bench.near.publish("a", keep_result=None)
        await bench.far.until(1, 0, 0, 0)
        bench.near.store.close_session(f"\n{bench.relay.consumer.session}", bench.clock.now)
        await bench.near.take()
        bench.relay.consumer.overtake()
        await when(lambda: not bench.relay.carrier.held())
        answered.set()
        await bench.near.publish("b", keep_result=None)
        await bench.far.until(2, 0, 0, 0)
        await bench.near.until(0, 0, 1, 0)
        assert bench.near.link.count("settle") == 1

    relaying(test)


def test_what_is_cancelled_while_its_inputs_are_fetched_does_not_go() -> None:
    async def test(bench: Bench) -> None:
        fetched = hold_back(bench.near, "results")
        await bench.near.publish("a", headers=encode_headers(TaskHeaders("t.f", inputs="b")), body=b"\x92\x90\x80")
        await when(lambda: bench.near.link.count("results"))
        await bench.near.broker.cancel(["a"], Outcome("REVOKED", failed=True))
        assert (await bench.near.result("a")).outcome.state == "REVOKED"
        fetched.set()
        await bench.near.publish("c")
        await bench.far.until(1, 0, 0, 0)
        assert bench.near.link.count("settle") == 1

    relaying(test)


def test_what_was_superseded_is_not_forgotten_there() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a")
        await bench.far.until(1, 0, 0, 0)
        (delivery,) = await bench.far.take()
        bench.near.link.down = True
        await bench.far.end(delivery)
        await when(lambda: len(bench.relay.settling))
        bench.near.store.close_session(f"\n{bench.relay.consumer.session}", bench.clock.now)
        await bench.near.take()
        bench.near.link.down = False
        await when(lambda: not len(bench.relay.settling))
        for _ in range(3):
            bench.relay.consumer.overtake()
            await bench.near.link.until("receive")
        assert bench.far.link.count("forget") == 0

    relaying(test)


def test_a_cancelling_is_passed_on_and_the_far_broker_says_how_it_ended() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a", "b")
        await bench.far.until(2, 0, 0, 0)
        (running,) = await bench.far.take(1)
        await bench.near.broker.cancel(["a", "b"], Outcome("REVOKED", failed=True))
        waiting = "b" if running.message.id == "a" else "a"
        assert (await bench.near.result(waiting)).outcome.state == "REVOKED"
        for _ in range(3):  # it is told with every poll
            bench.relay.consumer.overtake()
            await bench.near.link.until("receive")
        told = [each for ask in bench.far.link.asked if ask.verb == "cancel" for each in ask.args[0]]
        assert sorted(told) == ["a", "b"]
        batch = await bench.far.broker.receive("w", Poll((), 0, running.token, (running.token,)), 20.0)
        assert not isinstance(batch, bytes)
        assert batch.cancelled == (running.token,)
        await bench.far.end(running)
        assert (await bench.near.result(running.message.id)).outcome == DONE

    relaying(test)


def test_what_was_never_tried_is_cancelled_at_once() -> None:
    async def test(bench: Bench) -> None:
        bench.far.link.down = True
        await bench.near.publish("a")
        await bench.far.link.until("publish", 0)
        await bench.near.until(0, 0, 1, 0)
        await when(lambda: bench.far.link.count("publish"))
        await bench.near.publish("b")
        await bench.near.until(0, 0, 2, 0)
        await bench.near.broker.cancel(["b"], Outcome("REVOKED", failed=True))
        assert (await bench.near.result("b")).outcome.state == "REVOKED"
        bench.far.link.down = False
        await bench.far.until(1, 0, 0, 0)

    relaying(test)


def test_progress_is_told_once() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a")
        await bench.far.until(1, 0, 0, 0)
        (delivery,) = await bench.far.take()
        half = Settlement(delivery.token, Verdict.KEEP, Outcome("PROGRESS", b"half"))
        await bench.far.broker.settle("w", [half])
        await bench.near.until_known("a", "PROGRESS")
        await bench.far.link.until("results", 3)
        assert bench.near.link.count("settle") == 1

    relaying(test, wait=0.001)


def test_while_the_far_broker_is_away_what_was_not_tried_goes_back_and_nothing_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "backwater.worker")
    monkeypatch.setattr(relay, "LOOK", 0.01)

    async def test(bench: Bench) -> None:
        bench.far.link.down = True
        await bench.near.publish("a")
        await when(lambda: bench.far.line.failing)
        bench.relay.carrier.outward._most = 1  # or the next attempt might take the others along
        await bench.near.publish("b", "c")
        await when(lambda: len(bench.near.link.polls()[-1].held or ()) == 3)
        monkeypatch.setattr(carrier, "PATIENCE", -1.0)  # for longer than it waits
        await when(lambda: not bench.near.link.polls()[-1].credit)  # one that waited may have taken them again
        await bench.near.until(2, 0, 1, 0)
        bench.relay.consumer.overtake()
        await bench.near.link.until("receive")
        assert await bench.near.counts() == (2, 0, 1, 0)
        bench.far.link.down = False
        monkeypatch.setattr(carrier, "PATIENCE", 5.0)
        await bench.far.until(3, 0, 0, 0)
        await bench.near.until(0, 0, 3, 0)

    relaying(test)
    assert caplog.text.count("cannot be asked") == caplog.text.count("is back") == 1


def test_a_far_broker_that_refuses_keeps_all_of_it_waiting_and_the_probe_says_why() -> None:
    async def test(bench: Bench) -> None:
        assert bench.relay.health().status == "ok"
        refused = bench.far.link.ask

        async def refuse(ask: Ask[Any]) -> Any:
            if ask.verb == "publish":
                raise QueueNotInScope("the key may not publish to 'q'")
            return await refused(ask)

        bench.far.link.ask = refuse  # type: ignore[method-assign]
        await bench.near.publish("a")
        await when(lambda: bench.far.line.failing)
        (reason,) = bench.relay.health().reasons
        assert reason == "the broker refuses to publish: the key may not publish to 'q'"
        bench.far.link.ask = refused  # type: ignore[method-assign]
        await bench.far.until(1, 0, 0, 0)
        assert bench.relay.health().status == "ok"

    relaying(test)


def test_a_far_broker_that_is_silent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwater_tornado.worker.health.SLACK", 0.0)

    async def test(bench: Bench) -> None:
        bench.far.link.down = True
        await bench.near.publish("a")
        await when(lambda: bench.far.line.failing)
        assert any("was not heard of" in each for each in bench.relay.health().reasons)
        bench.far.link.down = False

    relaying(test)


def test_one_that_is_never_taken_holds_up_no_other() -> None:
    async def test(bench: Bench) -> None:
        bench.far.broker.largest = 100
        bench.far.link.down = True  # so that all of them go in one request
        ids = [f"m{number}" for number in range(40)]
        for name in ids:
            await bench.near.publish(name, body=b"x" * (200 if name in ("m0", "m17") else 50))
        await bench.near.until(0, 0, 40, 0)
        bench.far.link.down = False
        before = bench.far.link.count("publish")
        await bench.far.until(38, 0, 0, 0)
        assert bench.far.link.count("publish") - before < 25  # not one by one from then on
        for name in ("m0", "m17"):
            assert b"message_too_large" in (await bench.near.result(name)).outcome.body
        letters = await bench.near.broker.dead_letters("q")
        assert [each.reason for each in letters] == ["rejected"] * 2
        assert all(each.detail.startswith(MessageTooLarge.code) for each in letters)

    relaying(test)


def test_requests_are_smaller_on_a_link_that_fails_and_keep_the_order() -> None:
    async def test(bench: Bench) -> None:
        bench.far.link.faults["publish"] = ["before"] * 8
        ids = [f"m{number:02}" for number in range(60)]
        await bench.near.publish(*ids, keep_result=None)
        await bench.far.until(60, 0, 0, 0)
        assert [each.message.id for each in await bench.far.take()] == ids
        sizes = [len(each) for each in packed(bench.far, "publish")]
        assert sizes[8:10] == [LEAST_MESSAGES, 2 * LEAST_MESSAGES]

    relaying(test)


def test_what_nobody_has_heard_of_for_long_is_published_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homeward, "OVERDUE", -1.0)

    async def test(bench: Bench) -> None:
        await bench.near.publish("a")
        await bench.far.link.until("publish", 3)
        assert await bench.far.counts() == (1, 0, 0, 0)

    relaying(test, wait=0.0)


def test_what_is_away_is_bounded_and_what_is_not_sent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(bench: Bench) -> None:
        await bench.near.publish(*"abcde")
        await bench.far.until(3, 0, 0, 0)
        assert await bench.near.counts() == (2, 0, 3, 0)
        for delivery in await bench.far.take():
            await bench.far.end(delivery)
        await bench.far.until(2, 0, 0, 0)

    relaying(away, prefetch=3)

    async def unsent(bench: Bench) -> None:
        bench.far.link.down = True
        await bench.near.publish("a")
        await bench.near.until(0, 0, 1, 0)
        assert bench.relay.carrier.room() <= 0
        bench.far.link.down = False
        await bench.far.until(1, 0, 0, 0)
        await bench.near.publish("b")
        await bench.far.until(2, 0, 0, 0)

    for bound in ("UNSENT", "UNSENT_BYTES"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(carrier, bound, 1)
            relaying(unsent)


def test_a_request_has_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    room = outward.Room(size=1000)
    monkeypatch.setattr(outward, "Room", lambda: room)

    async def test(bench: Bench) -> None:
        bench.far.link.faults["publish"] = ["before"]  # it grows with each success
        await bench.near.publish(*"abcd", body=b"x" * 40_000, keep_result=None)
        await bench.far.until(4, 0, 0, 0)
        assert len(packed(bench.far, "publish")[0]) == 1

    relaying(test)


def test_a_task_without_the_results_that_it_needs_ends_here() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a", headers=encode_headers(TaskHeaders("t.f", inputs="gone")), body=b"\x92\x90\x80")
        assert (await bench.near.result("a")).outcome.failed
        assert bench.far.link.count("publish") == 0

    relaying(test)


def test_what_comes_while_it_stops_goes_back() -> None:
    async def test(bench: Bench) -> None:
        await when(bench.near.link.polls)
        bench.relay.carrier.closing = True
        await bench.near.publish("a")
        await when(lambda: bench.near.link.count("settle"))
        await bench.near.until(1, 0, 0, 0)
        assert bench.relay.carrier.room() == 0

    relaying(test)


def test_others_are_shown_what_it_does() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish("a", keep_result=None)
        await bench.near.until(0, 0, 0, 0)
        await bench.relay.consumer.show()
        (receiver,) = await bench.near.broker.sessions()
        about = msgspec.json.decode(receiver.about)
        assert (about["relay"], about["queues"]) == ("to the broker", ["q"])
        assert about["counts"] == {"received": 1, "sent": 1, "ack": 1}

    relaying(test)


def test_what_had_ended_before_its_session_was_gone_is_taken_home() -> None:
    async def test(bench: Bench) -> None:
        bench.near.link.faults["settle"] = ["after"]
        await bench.near.publish("a")
        await bench.far.until(1, 0, 0, 0)
        (delivery,) = await bench.far.take()
        await bench.far.end(delivery)
        await bench.near.result("a")
        bench.near.store.close_session(f"\n{bench.relay.consumer.session}", bench.clock.now)
        await bench.far.until_known("a", None)

    relaying(test)


def test_what_has_ended_is_neither_cancelled_nor_given_back() -> None:
    async def test(bench: Bench) -> None:
        settle = hold_back(bench.near, "settle", before=True)
        await bench.near.publish("a", keep_result=None)
        await when(lambda: len(bench.relay.settling))
        await bench.near.broker.cancel(["a"], Outcome("REVOKED", failed=True))
        bench.relay.consumer.overtake()
        await bench.near.link.until("receive", 2)
        bench.relay.stop()
        await bench.near.link.until("receive")
        settle.set()
        await bench.task
        assert bench.far.link.count("cancel") == 0
        assert [len(each) for each in packed(bench.near, "settle", 1)] == [1]

    relaying(test)


def test_what_another_has_by_now_is_not_settled_by_an_answer_that_was_on_its_way() -> None:
    async def test(bench: Bench) -> None:
        answered = hold_back(bench.far, "results")
        await bench.near.publish("a")
        await bench.far.until(1, 0, 0, 0)
        (delivery,) = await bench.far.take()
        await when(lambda: bench.far.link.count("results"))
        bench.near.store.close_session(f"\n{bench.relay.consumer.session}", bench.clock.now)
        await bench.near.take()
        bench.relay.consumer.overtake()
        await when(lambda: not bench.relay.carrier.held())
        await bench.far.end(delivery)
        answered.set()
        await bench.near.publish("b", keep_result=None)
        await when(lambda: bench.near.link.count("settle"))
        await bench.near.until(0, 0, 1, 0)
        assert sum(len(each) for each in packed(bench.near, "settle", 1)) == 1

    relaying(test)


def test_where_one_has_ended_a_few_are_asked_about_next() -> None:
    async def test(bench: Bench) -> None:
        await bench.near.publish(*(f"m{number}" for number in range(200)))
        await bench.far.until(200, 0, 0, 0)
        await when(lambda: bench.far.link.count("results"))
        (delivery,) = await bench.far.take(1)
        await bench.far.end(delivery)
        await bench.near.result(delivery.message.id)
        await when(lambda: LEAST in [len(ask.args[0]) for ask in bench.far.link.asked if ask.verb == "results"])

    relaying(test)


def test_an_errand_is_about_so_many_at_a_time() -> None:
    async def test(bench: Bench) -> None:
        errand = Errand(bench.far.line, asks.forget)
        running = asyncio.ensure_future(errand.run())
        for number in range(MAX_IDS + 1):
            errand.add(f"m{number}")
        await when(lambda: bench.far.link.count("forget") == 2)
        assert [len(ask.args[0]) for ask in bench.far.link.asked if ask.verb == "forget"] == [MAX_IDS, 1]
        running.cancel()

    relaying(test)


def test_a_ring_gives_each_in_its_turn() -> None:
    def away(token: int) -> Any:
        return carrier.take(_delivery(token), 0.0)

    async def main() -> None:
        ring = Ring()
        assert not ring
        taking = asyncio.ensure_future(ring.take(2))
        await asyncio.sleep(0)
        one, two, three = map(away, (1, 2, 3))
        ring.add([one, two])
        ring.add([three], first=True)
        assert await taking == [three, one]
        one.is_ended = two.is_ended = True
        ring.add([one, three])
        assert await ring.take(2) == [three]

    asyncio.run(main())


def _delivery(token: int) -> Any:
    return Delivery(token, "q", Message(f"m{token}", b""), "", "q", 1, 0.0)


@pytest.mark.parametrize("wrong", [{"prefetch": 0}, {"ttl": 1.0, "wait": 1.0}, {"wait": -1.0}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        RelayOptions(**wrong)
