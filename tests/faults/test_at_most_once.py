"""At most once: whatever happens on the way, every call returns its result and its function has run exactly once.

Where the server itself dies there is a third end, OutcomeUnknown, and still never a second run.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import backwater_tornado as backwater
from backwater_tornado.testing import (
    CUT_AFTER_REQUEST,
    CUT_BEFORE_REQUEST,
    CUT_MID_RESPONSE,
    DROP,
    DUPLICATE,
    DUPLICATE_ANSWERED,
    PASS,
    STALL_FOREVER,
    TRUNCATE_REQUEST,
    BadNetwork,
    Fault,
    Mix,
    Script,
    Seen,
    running_server,
    stall,
)
from tests.faults.counting_server import SECRET, CountingServer

CALLS = 2_000
SEED = 20_260_801
#: Patient in all, quick in each try: what is tested is what comes of the faults, not how long they last.
PATIENT = {"timeout": 40.0, "recv_timeout": 1.0, "backoff": 0.005, "max_backoff": 0.2}

CUTTING: dict[Fault, float] = {PASS: 70, CUT_AFTER_REQUEST: 20, CUT_AFTER_REQUEST.with_reset(): 10}
EVERYTHING: dict[Fault, float] = {
    PASS: 850,
    CUT_BEFORE_REQUEST: 20,
    CUT_BEFORE_REQUEST.with_reset(): 10,
    CUT_AFTER_REQUEST: 20,
    CUT_MID_RESPONSE: 20,
    CUT_MID_RESPONSE.with_reset(): 10,
    TRUNCATE_REQUEST: 20,
    DUPLICATE: 20,
    DUPLICATE_ANSWERED: 20,
    stall(0.05): 20,
    STALL_FOREVER: 3,
    DROP: 3,
}
MIXES = pytest.mark.parametrize("weights", [CUTTING, EVERYTHING], ids=["cutting", "everything"])


class Tally:
    """Counts the runs of each id."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()
        self._lock = threading.Lock()

    def add(self, ident: int) -> int:
        with self._lock:
            self.runs[ident] += 1
        return ident * 3

    async def add_awaited(self, ident: int) -> int:
        await asyncio.sleep(0)
        return self.add(ident)


@contextmanager
def _served(weights: dict[Fault, float]) -> Iterator[tuple[Tally, BadNetwork, bytes]]:
    tally = Tally()
    with running_server({"tally": tally}) as server:
        assert isinstance(server.secret, bytes)
        with BadNetwork("127.0.0.1", server.port, Mix(SEED, weights)) as proxy:
            yield tally, proxy, server.secret


def _exactly_once(tally: Tally, proxy: BadNetwork, weights: dict[Fault, float]) -> None:
    assert set(tally.runs.values()) == {1}
    assert tally.runs.total() == CALLS
    # All of the faults were really met.
    assert set(proxy.faults()) == set(weights)


@pytest.mark.slow
@MIXES
def test_every_blocking_call_returns_its_result_and_has_run_once(weights: dict[Fault, float]) -> None:
    with _served(weights) as (tally, proxy, secret), ThreadPoolExecutor(8) as pool:
        client = backwater.Client(f"http://127.0.0.1:{proxy.port}", secret, **PATIENT)
        results = list(pool.map(lambda ident: client.call("tally", "add", ident), range(CALLS)))
        assert results == [ident * 3 for ident in range(CALLS)]
        assert client.counters()["retries"] > 100
        _exactly_once(tally, proxy, weights)


@pytest.mark.slow
@MIXES
def test_every_awaited_call_returns_its_result_and_has_run_once(weights: dict[Fault, float]) -> None:
    async def run(client: backwater.AsyncClient) -> list[int]:
        todo = iter(range(CALLS))
        results = {}

        async def work() -> None:
            for ident in todo:
                results[ident] = await client.call("tally", ("add", "add_awaited")[ident % 2], ident)

        async with client, asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(work())
        return [results[ident] for ident in range(CALLS)]

    with _served(weights) as (tally, proxy, secret):
        # Few calls in one request, so that there are many requests to do harm to.
        client = backwater.AsyncClient(
            f"http://127.0.0.1:{proxy.port}", secret, max_calls_per_request=4, max_connections=16, **PATIENT
        )
        assert asyncio.run(run(client)) == [ident * 3 for ident in range(CALLS)]
        _exactly_once(tally, proxy, weights)


@pytest.mark.slow
def test_every_gathered_call_returns_its_result_and_has_run_once() -> None:
    with _served(CUTTING) as (tally, proxy, secret):
        client = backwater.Client(f"http://127.0.0.1:{proxy.port}", secret, max_calls_per_request=20, **PATIENT)
        results = client.gather(*[("tally", "add", [ident]) for ident in range(CALLS)])
        assert results == [ident * 3 for ident in range(CALLS)]
        _exactly_once(tally, proxy, CUTTING)


# A server that dies --------------------------------------------------------------------------------------------------


WITH_AND_WITHOUT_STATE = pytest.mark.parametrize("state", [True, False], ids=["state file", "no state file"])


def _client(port: int) -> backwater.Client:
    # Attempts enough for the time that a server takes to come back.
    return backwater.Client(f"http://127.0.0.1:{port}", SECRET, max_attempts=1_000, **PATIENT)


@WITH_AND_WITHOUT_STATE
def test_a_call_that_ran_when_its_server_was_killed_is_not_run_again(tmp_path: Path, state: bool) -> None:
    with CountingServer(tmp_path, state=state) as server, ThreadPoolExecutor(1) as pool:

        def restart(seen: Seen) -> Fault:
            if seen.number == 2:
                server.start()
            return PASS

        with BadNetwork("127.0.0.1", server.port, restart) as proxy:
            client = _client(proxy.port)
            # The call that is to be lost goes out on a connection that is kept: there curl would send it again itself.
            assert client.call("runs", "note", 1) == 1
            held = pool.submit(client.call, "runs", "hold", 2)
            _wait_for_line(server, 2)
            server.kill()
            with pytest.raises(backwater.OutcomeUnknown):
                held.result(30)
            assert client.call("runs", "note", 3) == 3
        assert server.counted() == {1: 1, 2: 1, 3: 1}


def _wait_for_line(server: CountingServer, ident: int) -> None:
    until = threading.Event()
    for _ in range(1_000):
        if server.runs.exists() and server.counted()[ident]:
            return
        until.wait(0.01)
    raise TimeoutError(f"{ident} was not run within 10 s")


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaitable"])
@WITH_AND_WITHOUT_STATE
def test_an_answer_lost_with_its_server_is_found_in_its_state_or_unknown(
    tmp_path: Path, state: bool, awaited: bool
) -> None:
    """And curl does not send the request again by itself, as it would when a kept connection dies without an answer."""
    with CountingServer(tmp_path, state=state) as server:

        def script(seen: Seen) -> Fault:
            if seen.number == 1:
                _pass_on_and_restart(server, seen)
                return CUT_BEFORE_REQUEST
            return PASS

        with BadNetwork("127.0.0.1", server.port, script) as proxy, _caller(proxy.port, awaited) as call:
            assert call("runs", "note", 1) == 1
            if state:
                assert call("runs", "note", 2) == 2
            else:
                with pytest.raises(backwater.OutcomeUnknown):
                    call("runs", "note", 2)
        assert server.counted() == {1: 1, 2: 1}


def _pass_on_and_restart(server: CountingServer, seen: Seen) -> None:
    """The server runs the call and is gone; the next one is there before the client learns of it."""
    with socket.create_connection(("127.0.0.1", server.port)) as direct:
        direct.sendall(seen.head + seen.body)
        assert direct.recv(65536).startswith(b"HTTP/1.1 200")
    server.kill()
    server.start()


@contextmanager
def _caller(port: int, awaited: bool) -> Iterator[Callable[..., object]]:
    if not awaited:
        yield _client(port).call
        return
    client = backwater.AsyncClient(f"http://127.0.0.1:{port}", SECRET, **PATIENT)
    with asyncio.Runner() as runner:
        yield lambda *args: runner.run(client.call(*args))
        client.close()


@pytest.mark.slow
@WITH_AND_WITHOUT_STATE
def test_under_load_no_call_runs_twice_through_two_kills(tmp_path: Path, state: bool) -> None:
    calls = 1_200
    progress = threading.Semaphore(0)
    unknown: list[int] = []

    with CountingServer(tmp_path, state=state) as server, ThreadPoolExecutor(6) as pool:
        client = _client(server.port)

        def call(ident: int) -> None:
            try:
                assert client.call("runs", "note", ident) == ident
            except backwater.OutcomeUnknown:
                unknown.append(ident)
            progress.release()

        futures = [pool.submit(call, ident) for ident in range(calls)]
        for _ in range(2):
            for _ in range(calls // 4):
                assert progress.acquire(timeout=30)
            server.kill()
            server.start()
        for future in futures:
            future.result(60)
        counted = server.counted()
    assert set(counted.values()) == {1}
    # Whatever did not run was not reported as done; and only what was in flight at a kill is in doubt.
    assert set(range(calls)) - set(counted) <= set(unknown)
    assert len(unknown) <= 2 * 6


def test_a_script_of_faults_on_one_call_ends_with_one_run() -> None:
    faults = [CUT_AFTER_REQUEST, CUT_MID_RESPONSE, DUPLICATE_ANSWERED, CUT_AFTER_REQUEST.with_reset(), PASS]
    tally = Tally()
    with (
        running_server({"tally": tally}) as server,
        BadNetwork("127.0.0.1", server.port, Script(faults)) as proxy,
    ):
        client = backwater.Client(f"http://127.0.0.1:{proxy.port}", server.secret, **PATIENT)
        assert client.call("tally", "add", 7) == 21
        assert proxy.faults() == faults
    assert tally.runs == {7: 1}
