"""Endpoints in all their forms, and options that are checked when they are made."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backwater_tornado.errors import InvalidEndpoint, InvalidOption
from backwater_tornado.options import (
    CallOptions,
    ClientOptions,
    Endpoint,
    ErlangOptions,
    ErlangTerms,
    Limits,
    ListenerOptions,
    ServerOptions,
    make_options,
)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("host", "http://host:8080"),
        ("host:81", "http://host:81"),
        ("host:80", "http://host"),
        ("HOST", "http://host:8080"),
        ("http://host", "http://host"),
        ("https://host", "https://host"),
        ("https://host:8443", "https://host:8443"),
        ("http://host:443", "http://host:443"),
        ("https://host/base/", "https://host/base"),
        ("https://host/a/b~c%20d", "https://host/a/b~c%20d"),
        ("host/base", "http://host:8080/base"),
        (("host", 81), "http://host:81"),
        (("::1", 81), "http://[::1]:81"),
        ((ipaddress.ip_address("::1"), 81), "http://[::1]:81"),
        ((ipaddress.ip_address("10.0.0.1"), 81), "http://10.0.0.1:81"),
        ("::1", "http://[::1]:8080"),
        ("[::1]", "http://[::1]:8080"),
        ("[::1]:81", "http://[::1]:81"),
        ("https://[0:0::1]", "https://[::1]"),
        (ipaddress.ip_address("10.0.0.1"), "http://10.0.0.1:8080"),
        (ipaddress.ip_address("::1"), "http://[::1]:8080"),
        ("bücher.example", "http://xn--bcher-kva.example:8080"),
        ("under_score.example.", "http://under_score.example.:8080"),
        (Endpoint("https", "host", 443), "https://host"),
    ],
)
def test_an_endpoint_in_each_form(given: object, url: str) -> None:
    assert Endpoint.parse(given).url == url
    assert Endpoint.parse(url) == Endpoint.parse(given)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "http://",
        "ftp://host",
        "http://user:hush@host",
        "http://host?x",
        "http://host/#",
        "http://host/?",
        "http://host:0",
        "http://host:65536",
        "http://host:x",
        "http://[::1",
        "http://host/a b",
        "http://host//a",
        "-host",
        "a..b:c:d",
        "\udcff",
        "é" * 70 + ".example",
        "80",
        "10.0.0",
        "10.0.0.256",
        ("host", "81"),
        ("host", True),
        (17, 81),
        ("host", 0),
        ("a", 1, 2),
        17,
        None,
        b"host",
    ],
    ids=repr,
)
def test_what_is_no_endpoint_is_refused(given: object) -> None:
    with pytest.raises(InvalidEndpoint) as raised:
        Endpoint.parse(given)
    assert "\n" not in str(raised.value)
    assert "hush" not in str(raised.value)


@given(st.text(max_size=30))
@example("http://[")
@example("http://\u2100.example")
@example("//[::1]]:80")
def test_any_text_is_an_endpoint_or_refused_as_one(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except InvalidEndpoint:
        return
    assert Endpoint.parse(endpoint.url) == endpoint


@pytest.mark.parametrize(
    ("kind", "field", "wrong"),
    [
        (ClientOptions, "connect_timeout", 0),
        (ClientOptions, "recv_timeout", -1),
        (ClientOptions, "recv_timeout", None),
        (ClientOptions, "timeout", 0),
        (ClientOptions, "timeout", float("nan")),
        (ClientOptions, "timeout", float("inf")),
        (ClientOptions, "max_attempts", 0),
        (ClientOptions, "max_connections", True),
        (ClientOptions, "backoff", -0.1),
        (ClientOptions, "coalesce_delay", "soon"),
        (ClientOptions, "max_connection_age", 0),
        (ClientOptions, "max_calls_per_request", 0),
        (ClientOptions, "coalesce_size", 0),
        (ServerOptions, "threads", 0),
        (ServerOptions, "max_pending_calls", None),
        (ServerOptions, "max_calls_per_request", "1"),
        (ServerOptions, "max_time_limit", 0),
        (ServerOptions, "clock_tolerance", -1),
        (ListenerOptions, "max_connections", 0),
        (ListenerOptions, "max_keepalive", 0),
        (ListenerOptions, "header_timeout", 0),
        (ListenerOptions, "body_timeout", 0),
        (ListenerOptions, "idle_timeout", 0),
        (ListenerOptions, "max_header_size", 2047),
        (ListenerOptions, "max_header_size", "2048"),
        (Limits, "max_encoded_args_size", 0),
        (Limits, "max_encoded_result_size", None),
        (Limits, "compression_threshold", -1),
        (Limits, "compression_level", 0),
        (Limits, "compression_level", 20),
        (Limits, "compression_level", "3"),
        (CallOptions, "timeout", 0),
        (ClientOptions, "wire", "smoke"),
        (ClientOptions, "terms", None),
        (ErlangTerms, "none", "null"),
        (ErlangTerms, "atoms", "ok"),
        (ErlangTerms, "atoms", b"ok"),
        (ErlangTerms, "atoms", 17),
        (ErlangOptions, "none", None),
        (ErlangOptions, "replay_window", -1),
        (ErlangOptions, "replay_window", None),
    ],
)
def test_a_value_out_of_range_is_named(kind: type[Any], field: str, wrong: object) -> None:
    with pytest.raises(InvalidOption) as raised:
        kind(**{field: wrong})
    assert str(raised.value).startswith(field)
    assert repr(wrong) in str(raised.value)


def test_what_may_be_zero_or_missing_may() -> None:
    ClientOptions(backoff=0, max_backoff=0, coalesce_delay=0, timeout=None)
    ServerOptions(clock_tolerance=0)
    Limits(compression_threshold=0)
    CallOptions(timeout=None)
    ListenerOptions(max_header_size=2048)


def test_an_unknown_option_says_which_ones_there_are() -> None:
    with pytest.raises(InvalidOption, match="unknown option 'time_out'; there are: .*timeout, traceparent"):
        make_options(CallOptions, {"time_out": 1})
    assert make_options(CallOptions, {"timeout": 1.5}) == CallOptions(timeout=1.5)


def test_a_fields_own_attribute_is_no_option() -> None:
    with pytest.raises(InvalidOption, match="authority"):
        make_options(Endpoint, {"scheme": "http", "host": "host", "port": 1, "authority": "other"})


def test_a_calls_time_is_that_to_connect_and_to_hear_unless_it_is_given() -> None:
    assert ClientOptions().call_timeout == 13.0
    assert ClientOptions(timeout=2).call_timeout == 2


def test_names_of_a_server_are_compared_in_lower_case() -> None:
    assert ServerOptions(authorities=("DC1.Example:8443",)).authorities == ("dc1.example:8443",)


def test_atoms_are_known_by_name_where_unknown_ones_are_refused() -> None:
    assert ErlangTerms().known_atoms(["a"]) is None
    terms = ErlangTerms(decode_unsafe_terms=False, atoms=iter(["a", "b"]))
    assert terms.known_atoms(name for name in "bc") == {"a", "b", "c"}
    assert terms.known_atoms(()) == {"a", "b"}
    assert ErlangOptions(decode_unsafe_terms=False, atoms=["x"]).known_atoms(()) == {"x"}


def test_a_server_of_version_1_may_forget_at_once() -> None:
    assert ErlangOptions().replay_window == 60
    assert ErlangOptions(replay_window=0).replay_window == 0


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(ErlangOptions(secret="hush hush hush hush"))
