"""The contract of an outbox, for every kind of it."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backwater_tornado.errors import ConfigurationError, OutboxFull
from backwater_tornado.outbox.amounts import Bounds, Status
from backwater_tornado.outbox.parcels import Kept, Parcel
from backwater_tornado.outbox.store import OutboxStore
from backwater_tornado.outbox.stores import SCHEMAS, open_outbox
from tests.postgres import schema

KINDS = ("sqlite", "postgresql")
#: Opens the same outbox, again and again.
Open = Callable[..., OutboxStore[Any]]
Number = Callable[[str], int]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite://{tmp_path}/o.db"
        return
    with schema(request.getfixturevalue("postgres"), SCHEMAS["postgresql"]) as url:
        yield url


@pytest.fixture
def outbox(url: str) -> Iterator[Open]:
    opened: list[OutboxStore[Any]] = []

    def again(**bounds: Any) -> OutboxStore[Any]:
        opened.append(open_outbox(url, Bounds(**bounds)))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


def parcel(id: str, *queues: str, messages: int = 1, body: bytes = b"body", at: float = 5.0) -> Parcel:
    return Parcel(id, queues or ("a",), messages, body, at)


def ids(box: OutboxStore[Any]) -> list[str]:
    return [each.parcel.id for each in box.waiting(0, 10_000)]


def numbers(box: OutboxStore[Any]) -> dict[str, int]:
    return {each.parcel.id: each.number for each in box.waiting(0, 10_000)}


def test_what_is_put_in_is_there_for_everybody_in_order(outbox: Open) -> None:
    box, other = outbox(), outbox()
    box.put([parcel("1", "a", "ä, b", messages=2, body=b"\0\xff"), parcel("2")])
    other.put([parcel("3")])
    assert ids(box) == ids(other) == ["1", "2", "3"]
    box.close()
    assert ids(box) == ["1", "2", "3"]
    first = box.waiting(0, 1)[0]
    assert first.parcel == parcel("1", "a", "ä, b", messages=2, body=b"\0\xff")
    assert [each.parcel.id for each in box.waiting(first.number, 1)] == ["2"]


def test_a_reader_gives_each_once_in_order_and_goes_on_where_it_was(outbox: Open) -> None:
    box = outbox()
    read = box.reader()
    assert read(9) == []
    box.put([parcel(str(number), "q", messages=number) for number in range(1, 6)])
    found = read(2) + read(2)
    assert [(each.messages, each.queues, each.size) for each in found] == [(n, ("q",), 4) for n in (1, 2, 3, 4)]
    box.remove([found[0].number, found[2].number])
    box.put([parcel("6", messages=6)])
    assert [each.messages for each in read(9)] == [5, 6]
    assert read(9) == []
    assert [each.messages for each in box.reader()(9)] == [2, 4, 5, 6]


def test_taking_marks_the_first_time_and_leaves_out_what_was_dropped(outbox: Open) -> None:
    box = outbox()
    box.put([parcel("1"), parcel("2"), parcel("3")])
    one, two, three = numbers(box).values()
    assert box.drop(["2", "none"]) == 1
    assert [(each.parcel, each.tried) for each in box.take([three, one, two], 10.0)] == [
        (parcel("1"), None),
        (parcel("3"), None),
    ]
    assert [each.tried for each in box.take([one], 20.0)] == [10.0]
    assert [each.tried for each in box.waiting(0, 9)] == [10.0, 10.0]


def test_what_is_waited_for_is_what_was_there(outbox: Open) -> None:
    box = outbox()
    assert not box.is_waiting(box.last_number())
    box.put([parcel("1"), parcel("2")])
    last = box.last_number()
    box.put([parcel("3")])
    assert box.is_waiting(last)
    one, two, three = numbers(box).values()
    assert box.remove([one, two, 10**9]) == 2
    assert not box.is_waiting(last)
    assert box.is_waiting(three)


def test_what_was_refused_is_kept_once_until_it_is_dropped(outbox: Open) -> None:
    box = outbox()
    refused = [Kept(parcel("x", "b", messages=2, at=6.0), "queue_full"), Kept(parcel("y", body=b"1"), "unrouted")]
    box.put([parcel("1", at=7.0), parcel("2", "a", "b", messages=2, at=6.5)])
    box.keep(refused)
    box.keep(refused[:1])
    assert box.refused(9) == refused[::-1]
    assert box.refused(1) == refused[1:]
    assert box.status() == Status({"a": 1, "a, b": 2}, 6.5, 3, 13, 0)
    assert box.drop(["x", "1"]) == 2
    assert box.refused(9) == refused[1:]
    assert box.drop_refused() == 1
    assert box.drop_refused() == 0
    assert box.remove(numbers(box).values()) == 1
    assert box.status() == Status({}, None, 0, 0, 0)


@pytest.mark.parametrize("bounds", [{"messages": 3}, {"size": 12}], ids=["messages", "bytes"])
def test_a_full_one_refuses_until_there_is_room(outbox: Open, bounds: dict[str, int]) -> None:
    box = outbox(**bounds)
    box.put([parcel("1")])
    box.keep([Kept(parcel("x"), "unrouted")])
    with pytest.raises(OutboxFull, match="at most"):
        box.put([parcel("2"), parcel("3")])
    box.put([parcel("2")])
    with pytest.raises(OutboxFull):
        box.put([parcel("3")])
    assert ids(box) == ["1", "2"]
    box.remove([numbers(box)["1"]])
    box.put([parcel("3")])
    box.drop_refused()
    box.put([parcel("4")])
    box.drop(["2"])
    box.put([parcel("5")])
    assert ids(box) == ["3", "4", "5"]


@pytest.mark.parametrize("bounds", [{"messages": 3}, {"size": 12}], ids=["messages", "bytes"])
def test_where_that_is_wished_the_oldest_that_was_never_tried_makes_room(outbox: Open, bounds: dict[str, int]) -> None:
    box = outbox(**bounds, when_full="drop_oldest")
    assert box.put([parcel("1"), parcel("2"), parcel("3")]) == 0
    box.take([numbers(box)["1"]], 10.0)
    assert box.put([parcel("4")]) == 1
    assert ids(box) == ["1", "3", "4"]
    assert box.put([parcel("5"), parcel("6")]) == 2
    assert ids(box) == ["1", "5", "6"]
    with pytest.raises(OutboxFull):  # what is on its way may not be dropped
        box.put([parcel(str(number)) for number in range(7, 10)])
    assert ids(box) == ["1", "5", "6"]
    assert box.status().dropped == 3
    assert box.put([parcel("7")]) == 1


def test_threads_that_put_in_at_once_share_a_commit_and_nothing_is_lost(outbox: Open) -> None:
    box = outbox()
    with box.lock, ThreadPoolExecutor(8) as pool:  # another's commit goes on
        waiting = [pool.submit(box.put, [parcel(f"{thread}")]) for thread in range(8)]
        while len(box._line) < 8:
            os.sched_yield()
        box._put_all()
        assert len(ids(box)) == 8
        box.lock.release()
        try:
            for each in waiting:
                each.result(10)
        finally:
            box.lock.acquire()
    assert sorted(ids(box)) == sorted(map(str, range(8)))


def test_one_forwarder_at_a_time_has_the_seat_and_putting_in_rings(outbox: Open) -> None:
    box = outbox()
    one, other = box.seat(), outbox().seat()
    other.leave()
    assert one.take()
    assert not other.take()
    assert other.fd < 0
    assert not select.select([one.fd], [], [], 0)[0]
    box.put([parcel("1")])
    assert select.select([one.fd], [], [], 10)[0]
    assert one.hush()
    assert not select.select([one.fd], [], [], 0)[0]
    one.leave()
    assert one.fd < 0
    assert other.take()
    other.leave()


def test_it_crosses_a_fork(outbox: Open) -> None:
    box = outbox()
    box.put([parcel("before")])
    assert ids(box) == ["before"]
    if not (child := os.fork()):
        code = 1
        try:
            box.put([parcel("child")])
            code = 0 if ids(box) == ["before", "child"] else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    box.put([parcel("parent")])
    assert ids(box) == ["before", "child", "parent"]


def put_twenty(box: OutboxStore[Any], name: str) -> None:
    for number in range(20):
        box.put([parcel(f"{name}{number}")])


def test_a_reader_and_writers_in_threads_lose_nothing(outbox: Open) -> None:
    box, found = outbox(), []
    with ThreadPoolExecutor(4) as pool:
        ended = threading.Event()
        writers = [pool.submit(put_twenty, box, name) for name in "abc"]
        reader = box.reader()
        while not ended.is_set():
            if all(each.done() for each in writers):
                ended.set()
            found += reader(7)
    while more := reader(7):
        found += more
    assert len({each.number for each in found}) == len(found) == 60


def test_one_without_tables_is_told(postgres: str) -> None:
    with schema(postgres) as url, pytest.raises(ConfigurationError, match="has no tables; `backwater outbox schema"):
        open_outbox(url)
