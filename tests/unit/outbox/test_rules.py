"""What a forwarder decides."""

from __future__ import annotations

import pytest

from backwater_tornado.outbox.parcels import Place
from backwater_tornado.outbox.rules import (
    KNOWN_FOR,
    LEAST_BYTES,
    LEAST_MESSAGES,
    MAX_PAUSE,
    Room,
    choose,
    is_known,
    pause,
)
from backwater_tornado.tasks.flows import MAX_BYTES, MAX_MESSAGES


def places(*queues: str, messages: int = 1, size: int = 10) -> list[Place]:
    """One parcel for each word; a word with several letters goes to several queues."""
    return [Place(number, tuple(letters), messages, size) for number, letters in enumerate(queues, 1)]


def numbers(chosen: list[Place]) -> list[int]:
    return [each.number for each in chosen]


def test_all_that_fits_goes_together() -> None:
    assert numbers(choose(places("a", "b", "ab", "c"), [], Room())) == [1, 2, 3, 4]
    assert choose([], [], Room()) == []


def test_what_is_on_its_way_is_not_overtaken() -> None:
    assert numbers(choose(places("a", "b", "a", "c"), ["a"], Room())) == [2, 4]


def test_what_waits_is_not_overtaken_either() -> None:
    # The second waits for the first one's queue, and holds up its other one.
    assert numbers(choose(places("a", "ab", "b", "c"), ["a"], Room())) == [4]


@pytest.mark.parametrize("room", [Room(3, 1000), Room(100, 30)], ids=["messages", "bytes"])
def test_a_request_is_full_at_its_bounds(room: Room) -> None:
    assert numbers(choose(places(*"aaaaa"), [], room)) == [1, 2, 3]


def test_a_parcel_larger_than_a_request_goes_alone() -> None:
    assert numbers(choose(places("a", "a", messages=5), [], Room(3, 1000))) == [1]


def test_where_more_waits_than_a_request_holds_other_queues_are_left_to_the_next() -> None:
    waiting = places(*"abababcc")
    first = choose(waiting, [], Room(4, 1000))
    assert numbers(first) == [1, 3, 5]
    left = [each for each in waiting if each not in first]
    second = choose(left, ["a"], Room(4, 1000))
    assert numbers(second) == [2, 4, 6]
    assert numbers(choose(left, ["a", "b"], Room(4, 1000))) == [7, 8]


def test_many_queues_with_little_in_each_share_a_request() -> None:
    assert numbers(choose(places(*"abcdefabc"), [], Room(6, 1000))) == [1, 2, 3, 7, 8, 9]


def test_what_is_left_to_the_next_request_is_not_overtaken_by_an_order_for_both() -> None:
    # b waits for the next request; so must what is for a and b, and the a behind that.
    assert numbers(choose(places("a", "b", "b", "b", "ab", "a"), [], Room(4, 1000))) == [1]


def test_room_shrinks_and_grows_within_bounds() -> None:
    room = Room()
    assert room.smaller() == Room(MAX_MESSAGES // 2, MAX_BYTES // 2)
    for _ in range(20):
        room = room.smaller()
    assert room == Room(LEAST_MESSAGES, LEAST_BYTES)
    assert room.larger() == Room(2 * LEAST_MESSAGES, 2 * LEAST_BYTES)
    for _ in range(20):
        room = room.larger()
    assert room == Room()


def test_pauses_grow_up_to_two_seconds_with_jitter() -> None:
    assert [pause(failures, 1.0) for failures in (1, 2, 3)] == [0.05, 0.1, 0.2]
    assert pause(1, 0.0) == 0.025
    assert (pause(10**6, 1.0), pause(10**6, 0.0)) == (MAX_PAUSE, MAX_PAUSE / 2)


def test_a_parcel_is_repeated_only_while_the_broker_would_know_it() -> None:
    assert is_known(None, 1e9)
    assert is_known(1000.0, 1000.0 + KNOWN_FOR - 1)
    assert not is_known(1000.0, 1000.0 + KNOWN_FOR)
