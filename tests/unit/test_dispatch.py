"""Running calls: what cannot be made to happen over a socket at will."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from backwater_tornado.dispatch import Dispatcher
from backwater_tornado.exposure import Exposed, Exposure
from backwater_tornado.marks import expose
from backwater_tornado.protocol.codec import JSON, MSGPACK, Codec
from backwater_tornado.protocol.forms import CodecForm
from backwater_tornado.protocol.memory import CallId, Recorded
from backwater_tornado.protocol.messages import Call
from tests.wire import KEY, STREAM, serving_of


class Functions:
    """Exposed as `functions`."""

    def __init__(self) -> None:
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.runs = 0

    @expose(max_concurrency=1)
    async def narrow(self) -> str:
        self.runs += 1
        await self.gate
        return "done"

    @expose
    async def quick(self) -> str:
        self.runs += 1
        return "done"

    @expose
    def plain(self) -> str:
        self.runs += 1
        return "done"


def _dispatching(test: Callable[[Dispatcher, Functions], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        functions = Functions()
        dispatcher = Dispatcher(serving_of(exposed=Exposed(functions=functions), **options), asyncio.get_running_loop())
        try:
            async with asyncio.timeout(20):
                await test(dispatcher, functions)
        finally:
            dispatcher.close()

    asyncio.run(main())


def _call(function: str, *, number: int | None = None, timeout: float | None = None) -> Call:
    call_id = None if number is None else CallId(STREAM, number)
    return Call("functions", function, MSGPACK.encode([[], {}]), timeout=timeout, call_id=call_id)


def _form(dispatcher: Dispatcher, codec: Codec = MSGPACK) -> CodecForm:
    serving = dispatcher._serving
    return CodecForm(serving.exposure, serving.options, codec, codec)


def _start(dispatcher: Dispatcher, call: Call) -> asyncio.Future[Recorded]:
    future = asyncio.get_running_loop().create_future()
    dispatcher.start(KEY, call, _form(dispatcher), future.set_result)
    return future


def _value(answer: Recorded) -> Any:
    value = MSGPACK.decode(answer.body)
    return value if answer.ok else value["type"].rpartition(":")[2]


def test_a_call_whose_deadline_passes_as_it_gets_its_place_gives_it_back() -> None:
    """Its task is made and cancelled in one turn of the loop; cancelled before its first step it would never end."""

    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        first = _start(dispatcher, _call("narrow"))
        second = _start(dispatcher, _call("narrow", timeout=0.05))
        await asyncio.sleep(0)
        functions.gate.set_result(None)
        time.sleep(0.1)  # noqa: ASYNC251 - the deadline passes while the loop is busy
        assert _value(await first) == "done"
        assert _value(await second) == "deadline_exceeded"
        await dispatcher.drained()
        assert _value(await _start(dispatcher, _call("narrow"))) == "done"

    _dispatching(test)


@pytest.mark.parametrize("function", ["quick", "plain"])
def test_an_answer_that_cannot_be_given_holds_back_no_other(function: str, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(answer: Recorded) -> None:
        raise ZeroDivisionError

    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        dispatcher.start(KEY, _call(function, number=1), _form(dispatcher), refuse)
        retry = _start(dispatcher, _call(function, number=1))
        others = [_start(dispatcher, _call(function)) for _ in range(5)]
        assert [_value(await each) for each in (retry, *others)] == ["done"] * 6
        await dispatcher.drained()
        assert functions.runs == 6

    with caplog.at_level(logging.ERROR):
        _dispatching(test)
    assert "could not be given" in caplog.text


def test_a_retry_joins_the_run_and_a_later_one_gets_its_record() -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        answers = [_start(dispatcher, _call("narrow", number=1)) for _ in range(3)]
        await asyncio.sleep(0)
        functions.gate.set_result(None)
        assert [_value(await each) for each in answers] == ["done"] * 3
        assert _value(await _start(dispatcher, _call("narrow", number=1))) == "done"
        assert functions.runs == 1

    _dispatching(test)


def test_a_call_refused_for_want_of_room_may_come_again() -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        first = _start(dispatcher, _call("narrow", number=1))
        assert _value(await _start(dispatcher, _call("quick", number=2))) == "overloaded"
        functions.gate.set_result(None)
        assert _value(await first) == "done"
        await dispatcher.drained()
        assert _value(await _start(dispatcher, _call("quick", number=2))) == "done"

    _dispatching(test, max_pending_calls=1)


def test_a_call_that_came_too_late_may_come_again() -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        assert _value(await _start(dispatcher, _call("quick", number=1, timeout=0.0))) == "deadline_exceeded"
        assert functions.runs == 0
        assert _value(await _start(dispatcher, _call("quick", number=1))) == "done"

    _dispatching(test)


def test_a_large_call_that_is_being_read_counts_as_pending() -> None:
    """Or a server that shuts down would not wait for it."""

    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        large = Call("functions", "quick", JSON.encode([["x" * 300_000], {}]))
        future = asyncio.get_running_loop().create_future()
        dispatcher.start(KEY, large, _form(dispatcher, JSON), future.set_result)
        assert dispatcher.pending == 1
        await dispatcher.drained()
        assert future.done()
        assert JSON.decode((await future).body)["type"].endswith("invalid_arguments")

    _dispatching(test)


def test_what_is_cancelled_by_the_end_of_the_server_is_answered() -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        answer = _start(dispatcher, _call("narrow"))
        await asyncio.sleep(0)
        dispatcher.close()
        assert _value(await answer) == "deadline_exceeded"
        assert dispatcher.pending == 0

    _dispatching(test)


@pytest.mark.parametrize("kept", [1.0, None])
def test_a_call_is_remembered_as_long_as_its_wire_says(kept: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        call = Call("functions", "quick", MSGPACK.encode([[], {}]), call_id=CallId(STREAM, 1), kept=kept)
        for _ in range(2):
            await _start(dispatcher, call)
        assert functions.runs == 1
        later = time.time() + 2
        monkeypatch.setattr(
            "backwater_tornado.dispatch.time", SimpleNamespace(time=lambda: later, monotonic=time.monotonic)
        )
        dispatcher._serving.memory.sweep(later)
        await _start(dispatcher, call)
        assert functions.runs == (1 if kept is None else 2)

    _dispatching(test)


def test_a_functions_places_are_those_of_all_its_exposures() -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        again = CodecForm(Exposure.of(Exposed(functions=functions)), dispatcher._serving.options, MSGPACK, MSGPACK)
        first = _start(dispatcher, _call("narrow"))
        second = asyncio.get_running_loop().create_future()
        dispatcher.start(KEY, _call("narrow"), again, second.set_result)
        assert _value(await _start(dispatcher, _call("quick"))) == "done"
        assert functions.runs == 2  # a narrow one and the quick one
        functions.gate.set_result(None)
        assert [_value(await first), _value(await second)] == ["done", "done"]

    _dispatching(test)


def test_calls_in_different_parts_of_the_memory_have_nothing_to_do_with_each_other() -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        arguments = MSGPACK.encode([[], {}])
        first, second = (
            Call("functions", "narrow", arguments, call_id=CallId(STREAM, 1), part=part) for part in ("", "other")
        )
        running = [_start(dispatcher, call) for call in (first, second, first, second)]
        functions.gate.set_result(None)
        assert [_value(await each) for each in running] == ["done"] * 4
        assert functions.runs == 2
        # All of the one are settled: what the other has is still known.
        settling = Call("functions", "quick", arguments, call_id=CallId(STREAM, 9, settled=9))
        assert _value(await _start(dispatcher, settling)) == "done"
        assert [_value(await _start(dispatcher, call)) for call in (first, second)] == ["already_settled", "done"]
        assert functions.runs == 3

    _dispatching(test)


def test_a_call_that_finds_no_room_is_forgotten_in_its_part() -> None:
    async def test(dispatcher: Dispatcher, functions: Functions) -> None:
        blocking = _start(dispatcher, _call("narrow"))
        call = Call("functions", "quick", MSGPACK.encode([[], {}]), call_id=CallId(STREAM, 1), part="other")
        assert _value(await _start(dispatcher, call)) == "overloaded"
        functions.gate.set_result(None)
        assert _value(await blocking) == "done"
        await dispatcher.drained()
        assert _value(await _start(dispatcher, call)) == "done"

    _dispatching(test, max_pending_calls=1)
