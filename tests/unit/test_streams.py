"""Numbers of calls and nonces: none twice, and the settled mark never passes an open call."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.protocol.memory import STREAM_LENGTH, split_nonce
from backwater_tornado.streams import Stream


def test_a_stream_has_a_name_that_the_memory_takes_for_one() -> None:
    """Otherwise each nonce would be a stream of its own there."""
    for _ in range(100):
        stream = Stream()
        assert len(stream.name) == STREAM_LENGTH
        nonce, _ = stream.draw()
        assert split_nonce(nonce) == (stream.name, 1)


def test_numbers_rise_and_settle() -> None:
    stream = Stream()
    assert [stream.begin() for _ in range(3)] == [0, 1, 2]
    assert stream.draw() == (f"{stream.name}.1", 0)
    stream.settle(1)
    assert stream.draw() == (f"{stream.name}.2", 0)
    stream.settle(0)
    assert stream.draw() == (f"{stream.name}.3", 2)
    stream.settle(2)
    assert stream.draw() == (f"{stream.name}.4", 3)
    assert stream.begin() == 3
    assert stream.draw() == (f"{stream.name}.5", 3)


def test_settling_twice_is_settling() -> None:
    stream = Stream()
    number = stream.begin()
    stream.settle(number)
    stream.settle(number)
    assert stream.draw()[1] == 1


@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=60))
def test_the_mark_is_the_lowest_open_number_and_never_falls(steps: list[int | None]) -> None:
    stream = Stream()
    begun: set[int] = set()
    open_: set[int] = set()
    last = 0
    nonces = set()
    for step in steps:
        if step is None:
            number = stream.begin()
            assert number not in begun
            begun.add(number)
            open_.add(number)
        else:
            stream.settle(step)
            if step in begun:
                open_.discard(step)
        nonce, mark = stream.draw()
        assert nonce not in nonces
        nonces.add(nonce)
        assert mark == min(open_, default=len(begun))
        assert mark >= last
        last = mark


def test_a_renewed_stream_shares_nothing_with_what_it_was() -> None:
    stream = Stream()
    before = stream.name
    stream.begin()
    stream._lock.acquire()  # as it may be when a process forks
    stream.renew()
    assert stream.name != before
    assert stream.begin() == 0
    assert stream.draw() == (f"{stream.name}.1", 0)


def test_threads_share_a_stream() -> None:
    stream = Stream()
    gone_back = threading.Event()

    def use(_: int) -> list[int]:
        numbers = []
        last = 0
        for _ in range(200):
            number = stream.begin()
            mark = stream.draw()[1]
            if mark < last or mark > number:
                gone_back.set()
            last = mark
            stream.settle(number)
            numbers.append(number)
        return numbers

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for each in pool.map(use, range(8)) for number in each]
    assert sorted(numbers) == list(range(1600))
    assert not gone_back.is_set()
    assert stream.draw() == (f"{stream.name}.1601", 1600)
