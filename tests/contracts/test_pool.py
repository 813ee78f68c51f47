"""What holds for every pool: threads, the loop, and processes, with plain functions and with coroutine functions.

The clock is the pools' own here and nowhere else: limits are short where they are to be reached, and no test depends on
how fast anything is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest

from backwater_tornado import errors
from backwater_tornado.broker.values import Outcome
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.tasks.states import State
from backwater_tornado.worker import pools
from backwater_tornado.worker.async_pool import Coroutines
from backwater_tornado.worker.frames import Plan
from backwater_tornado.worker.jobs import End, Ending, Job, Stop
from backwater_tornado.worker.pools import Pool
from backwater_tornado.worker.process_pool import Processes
from backwater_tornado.worker.thread_pool import Threads
from tests.contracts.pool_hand import FUNCTIONS, PATIENCE, Gate, Hand, error_in, find, value_of

#: A soft limit, or a hard one, that is to be reached, seconds.
SHORT = 0.3


def in_threads(size: int) -> Pool:
    return Pool(size, Threads(size), Coroutines())


def in_processes(size: int) -> Pool:
    processes = Processes(Plan((FUNCTIONS,), tuple(sys.path)))
    return Pool(size, processes, processes)


@dataclass(frozen=True)
class Kind:
    """A pool, and the flavour of functions that it is given."""

    name: str
    make: Callable[[int], Pool]
    flavour: str
    #: What is stuck, or swallows its interruption, can be ended all the same.
    kills: bool = False


KINDS = [
    Kind("threads", in_threads, "plain"),
    Kind("loop", in_threads, "async"),
    Kind("processes", in_processes, "plain", kills=True),
    Kind("loops of processes", in_processes, "async", kills=True),
]


@pytest.fixture(params=[pytest.param(kind, id=kind.name, marks=[pytest.mark.slow] * kind.kills) for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


Test = Callable[[Hand], Awaitable[None]]


@pytest.fixture
def run(kind: Kind) -> Iterator[Callable[..., None]]:
    def run_test(test: Test, size: int = 2) -> None:
        async def main() -> None:
            async with asyncio.timeout(PATIENCE):
                hand = Hand(kind.make(size), kind.flavour)
                try:
                    await test(hand)
                finally:
                    await hand.pool.close(0)
                assert [running.endings for running in hand.started] == [1] * len(hand.started)

        asyncio.run(main())

    return run_test  # type: ignore[return-value]


# How runs end --------------------------------------------------------------------------------------------------------


def test_what_a_function_returns_is_the_result(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        assert value_of(await hand.run("add", 1, 2)) == 3
        assert value_of(await hand.run("add", 5)) == 5
        assert await hand.run("add", 1, ignore_result=True) == Ending(End.DONE, Outcome(State.SUCCESS))

    run(test)


def test_whatever_a_function_raises_is_a_failure_and_the_pool_goes_on(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        for name in ("ValueError", "SystemExit", "KeyboardInterrupt", "MemoryError", "GeneratorExit"):
            ending = await hand.run("raise", name)
            error = error_in(ending)
            assert isinstance(error, errors.RemoteError)
            assert (ending.end, error.type, error.message) == (End.DONE, name, "as told")
            assert error.traceback is not None
            assert "_raise" in error.traceback.splitlines()[1]
        assert value_of(await hand.run("add", 1)) == 1

    run(test, 1)


def test_a_function_that_cannot_be_called_so_is_a_failure(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        assert isinstance(error_in(await hand.run("add", "text")), errors.InvalidArguments)

    run(test)


def test_a_retry_says_when(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        ending = await hand.run("retry")
        assert (ending.end, ending.delay) == (End.RETRY, 5)
        assert "ValueError" in str(error_in(ending, State.RETRY))
        last = await hand.run("retry", retries=3, max_retries=3)
        assert last.end is End.DONE
        assert "again" in str(error_in(last))

    run(test)


def test_a_rejection_says_why(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        ending = await hand.run("reject")
        assert (ending.end, ending.reason) == (End.REJECT, "bad data")

    run(test)


def test_progress_is_told_in_order_before_the_end(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("tell", 20)
        assert value_of(await running.ended) == "told"
        assert running.told == list(range(20))

    run(test)


# How many ------------------------------------------------------------------------------------------------------------


def test_as_many_as_its_size_run_at_once_and_the_next_waits_for_its_turn(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        async with Gate.made() as gate:
            first = [hand.start("meet", gate.port) for _ in range(2)]
            later = [hand.start("add", number) for number in range(5)]
            await gate.entered()
            await gate.entered()
            about = hand.pool.about()
            assert json.loads(json.dumps(about)) == about
            assert (about["size"], about["waiting"]) == (2, 5)
            assert [each["id"] for each in about["running"]] == ["id-1", "id-2"]
            assert all(each["began"] > 0 for each in about["running"])
            assert not any(running.ended.done() for running in hand.started)
            await gate.open()
            assert [value_of(await running.ended) for running in first] == ["met", "met"]
            assert [value_of(await running.ended) for running in later] == list(range(5))
            assert hand.pool.about()["running"] == []

    run(test)


def test_many_jobs_are_all_run(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        running = [hand.start("add", number) for number in range(300)]
        assert [value_of(await each.ended) for each in running] == list(range(300))

    run(test, 3)


def test_whoever_cannot_take_an_ending_does_not_stop_the_pool(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(hand: Hand) -> None:
        def refuse(job: Job, _: object) -> None:
            raise ValueError("not now")

        job = Job(1_000_000, "odd", f"{FUNCTIONS}.{hand.flavour}_tell", MSGPACK.encode([[1], {}]), "")
        function = find(f"{hand.flavour}_tell")
        hand.pool.start(job, function, refuse, refuse)
        assert value_of(await hand.run("add", 1)) == 1

    run(test, 1)
    assert caplog.text.count("what came of it could not be taken") == 2


# Limits --------------------------------------------------------------------------------------------------------------


def test_at_its_soft_limit_a_function_may_tidy_up(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        assert value_of(await hand.run("tidy", soft_time_limit=SHORT, time_limit=PATIENCE)) == "tidied up"
        assert value_of(await hand.run("add", 1)) == 1

    run(test, 1)


def test_a_soft_limit_that_is_not_caught_is_the_failure(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        ending = await hand.run("spin", soft_time_limit=SHORT)
        assert isinstance(error_in(ending), errors.SoftTimeLimitExceeded)
        assert value_of(await hand.run("add", 1, soft_time_limit=PATIENCE, time_limit=PATIENCE)) == 1

    run(test, 1)


@pytest.mark.parametrize("soft", [None, SHORT / 3, PATIENCE])
def test_at_its_hard_limit_a_function_is_ended(run: Callable[..., None], soft: float | None) -> None:
    async def test(hand: Hand) -> None:
        ending = await hand.run("save" if soft is None else "save_twice", soft_time_limit=soft, time_limit=SHORT)
        assert ending.end is End.DONE
        error = error_in(ending)
        assert isinstance(error, errors.TimeLimitExceeded)
        assert f"longer than {SHORT:g} s" in str(error)
        assert value_of(await hand.run("add", 1)) == 1

    run(test, 1)


def test_what_does_not_end_is_left_to_itself_and_its_slot_is_free(
    run: Callable[..., None], kind: Kind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "MOMENT", 0.0)
    caplog.set_level("INFO")

    async def test(hand: Hand) -> None:
        async with Gate.made() as gate:
            running = hand.start("meet", gate.port, time_limit=SHORT)
            await gate.entered()
            assert isinstance(error_in(await running.ended), errors.TimeLimitExceeded)
            assert value_of(await hand.run("add", 1)) == 1
            assert hand.pool.about()["abandoned"] == 1
            await gate.open()
            while hand.pool.about()["abandoned"]:
                await hand.run("add", 1)

    if kind.kills:
        pytest.skip("whatever it is doing, a process is killed")
    run(test, 1)
    assert "does not end; it is left to itself" in caplog.text
    assert "pool_functions.py" in caplog.text
    assert "has ended" in caplog.text


# Stopping ------------------------------------------------------------------------------------------------------------


def test_what_is_revoked_while_it_runs_ends_as_revoked(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        for name in ("spin", "save"):
            running = hand.start(name)
            await running.begun.wait()
            hand.pool.stop(running.job.token, Stop.REVOKED)
            hand.pool.stop(running.job.token, Stop.CLOSING)  # too late to be the reason
            ending = await running.ended
            assert ending.end is End.DONE
            assert isinstance(error_in(ending, State.REVOKED), errors.TaskRevoked)
        assert value_of(await hand.run("add", 1)) == 1

    run(test, 1)


def test_nobody_looks_again_at_what_has_ended(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "MOMENT", SHORT / 2)

    async def test(hand: Hand) -> None:
        running = hand.start("spin")
        await running.begun.wait()
        hand.pool.stop(running.job.token, Stop.REVOKED)
        await running.ended
        await hand.run("spin", time_limit=SHORT)  # until long after that moment

    run(test, 1)
    assert caplog.text == ""


def test_what_is_revoked_at_once_ends_too(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("spin")
        hand.pool.stop(running.job.token, Stop.REVOKED)
        assert not running.ended.done()
        assert (await running.ended).end is End.DONE

    run(test, 1)


def test_what_is_revoked_while_it_waits_never_runs(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        first, second = hand.start("spin"), hand.start("spin")
        hand.pool.stop(second.job.token, Stop.REVOKED)
        assert not second.ended.done()
        assert isinstance(error_in(await second.ended, State.REVOKED), errors.TaskRevoked)
        assert not second.told
        hand.pool.stop(first.job.token, Stop.REVOKED)
        await first.ended

    run(test, 1)


def test_a_token_that_is_not_known_is_nothing(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("add", 1)
        await running.ended
        hand.pool.stop(running.job.token, Stop.REVOKED)
        hand.pool.stop(4_711, Stop.REVOKED)
        assert value_of(await hand.run("add", 2)) == 2

    run(test)


def test_a_run_that_is_taken_back_goes_back(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("spin")
        await running.begun.wait()
        hand.pool.stop(running.job.token, Stop.CLOSING)
        assert (await running.ended).end is End.RETURN

    run(test)


# Closing -------------------------------------------------------------------------------------------------------------


def test_closing_waits_for_what_runs(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        async with Gate.made() as gate:
            running, waiting = hand.start("meet", gate.port), hand.start("add", 1)
            await gate.entered()
            closing = asyncio.ensure_future(hand.pool.close(PATIENCE))
            assert await waiting.ended == Ending(End.RETURN)
            assert not closing.done()
            await gate.open()
            assert value_of(await running.ended) == "met"
            await closing
            with pytest.raises(RuntimeError, match="closed"):
                hand.start("add", 1)
            hand.started.pop()

    run(test, 1)


def test_after_the_grace_what_still_runs_goes_back(run: Callable[..., None], kind: Kind) -> None:
    async def test(hand: Hand) -> None:
        running = [hand.start("spin"), hand.start("spin" if kind.name == "threads" else "sleep")]
        for each in running:
            await each.begun.wait()
        await hand.pool.close(0)
        assert [each.ended.result().end for each in running] == [End.RETURN] * 2

    run(test)


def test_closing_may_become_less_patient(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("spin")
        await running.begun.wait()
        closing = asyncio.ensure_future(hand.pool.close(PATIENCE))
        await hand.pool.close(0)
        await closing
        assert (await running.ended).end is End.RETURN

    run(test)


def test_what_is_given_in_spite_of_the_closing_counts(run: Callable[..., None], kind: Kind) -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("save")
        await running.begun.wait()
        await hand.pool.close(0)
        assert value_of(await running.ended) == "saved"

    if kind.kills:
        pytest.skip("whatever it would give, a process is killed")
    run(test)


def test_closing_a_pool_that_has_done_nothing_is_nothing(run: Callable[..., None]) -> None:
    async def test(hand: Hand) -> None:
        await hand.pool.close(PATIENCE)

    run(test)
