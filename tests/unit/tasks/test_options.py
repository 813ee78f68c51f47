"""What may be said of one sending, and what is said to whoever says it wrongly."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.tasks.options import SendOptions, make_send_options, media_type_of
from backwater_tornado.tasks.signatures import Chain, Signature

NAMES = [field.name for field in msgspec.structs.fields(SendOptions)]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
AFTER = Signature("m.after")

GOOD: list[tuple[str, Any, dict[str, Any]]] = [
    ("queue", "slow", {"queue": "slow"}),
    ("priority", 0, {"priority": 0}),
    ("priority", 255, {"priority": 255}),
    ("countdown", 5, {"countdown": 5.0}),
    ("countdown", timedelta(minutes=1), {"countdown": 60.0}),
    ("eta", NOON, {"eta": NOON.timestamp()}),
    ("eta", NOON.replace(tzinfo=None), {"eta": NOON.timestamp()}),
    ("eta", NOON.astimezone(timezone(timedelta(hours=3))), {"eta": NOON.timestamp()}),
    ("eta", 1.5, {"eta": 1.5}),
    ("expires", 0, {"expires": 0.0}),
    ("expires", timedelta(seconds=3), {"expires": 3.0}),
    ("expires", NOON, {"expires_at": NOON.timestamp()}),
    ("expires_at", NOON, {"expires_at": NOON.timestamp()}),
    ("task_id", "x" * 255, {"task_id": "x" * 255}),
    ("headers", {"a": [1]}, {"headers": {"a": [1]}}),
    ("time_limit", 0.5, {"time_limit": 0.5}),
    ("soft_time_limit", 3, {"soft_time_limit": 3.0}),
    ("max_retries", 0, {"max_retries": 0}),
    ("max_retries", -1, {}),
    ("ignore_result", True, {"ignore_result": True}),
    ("result_expires", 10, {"result_expires": 10.0}),
    ("unique", "key", {"unique": "key"}),
    ("unique_for", 60, {"unique_for": 60.0}),
    ("serializer", "json", {"serializer": "json"}),
    ("link", AFTER, {"link": (AFTER,)}),
    ("link", [AFTER, AFTER], {"link": (AFTER, AFTER)}),
    ("link_error", (AFTER,), {"link_error": (AFTER,)}),
    ("link_error", None, {}),
]

BAD: list[tuple[str, Any, str]] = [
    ("queue", "", "1 to 255 printable characters, not ''"),
    ("queue", "a\nb", "printable"),
    ("queue", 5, "printable characters, not 5"),
    ("task_id", "x" * 256, "1 to 255"),
    ("unique", b"key", "printable"),
    ("priority", -1, "a whole number from 0 to 255, not -1"),
    ("priority", 256, "0 to 255"),
    ("priority", True, "0 to 255"),
    ("priority", 1.0, "0 to 255"),
    ("countdown", -1, "seconds from 0, not -1"),
    ("countdown", timedelta(seconds=-1), "seconds from 0"),
    ("countdown", math.nan, "seconds from 0"),
    ("countdown", math.inf, "seconds from 0"),
    ("countdown", 10**400, "seconds from 0"),
    ("countdown", "5", "seconds from 0, not '5'"),
    ("countdown", True, "seconds from 0"),
    ("eta", "tomorrow", "a datetime, or Unix seconds, not 'tomorrow'"),
    ("eta", timedelta(1), "a datetime, or Unix seconds"),
    ("expires", "5", "seconds from 0"),
    ("expires_at", "5", "a datetime, or Unix seconds"),
    ("time_limit", 0, "seconds above 0, not 0"),
    ("soft_time_limit", -1, "seconds from 0"),
    ("result_expires", [], "seconds from 0"),
    ("unique_for", {}, "seconds from 0"),
    ("max_retries", -2, "a whole number from 0, or None, not -2"),
    ("max_retries", 1.5, "a whole number"),
    ("max_retries", False, "a whole number"),
    ("ignore_result", 1, "True or False, not 1"),
    ("headers", [("a", 1)], "a dict with names as keys"),
    ("headers", {1: 2}, "a dict with names as keys"),
    ("serializer", "pickle", "one of msgpack, json, not 'pickle'"),
    ("serializer", [], "one of msgpack, json"),
    ("link", "m.after", "a signature, or a list of them"),
    ("link", [AFTER, Chain((AFTER,))], "a signature, or a list of them"),
    ("link_error", print, "a signature, or a list of them"),
]


def said(options: SendOptions) -> dict[str, Any]:
    """Only what differs from the defaults."""
    plain = SendOptions()
    return {name: getattr(options, name) for name in NAMES if getattr(options, name) != getattr(plain, name)}


@pytest.mark.parametrize(("name", "value", "wanted"), GOOD)
def test_an_option_is_read(name: str, value: Any, wanted: dict[str, Any]) -> None:
    assert said(make_send_options({name: value})) == wanted


@pytest.mark.parametrize(("name", "value", "wanted"), BAD)
def test_a_wrong_value_is_told_with_its_option_and_what_it_should_be(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(InvalidOption, match=f"^the option '{name}' should be .*{re.escape(wanted)}"):
        make_send_options({name: value})


def test_every_option_has_a_good_value_above_and_nearly_every_a_bad_one() -> None:
    assert {name for name, _, _ in GOOD} == {name for name, _, _ in BAD} == set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("link", "link_error")])
def test_none_takes_back_what_was_said_before(name: str) -> None:
    value = next(value for option, value, wanted in GOOD if option == name and wanted)
    assert getattr(make_send_options({name: None}, make_send_options({name: value})), name) is None


def test_none_takes_back_links() -> None:
    assert said(make_send_options({"link": None, "link_error": None}, SendOptions(link=(AFTER,)))) == {}


def test_what_is_given_goes_over_the_base_and_the_rest_stays() -> None:
    base = make_send_options({"queue": "slow", "priority": 3})
    assert said(make_send_options({"priority": 5}, base)) == {"queue": "slow", "priority": 5}
    assert make_send_options({}, base) == base


@pytest.mark.parametrize(("one", "other"), [("countdown", "eta"), ("expires", "expires_at")])
def test_a_span_goes_over_a_moment_said_before_and_the_other_way_round(one: str, other: str) -> None:
    for first, second in [(one, other), (other, one)]:
        assert said(make_send_options({second: 7}, make_send_options({first: 5}))) == {second: 7}
        assert said(make_send_options({second: None}, make_send_options({first: 5}))) == {first: 5}


@pytest.mark.parametrize(("one", "other"), [("countdown", "eta"), ("expires", "expires_at")])
def test_a_span_and_a_moment_at_once_are_refused(one: str, other: str) -> None:
    for first, second in [(one, other), (other, one)]:
        with pytest.raises(InvalidOption, match=f"{first} and {second} say the same thing twice"):
            make_send_options({first: 5, second: 7})
        assert said(make_send_options({first: 5, second: None})) == {first: 5}


def test_an_unknown_option_is_refused_and_a_near_one_named() -> None:
    with pytest.raises(InvalidOption, match="there is no option 'count_down' of sending; did you mean 'countdown'"):
        make_send_options({"count_down": 5})
    with pytest.raises(InvalidOption, match="there is no option 'zzz' of sending$"):
        make_send_options({"zzz": 5})


def test_headers_are_copied() -> None:
    given = {"a": 1}
    made = make_send_options({"headers": given})
    given["a"] = 2
    assert made.headers == {"a": 1}


@pytest.mark.parametrize(
    ("serializer", "media_type"),
    [(None, "application/msgpack"), ("msgpack", "application/msgpack"), ("json", "application/json")],
)
def test_a_serializer_has_a_media_type(serializer: str | None, media_type: str) -> None:
    assert media_type_of(serializer) == media_type
