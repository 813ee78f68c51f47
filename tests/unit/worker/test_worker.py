"""A worker at work, from a message to its result, over a link that loses things."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from backwater_tornado.broker.values import Outcome, Settlement, Verdict
from backwater_tornado.errors import (
    BodyTooLarge,
    BodyUndecodable,
    RemoteError,
    TaskLost,
    TaskRevoked,
    UnsupportedEncoding,
    UpstreamFailed,
)
from backwater_tornado.tasks.messages import read_headers
from backwater_tornado.tasks.outcomes import failed, progressed, read_outcome, revoked, succeeded
from backwater_tornado.tasks.states import State
from backwater_tornado.worker.hooks import Hooks
from backwater_tornado.worker.jobs import End, Ending, Job, Stop
from backwater_tornado.worker.pace import Pace
from tests.unit.worker.bench import Bench, HandPool, working

REVOKED = revoked()


def by_hand(size: int = 4) -> HandPool:
    return HandPool(size, by_hand=True)


# Runs ----------------------------------------------------------------------------------------------------------------


def test_a_task_is_run_and_its_result_kept() -> None:
    async def test(bench: Bench) -> None:
        assert await bench.value(await bench.send("add", 1, 2)) == 3
        await bench.until_counts(0, 0, 0, 0)

    working(test)


def test_what_a_task_raises_is_its_result(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        error = await bench.value(await bench.send("fail", id="f"))
        assert isinstance(error, RemoteError)
        assert error.type == "ValueError"
        assert "t.fail[f] failed" in caplog.text
        assert "in fail" in caplog.text  # the traceback

    working(test)


def test_many_tasks_are_run_once_each() -> None:
    async def test(bench: Bench) -> None:
        ids = [await bench.send("add", number) for number in range(300)]
        assert [await bench.value(each) for each in ids] == list(range(300))
        assert sorted(bench.pool.begun) == sorted(ids)

    working(test)


def test_a_function_that_nobody_knows_is_parked_until_it_is_replayed() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("nothing", id="n")
        await bench.until_counts(0, 0, 0, 1)
        (letter,) = await bench.broker.dead_letters()
        assert (letter.reason, letter.detail) == ("parked", "unknown_task: t.nothing")
        assert await bench.broker.results(["n"]) == [None]
        await bench.broker.replay([letter.number])
        await bench.until_counts(0, 0, 0, 1)

    working(test)


def test_a_name_of_any_length_is_parked() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("n" * 200_000, id="n")
        await bench.until_counts(0, 0, 0, 1)
        (letter,) = await bench.broker.dead_letters()
        assert letter.detail == f"unknown_task: t.{'n' * 198}"

    working(test)


@pytest.mark.parametrize(
    ("more", "error"),
    [({"raw_headers": b"\xc1"}, BodyUndecodable), ({"content_encoding": "gzip"}, UnsupportedEncoding)],
)
def test_what_cannot_be_read_is_put_aside_with_the_reason(more: dict[str, Any], error: type[Exception]) -> None:
    async def test(bench: Bench) -> None:
        assert isinstance(await bench.value(await bench.send("add", **more)), error)
        (letter,) = await bench.broker.dead_letters()
        assert letter.reason == "rejected"
        assert error.code in letter.detail  # type: ignore[attr-defined]

    working(test)


def test_a_log_that_fails_holds_nothing_up() -> None:
    def fail(record: logging.LogRecord) -> bool:
        if "succeeded" in record.msg:
            raise ValueError(record.msg)
        return True

    async def test(bench: Bench) -> None:
        ids = [await bench.send("add", number) for number in range(3)]  # one after the other: there is one slot
        assert [await bench.value(each) for each in ids] == [0, 1, 2]

    log = logging.getLogger("backwater.worker")
    log.addFilter(fail)
    try:
        working(test, lambda: HandPool(1))
    finally:
        log.removeFilter(fail)


def test_a_run_that_asks_for_it_runs_again() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="r", retries=2)
        await bench.pool.until_begun("r")
        assert (bench.pool.job("r").retries, bench.pool.job("r").deliveries) == (2, 1)
        bench.pool.end("r", Ending(End.RETRY, failed(ValueError("no"), State.RETRY), delay=5.0))
        await bench.until_counts(0, 1, 0, 0)
        (result,) = await bench.broker.results(["r"])
        assert result is not None
        assert (result.outcome.state, result.final) == ("RETRY", False)
        bench.pool.begun.clear()
        bench.later(5.0)
        await bench.pool.until_begun("r")
        assert (bench.pool.job("r").retries, bench.pool.job("r").deliveries) == (3, 1)
        bench.pool.end("r")
        assert await bench.value("r") == 1

    working(test, by_hand)


def test_a_run_may_be_put_aside_or_go_back() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.send("add", 1, id="b")
        await bench.pool.until_begun("a", "b")
        bench.pool.end("a", Ending(End.REJECT, failed(ValueError("no")), reason="bad"))
        bench.pool.begun.clear()
        bench.pool.end("b", Ending(End.RETURN))
        await bench.pool.until_begun("b")
        assert bench.pool.job("b").deliveries == 2
        (letter,) = await bench.broker.dead_letters()
        assert (letter.message.id, letter.detail) == ("a", "bad")

    working(test, by_hand)


def test_progress_and_starts_are_told() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("tracked", id="p")
        started = read_outcome((await bench.known("p", "STARTED")).outcome)
        assert started["pid"] > 0
        bench.pool.tell("p", progressed([1, 2]))
        assert read_outcome((await bench.known("p", "PROGRESS")).outcome) == [1, 2]
        bench.pool.end("p")
        assert await bench.value("p") == "done"

    working(test, by_hand)


# Inputs --------------------------------------------------------------------------------------------------------------


async def ended(bench: Bench, id: str, outcome: Outcome) -> None:
    """A task that has ended so."""
    await bench.broker.cancel([id], outcome)
    await bench.send("add", id=id)


@pytest.mark.parametrize(
    ("inputs", "by_id", "args"),
    [
        ("a", False, [1, 9]),
        (["a", ["b", "a"]], False, [[1, [2, 1]], 9]),
        ([], False, [[], 9]),
        (["a", "b"], True, [["a", "b"], 9]),
    ],
)
def test_results_come_before_the_arguments(inputs: object, by_id: bool, args: object) -> None:
    async def test(bench: Bench) -> None:
        await ended(bench, "a", succeeded(1))
        await ended(bench, "b", succeeded(2))
        assert await bench.value(await bench.send("echo", 9, inputs=inputs, inputs_by_id=by_id)) == args

    working(test)


def test_a_task_whose_input_is_gone_fails() -> None:
    async def test(bench: Bench) -> None:
        error = await bench.value(await bench.send("echo", inputs=["gone"]))
        assert isinstance(error, UpstreamFailed)
        assert "gone" in str(error)
        assert "not kept any more" in str(error)
        assert bench.pool.begun == []

    working(test)


def test_what_failed_is_named_to_the_end_of_the_chain() -> None:
    async def test(bench: Bench) -> None:
        await ended(bench, "a", failed(ValueError("first")))
        for each, more in (("b", {"inputs": "a"}), ("c", {"inputs": ["b"], "upstream_failed": True})):
            error = await bench.value(await bench.send("echo", id=each, **more))
            assert isinstance(error, UpstreamFailed)
            assert error.extra["task_id"] == "a"
            assert "ValueError: first" in str(error)
        assert bench.pool.begun == []

    working(test)


def test_the_next_run_has_the_inputs_of_the_first() -> None:
    async def test(bench: Bench) -> None:
        await ended(bench, "a", succeeded(1))
        await bench.send("echo", 2, id="e", inputs="a")
        await bench.pool.until_begun("e")
        await bench.broker.forget(["a"])
        bench.pool.begun.clear()
        bench.pool.end("e", Ending(End.RETRY, failed(ValueError("no"), State.RETRY)))
        await bench.pool.until_begun("e")
        bench.pool.end("e")
        assert await bench.value("e") == [1, 2]

    working(test, by_hand)


# The link ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["before", "after", "twice"])
@pytest.mark.parametrize("verb", ["open_session", "receive", "settle", "results", "close_session"])
def test_whatever_is_lost_on_the_way_nothing_is_done_twice_or_not_at_all(verb: str, fault: str) -> None:
    async def test(bench: Bench) -> None:
        bench.link.faults[verb] = [fault] * 3
        await ended(bench, "a", succeeded(1))
        bench.start()
        ids = [await bench.send("echo", number, inputs="a") for number in range(20)]
        assert [await bench.value(each) for each in ids] == [[1, number] for number in range(20)]
        assert await bench.stop()
        assert sorted(bench.pool.begun) == sorted(ids)
        assert await bench.counts() == (0, 0, 0, 0)

    working(test, start=False)


def test_a_broker_that_is_away_is_waited_for_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        bench.link.down = True
        bench.pool.end("a")
        await bench.link.until("settle", 2)
        assert bench.worker.line.failing
        bench.link.down = False
        assert await bench.value("a") == 1
        await bench.send("add", 2, id="b")
        await bench.pool.until_begun("b")
        assert not bench.worker.line.failing
        assert caplog.text.count("cannot be asked") == 1
        assert caplog.text.count("is back") == 1

    working(test, by_hand)


def test_what_nobody_else_was_given_while_the_session_was_gone_goes_on() -> None:
    async def test(bench: Bench) -> None:
        for name in "abc":
            await bench.send("add", 1, id=name)
        await bench.pool.until_begun("a", "b")
        bench.link.down = True
        bench.pool.end("a")
        bench.lose_session()
        bench.link.down = False
        bench.worker.consumer.overtake()
        assert await bench.value("a") == 1
        bench.pool.end("b")
        await bench.pool.until_begun("c")
        bench.pool.end("c")
        assert [await bench.value(name) for name in "bc"] == [1, 1]
        assert bench.pool.begun == ["a", "b", "c"]
        assert bench.pool.stopped == []
        assert await bench.counts() == (0, 0, 0, 0)

    working(test, lambda: HandPool(2, by_hand=True))


def test_what_another_was_given_while_the_session_was_gone_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.send("add", 1, id="b")
        await bench.pool.until_begun("a")
        bench.lose_session()
        first, second = await bench.take()
        bench.worker.consumer.overtake()
        await bench.pool.until_stopped("a")
        await bench.broker.settle("other", [Settlement(each.token, Verdict.REQUEUE) for each in (first, second)])
        async with bench.pool.news:
            await bench.pool.news.wait_for(lambda: bench.pool.begun == ["a", "a"])
        assert bench.pool.stopped == [("a", Stop.CLOSING)]
        bench.pool.end("a")
        assert await bench.value("a") == 1
        assert "a] lost its lease while it runs" in caplog.text
        assert "b] was taken back before it began" in caplog.text

    working(test, lambda: HandPool(1, by_hand=True))


def test_what_ends_after_its_lease_was_lost_is_superseded(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        bench.pool.deaf = True
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        first = bench.pool.job("a").token
        bench.lose_session()
        (delivery,) = await bench.take()
        bench.worker.consumer.overtake()
        await bench.pool.until_stopped("a")
        bench.pool._run(first)
        assert "is superseded" in caplog.text
        assert await bench.broker.results(["a"]) == [None]
        assert delivery.count == 2

    working(test, by_hand)


def test_what_ends_before_its_session_is_found_to_be_gone_is_superseded(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        bench.lose_session()
        await bench.take()
        bench.pool.end("a")
        await bench.worker.settling.empty()
        assert "is superseded: another worker has it" in caplog.text
        assert await bench.broker.results(["a"]) == [None]

    working(test, by_hand)


def test_a_result_that_is_larger_than_a_request_fails_and_holds_nothing_back() -> None:
    async def test(bench: Bench) -> None:
        ask = bench.link.ask

        async def bounded(asked):  # type: ignore[no-untyped-def]  # as the client has it
            if asked.verb == "settle" and len(asked.args[1]) > 1 << 20:
                raise BodyTooLarge("too large")
            return await ask(asked)

        bench.link.ask = bounded  # type: ignore[method-assign]
        large = await bench.send("large", 2 << 20)
        small = await bench.send("large", 1)
        assert await bench.value(small) == "x"
        assert "too large" in str(await bench.value(large))

    working(test)


# Cancelling and expiry -----------------------------------------------------------------------------------------------


def test_what_is_cancelled_while_it_runs_is_stopped() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        await bench.broker.cancel(["a"], REVOKED)
        assert isinstance(await bench.value("a"), TaskRevoked)
        assert bench.pool.stopped == [("a", Stop.REVOKED)]

    working(test, by_hand)


def test_what_is_cancelled_before_it_begins_never_does() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.send("add", 1, id="b")
        await bench.pool.until_begun("a")
        await bench.until_counts(0, 0, 2, 0)
        await bench.broker.cancel(["b"], REVOKED)
        assert isinstance(await bench.value("b"), TaskRevoked)
        bench.pool.end("a")
        assert await bench.value("a") == 1
        assert bench.pool.begun == ["a"]

    working(test, lambda: by_hand(1))


def test_what_has_expired_before_its_turn_does_not_begin() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        await bench.send("add", 1, id="b", expires=bench.clock.now + 1e-6)
        await bench.send("add", 1, id="c", expires=bench.clock.now + 1000.0)
        await bench.until_counts(0, 0, 3, 0)
        bench.clock.now += 1
        bench.pool.end("a")
        await bench.pool.until_begun("c")
        assert (await bench.result("b")).outcome.state == "expired"
        assert bench.pool.begun == ["a", "c"]

    working(test, lambda: by_hand(1))


# At most once --------------------------------------------------------------------------------------------------------


def test_what_must_not_run_twice_begins_when_the_broker_knows() -> None:
    async def test(bench: Bench) -> None:
        bench.link.faults["settle"] = ["after"]
        await bench.send("once", id="a")
        await bench.pool.until_begun("a")
        assert bench.link.count("settle") >= 2
        bench.lose_session()
        assert (await bench.result("a")).outcome.state == "lost"
        assert isinstance(await bench.value("a"), TaskLost)

    working(test, by_hand)


def test_what_must_not_run_twice_does_not_begin_without_its_lease() -> None:
    async def test(bench: Bench) -> None:
        bench.link.faults["settle"] = ["before"]
        await bench.send("once", id="a")
        await bench.link.until("settle")
        bench.lose_session()
        await bench.take()
        await bench.link.until("open_session")
        await bench.worker.desk.idle.wait()
        assert bench.pool.begun == []

    working(test)


# How much is held ----------------------------------------------------------------------------------------------------


def test_no_more_is_held_than_prefetch_says() -> None:
    async def test(bench: Bench) -> None:
        for number in range(20):
            await bench.send("add", number, id=str(number))
        await bench.pool.until_begun("0", "1")
        await bench.link.until("receive")
        assert await bench.counts() == (15, 0, 5, 0)
        for number in range(20):
            await bench.pool.until_begun(str(number))
            bench.pool.end(str(number))
        assert await bench.value("19") == 19

    working(test, lambda: by_hand(2), prefetch=5)


def test_what_is_held_goes_back_when_it_turns_out_to_take_long() -> None:
    async def test(bench: Bench) -> None:
        desk = bench.worker.desk
        desk.pace = Pace(1, 20, 0.0)
        for number in range(20):
            await bench.send("add", number, id=str(number))
        await bench.until_counts(0, 0, 20, 0)
        desk.pace = Pace(1, 3, 0.0)
        bench.worker.consumer.overtake()
        await bench.until_counts(14, 0, 6, 0)
        assert [each.message.id for each in await bench.take()] == [str(number) for number in range(6, 20)]
        assert desk.room() == -3

    working(test, lambda: by_hand(1))


def test_a_poll_that_asks_for_nothing_is_overtaken_when_there_is_room() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        await bench.link.until("receive")
        assert bench.link.polls()[-1].credit == 0
        bench.pool.end("a")
        await bench.send("add", 2, id="b")
        await bench.pool.until_begun("b")

    working(test, lambda: by_hand(1), prefetch=1)


def test_a_limit_of_one_function_holds_back_no_other() -> None:
    async def test(bench: Bench) -> None:
        for number in range(8):
            await bench.send("alone", id=f"a{number}")
        await bench.send("add", 1, id="b")
        await bench.pool.until_begun("a0", "b")
        assert bench.pool.begun == ["a0", "b"]
        for number in range(8):
            await bench.pool.until_begun(f"a{number}")
            bench.pool.end(f"a{number}")
        assert bench.pool.begun == ["a0", "b", *(f"a{number}" for number in range(1, 8))]

    working(test, by_hand, prefetch=5)


# The end -------------------------------------------------------------------------------------------------------------


def test_what_has_not_begun_goes_back_at_once_and_what_runs_may_end() -> None:
    async def test(bench: Bench) -> None:
        for name in "abc":
            await bench.send("add", 1, id=name)
        await bench.pool.until_begun("a")
        await bench.until_counts(0, 0, 3, 0)
        bench.worker.stop()
        await bench.until_counts(2, 0, 1, 0)
        assert [(each.message.id, each.count) for each in await bench.take()] == [("b", 1), ("c", 1)]
        bench.pool.end("a")
        assert bench.task is not None
        assert await bench.task
        assert await bench.value("a") == 1
        assert bench.pool.closed == [0.0]
        assert bench.store.leased(f"\n{bench.worker.consumer.session}") == []

    working(test, lambda: by_hand(1))


def test_a_second_stop_gives_back_what_runs() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        bench.worker.stop()
        bench.worker.stop()
        assert bench.task is not None
        assert not await bench.task
        assert [(each.message.id, each.count) for each in await bench.take()] == [("a", 2)]

    working(test, by_hand, grace=1000.0)


def test_the_grace_period_ends() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        assert not await bench.stop()
        assert await bench.counts() == (1, 0, 0, 0)

    working(test, by_hand, grace=0.0)


def test_a_worker_stops_though_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwater_tornado.worker.worker.LAST_WORDS", 0.01)

    async def test(bench: Bench) -> None:
        bench.link.down = True
        bench.start()
        await bench.link.until("open_session", 2)
        assert await bench.stop()

    working(test, start=False)


def test_the_session_is_kept_alive_while_the_worker_drains() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        bench.worker.stop()
        while bench.link.polls()[-1].credit:
            await bench.link.until("receive")
        assert bench.link.polls()[-1].held == (bench.pool.job("a").token,)
        bench.pool.end("a")
        assert bench.task is not None
        assert await bench.task

    working(test, by_hand)


# Hooks ---------------------------------------------------------------------------------------------------------------


def test_hooks_are_told_in_their_order(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks()
    told: list[str] = []

    @hooks.on("start")
    @hooks.on("stop")
    def note() -> None:
        told.append("worker")

    @hooks.on("before_task")
    async def before(job: Job) -> None:
        await asyncio.sleep(0)
        told.append(f"before {job.id}")
        raise ValueError("a hook that raises")

    @hooks.on("after_task")
    def after(job: Job, ending: Ending) -> None:
        told.append(f"after {job.id} {ending.end}")

    async def test(bench: Bench) -> None:
        await bench.value(await bench.send("add", 1, id="a"))
        assert await bench.stop()

    working(test, hooks=hooks)
    assert told == ["worker", "before a", "after a done", "worker"]
    assert "a hook that raises" in caplog.text


def test_the_headers_of_a_retry_are_read_by_any_worker() -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="r", time_limit=5.0, root="x", inputs=None)
        await bench.pool.until_begun("r")
        bench.pool.end("r", Ending(End.RETRY, failed(ValueError("no"), State.RETRY), delay=1.0))
        await bench.until_counts(0, 1, 0, 0)
        assert await bench.stop()
        bench.clock.now += 1
        (delivery,) = await bench.take()
        headers = read_headers(delivery.message)
        assert (headers.retries, headers.time_limit, headers.root) == (1, 5.0, "x")

    working(test, by_hand)
