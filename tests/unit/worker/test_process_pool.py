"""Processes that die, leave and are replaced, and what becomes of what they ran. The rest is in the pools' contract."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from backwater_tornado.tasks.states import State
from backwater_tornado.worker import process_pool as module
from backwater_tornado.worker.child import memory_in_use
from backwater_tornado.worker.frames import Plan
from backwater_tornado.worker.jobs import End, Ending, Stop
from backwater_tornado.worker.pools import Pool
from backwater_tornado.worker.process_pool import Processes
from tests.contracts.pool_hand import FUNCTIONS, PATIENCE, Gate, Hand, error_in, value_of

PATH = tuple(sys.path)

# Processes are started for each of them: once, on the source tree.
pytestmark = pytest.mark.slow


def run(
    test: Callable[[Hand], Awaitable[None]], size: int = 1, modules: tuple[str, ...] = (FUNCTIONS,), **plan: Any
) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            processes = Processes(Plan(modules, PATH, **plan))
            hand = Hand(Pool(size, processes, processes), "plain")
            try:
                await test(hand)
            finally:
                await hand.pool.close(0)
            assert [running.endings for running in hand.started] == [1] * len(hand.started)
            assert hand.pool.about()["children"] == []

    asyncio.run(main())


def pids(hand: Hand) -> list[int]:
    return [child["pid"] for child in hand.pool.about()["children"]]


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    with suppress(psutil.NoSuchProcess):
        await asyncio.get_running_loop().run_in_executor(None, psutil.Process(pid).wait, PATIENCE)


# Death ---------------------------------------------------------------------------------------------------------------


def test_a_child_that_is_killed_gives_its_job_back_and_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("sleep")
        await running.begun.wait()
        (pid,) = pids(hand)
        os.kill(pid, signal.SIGKILL)
        ending = await running.ended
        assert ending == Ending(End.RETURN, reason=f"the child process {pid} was killed by SIGKILL")
        assert value_of(await hand.run("pid")) != pid

    run(test)
    assert "was killed by SIGKILL while it ran tests.contracts.pool_functions.plain_sleep [id-1]" in caplog.text


def test_a_child_that_exits_in_a_run_gives_its_job_back() -> None:
    async def test(hand: Hand) -> None:
        ending = await hand.run("exit", 3)
        assert ending.end is End.RETURN
        assert ending.reason.endswith("ended with exit code 3")

    run(test)


def test_a_process_that_a_task_has_forked_does_not_speak_for_it() -> None:
    async def test(hand: Hand) -> None:
        pid = value_of(await hand.run("pid"))
        assert value_of(await hand.run("fork")) == pid
        assert value_of(await hand.run("pid")) == pid

    run(test)


def test_a_child_that_dies_with_nothing_to_do_is_replaced() -> None:
    async def test(hand: Hand) -> None:
        pid = value_of(await hand.run("pid"))
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        ending = await hand.run("pid")
        if ending.end is End.RETURN:  # its death was not noticed yet
            ending = await hand.run("pid")
        assert value_of(ending) != pid

    run(test)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_worker_does_not_end_its_children(number: signal.Signals) -> None:
    async def test(hand: Hand) -> None:
        async with Gate.made() as gate:
            running = hand.start("meet", gate.port)
            await gate.entered()
            os.kill(pids(hand)[0], number)
            await gate.open()
            assert value_of(await running.ended) == "met"

    run(test)


def test_what_a_task_has_started_is_killed_with_it() -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("spawn")
        await running.begun.wait()
        (program,) = running.told
        hand.pool.stop(running.job.token, Stop.REVOKED)
        error_in(await running.ended, State.REVOKED)
        await gone(program)

    run(test)


SCRIPT = f"""
import asyncio, os, sys
sys.path[:] = {list(PATH)!r}
from backwater_tornado.worker.frames import Plan
from backwater_tornado.worker.pools import Pool
from backwater_tornado.worker.process_pool import Processes
from tests.contracts.pool_hand import FUNCTIONS, Hand

async def main():
    processes = Processes(Plan((FUNCTIONS,), tuple(sys.path)))
    hand = Hand(Pool(2, processes, processes), "plain")
    spinning, idle = hand.start("spin"), hand.start("pid")
    await spinning.begun.wait()
    await idle.ended
    print(*[child["pid"] for child in hand.pool.about()["children"]], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_children_end_with_their_parent_though_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, PATIENCE)
    for child in alive:
        child.kill()
    assert alive == []


# Leaving -------------------------------------------------------------------------------------------------------------


def test_a_child_leaves_after_so_many_runs() -> None:
    async def test(hand: Hand) -> None:
        found = [value_of(await hand.run("pid")) for _ in range(5)]
        assert found[0] == found[1] != found[2] == found[3] != found[4]

    run(test, max_tasks=2)


@pytest.mark.parametrize(("bound", "stays"), [(1, False), (1 << 40, True)])
def test_a_child_leaves_when_it_has_grown_too_large(bound: int, stays: bool) -> None:
    async def test(hand: Hand) -> None:
        found = [value_of(await hand.run("pid")) for _ in range(2)]
        assert (found[0] == found[1]) is stays

    run(test, max_memory=bound)


def test_a_child_that_cannot_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAVING", 0.0)

    async def test(hand: Hand) -> None:
        await gone(value_of(await hand.run("linger")))

    run(test, max_tasks=1)


def test_memory_is_known_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    used = memory_in_use()
    assert 1 << 20 < used < 1 << 40
    monkeypatch.setattr(Path, "read_text", _no_such_file)
    for platform in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", platform)
        assert memory_in_use() > 0


def _no_such_file(path: Path) -> str:
    raise FileNotFoundError(path)


# Starting ------------------------------------------------------------------------------------------------------------


def test_children_that_cannot_import_their_modules_give_their_jobs_back_slowly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)

    async def test(hand: Hand) -> None:
        for _ in range(2):
            ending = await hand.run("pid")
            assert ending.end is End.RETURN
            assert "could not be started: InvalidExposure: there is no module 'nowhere_at_all'" in ending.reason

    run(test, modules=("nowhere_at_all",))
    assert caplog.text.count("could not be started") == 2


def test_where_no_process_can_be_started_jobs_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/at/all")

    async def test(hand: Hand) -> None:
        ending = await hand.run("pid")
        assert ending.end is End.RETURN
        assert "could not be started: FileNotFoundError" in ending.reason

    run(test)


def test_a_pool_may_be_closed_while_its_children_start() -> None:
    async def test(hand: Hand) -> None:
        running = hand.start("pid")
        await hand.pool.close(0)
        assert (await running.ended).end is End.RETURN

    run(test)


def test_a_child_has_the_log_that_it_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    async def test(hand: Hand) -> None:
        await hand.run("log", "a word")

    run(test, log_level="INFO")
    assert "INFO tests: a word" in capfd.readouterr().err


# Talking -------------------------------------------------------------------------------------------------------------


def test_large_values_pass_in_both_directions() -> None:
    async def test(hand: Hand) -> None:
        value = bytes(range(256)) * 20_000
        running = hand.start("echo", value)
        assert value_of(await running.ended) == value
        assert running.told == [value]

    run(test)


def test_a_task_that_a_child_does_not_know_is_a_failure() -> None:
    """Its module was edited since the worker began."""

    async def test(hand: Hand) -> None:
        error = error_in(await hand.run("pid"))
        assert "no module" in str(error)

    run(test, modules=("math",))
