from __future__ import annotations

from pathlib import Path

import pytest

from backwater_tornado.errors import InvalidOption, RequestMalformed
from backwater_tornado.protocol.memory import (
    MAX_NUMBER,
    STREAM_LENGTH,
    WINDOW,
    Begin,
    CallId,
    CallMemory,
    InProcessMemory,
    MemoryLimits,
    Recorded,
    short_name,
    slide,
    split_nonce,
)
from tests.contracts.test_memory import MemoryContract


class TestTheContract(MemoryContract):
    def open(self, tmp_path: Path, started: float, limits: MemoryLimits) -> CallMemory:
        return InProcessMemory(started, limits)


STREAM = "s" * STREAM_LENGTH


@pytest.mark.parametrize(
    ("nonce", "parts"),
    [
        (f"{STREAM}.0", (STREAM, 0)),
        (f"{STREAM}.17", (STREAM, 17)),
        (f"{STREAM}.{10**18 - 1}", (STREAM, 10**18 - 1)),
        (f"{STREAM}.{10**18}", (f"{STREAM}.{10**18}", 0)),
        (f"{STREAM}s.17", (f"{STREAM}s.17", 0)),
        (f"{STREAM[1:]}.17", (f"{STREAM[1:]}.17", 0)),
        (f"{STREAM}.", (f"{STREAM}.", 0)),
        (f"{STREAM}.+1", (f"{STREAM}.+1", 0)),
        (f"{STREAM}.\u0661", (short_name(f"{STREAM}.\u0661"), 0)),
        ("", ("", 0)),
    ],
)
def test_a_nonce_is_split_if_it_has_our_shape(nonce: str, parts: tuple[str, int]) -> None:
    assert split_nonce(nonce) == parts


def test_a_long_or_odd_name_is_kept_as_a_hash() -> None:
    assert short_name("x" * 64) == "x" * 64
    assert len(short_name("x" * 65)) == 65
    assert short_name("x" * 65) != short_name("x" * 66)
    assert short_name("é").isascii()
    assert short_name("\ud800") != short_name("\ud801")


def test_the_window_of_a_stream_never_grows() -> None:
    highest, seen = 1, 1
    for number in (2, WINDOW, 3 * WINDOW, 3 * WINDOW + 1, 4 * WINDOW, 10**18, 10**18 + WINDOW - 1):
        highest, seen = slide(highest, seen, number)
        assert highest == number
        assert seen & 1
        assert seen.bit_length() <= WINDOW


@pytest.mark.parametrize(
    ("number", "settled", "age"),
    [
        (-1, 0, None),
        (MAX_NUMBER + 1, 0, None),
        (0, -1, None),
        (0, MAX_NUMBER + 1, None),
        (0, 0, -0.1),
        (0, 0, float("nan")),
    ],
)
def test_a_call_id_out_of_range_is_refused(number: int, settled: int, age: float | None) -> None:
    with pytest.raises(RequestMalformed):
        CallId(STREAM, number, settled, age)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None, "many"])
@pytest.mark.parametrize("name", ["streams", "records", "answer_bytes"])
def test_a_limit_is_a_whole_number_above_0(name: str, limit: object) -> None:
    with pytest.raises(InvalidOption, match=name):
        MemoryLimits(**{name: limit})  # type: ignore[arg-type]


@pytest.mark.parametrize("jump", [1, 1000, MAX_NUMBER - 2000])
def test_a_mark_may_rise_by_any_amount_at_once(jump: int) -> None:
    memory = InProcessMemory(0, MemoryLimits(records=1000))
    for number in range(1000):
        memory.begin("k", CallId(STREAM, number), b"", 300, 1)
        memory.finish("k", CallId(STREAM, number), Recorded(True, 200, "", b""), 1)
    assert memory.begin("k", CallId(STREAM, 1000 + jump, jump), b"", 300, 1) is Begin.RUN


def test_what_is_kept_is_what_is_outstanding() -> None:
    # 100 000 calls of one client, ten at a time, fit into a memory of eleven.
    memory = InProcessMemory(0, MemoryLimits(streams=1, records=11, answer_bytes=110))
    for number in range(100_000):
        memory.admit("k", f"{STREAM}.{number}", 300, 1)
        call = CallId(STREAM, number, max(0, number - 10))
        assert memory.begin("k", call, b"", 300, 1) is Begin.RUN
        memory.finish("k", call, Recorded(True, 200, "", b"0123456789"), 1)


def test_it_says_from_when_on_it_remembers() -> None:
    assert InProcessMemory(17.5).started == 17.5
