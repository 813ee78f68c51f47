"""What goes through a broker, counted: rates over the last minute, and the totals of each key."""

from __future__ import annotations

from backwater_tornado.broker.traffic import Recent, Traffic
from backwater_tornado.broker.values import QueueRates, SiteCounts


def test_what_happened_is_counted_for_a_minute() -> None:
    recent = Recent()
    recent.add(3, 1000.0)
    recent.add(2, 1030.0)
    assert recent.count(1030.0) == 5
    assert recent.count(1054.9) == 5
    assert recent.count(1060.0) == 2
    assert recent.count(1089.9) == 2
    assert recent.count(1090.0) == 0


def test_nothing_is_left_after_a_long_silence() -> None:
    recent = Recent()
    recent.add(3, 1000.0)
    recent.add(1, 9000.0)
    assert recent.count(9000.0) == 1


def test_a_moment_of_before_takes_nothing_away() -> None:
    recent = Recent()
    recent.add(3, 1000.0)
    recent.add(1, 10.0)
    assert recent.count(1000.0) == 4


def test_rates_are_per_second_of_a_minute_or_of_the_time_since_the_start() -> None:
    traffic = Traffic(1000.0)
    traffic.published("key", {"a": 2, "b": 1}, 2, 10, 1000.0)
    traffic.received("key", {"a": 1}, 5, 1000.0)
    traffic.settled("key", 1, {"a": 1}, 1000.0)
    assert traffic.rates(["a", "none"], 1001.0) == [QueueRates("a", 2 / 5, 1 / 5, 1 / 5), QueueRates("none")]
    assert traffic.rates(["b"], 1020.0) == [QueueRates("b", 1 / 20)]
    traffic.published("key", {"a": 6}, 6, 0, 1100.0)
    assert traffic.rates(["a"], 1100.0) == [QueueRates("a", 6 / 60)]


def test_queues_that_nothing_goes_through_are_forgotten() -> None:
    traffic = Traffic(0.0)
    traffic.published("key", {"a": 1}, 1, 1, 100.0)
    traffic.published("key", {"b": 1}, 1, 1, 150.0)
    traffic.forget_idle(170.0)
    assert list(traffic._queues) == ["b"]


def test_each_key_has_its_totals() -> None:
    traffic = Traffic(0.0)
    traffic.published("north", {"a": 2}, 2, 10, 1.0)
    traffic.received("south", {"a": 1}, 5, 1.0)
    traffic.settled("south", 1, {}, 1.0)
    traffic.hear("south", 77.0)
    traffic.received("south", {"a": 1}, 5, 900.0)
    assert traffic.sites() == [
        SiteCounts("north", published=2, bytes_in=10),
        SiteCounts("south", received=2, settled=1, bytes_out=10, heard=77.0),
    ]
