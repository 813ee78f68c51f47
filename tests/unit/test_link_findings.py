from __future__ import annotations

import pytest

from backwater_tornado.findings import Finding, Verdict
from backwater_tornado.link_findings import Company, Habits, Link, judge_company, judge_habits, judge_link

HABITS = Habits(wait=6.0, silence=8.0, most=1000)


def test_a_short_link_is_told_as_it_is() -> None:
    assert judge_link(Link(0.001, 0.0005)) == Finding("link", Verdict.OK, "1.0 ms round trip (connecting 0.5 ms)")


def test_over_a_long_one_it_is_told_what_helps() -> None:
    found = judge_link(Link(0.1, 0.1, 0.2, up=12_345_678.0, down=999.0))
    assert found.message == (
        "100.0 ms round trip (connecting 100.0 ms, TLS 200.0 ms); at least 12.3 MB/s up and 999 bytes/s down"
    )
    assert found.advice.startswith("whoever waits for each call makes 10 a second: ")


def test_what_could_not_be_measured_is_left_out() -> None:
    assert judge_link(Link(0.001, 0.001, down=1500.0)).message.endswith("; at least 1.5 kB/s down")


def test_what_a_small_call_costs() -> None:
    assert judge_company(Company(1250, 32_000, 500)).message == (
        "a call of a few arguments is 1.25 kB on its own, and 64 bytes among 500"
    )


@pytest.mark.parametrize(("round_trip", "held"), [(0.0, 0), (0.1, 200), (0.5, 1000)])
def test_what_a_worker_will_do(round_trip: float, held: int) -> None:
    (found,) = judge_habits(Link(round_trip, 0.0), HABITS)
    assert found == Finding(
        "worker",
        Verdict.OK,
        "polls wait 6 s, and silence of 8 s is a dead link; "
        f"1000 tasks a second need {held} on the way, of 1000 at most",
    )


def test_where_one_worker_is_too_little_it_is_told() -> None:
    (found,) = judge_habits(Link(1.0, 0.0), HABITS)
    assert (found.verdict, "no more than 500 short tasks" in found.advice) == (Verdict.WARN, True)


def test_proxies_are_told_of() -> None:
    _, found = judge_habits(Link(0.1, 0.0, via="1.1 edge"), HABITS)
    assert (found.check, found.message) == ("proxies", "on the way is 1.1 edge")
