from __future__ import annotations

import time

import pytest

from backwater_tornado.errors import RequestMalformed
from backwater_tornado.protocol.headers import (
    MAX_TIMEOUT,
    accepted_media_types,
    bounded_timeout,
    decode_bytes,
    dictionary_members,
    encode_bytes,
    format_call_key,
    format_timeout,
    media_type_of,
    parse_call_key,
    parse_timeout,
    parse_traceparent,
    read_digest,
    read_retry_after,
)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


# Byte sequences


@pytest.mark.parametrize("value", [b"", b"h", b"hi", b"hi!", bytes(range(256))])
def test_a_byte_sequence_comes_back(value: bytes) -> None:
    assert decode_bytes(encode_bytes(value)) == value


def test_a_byte_sequence_is_base64_between_colons() -> None:
    assert encode_bytes(b"\xff\xfe\xfd") == "://79:"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "aGk=",
        ":aGk=",
        "aGk=:",
        "?aGk=:",
        ":aGk=?",
        ":aG k=:",
        ":aGk:",
        ":a=Gk:",
        ":aGk=\n:",
        ":é:",
        ":aGk=:;a=1",
    ],
)
def test_what_is_no_byte_sequence_is_none(text: str) -> None:
    assert decode_bytes(text) is None


# Dictionaries


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("a=1", [("a", "1")]),
        ("a=1, b=2", [("a", "1"), ("b", "2")]),
        ("a=1,b=2\t,\tc", [("a", "1"), ("b", "2"), ("c", "")]),
        ('a="x,y",b=2', [("a", '"x,y"'), ("b", "2")]),
        (r'a="x\",y",b=2', [("a", r'"x\",y"'), ("b", "2")]),
        (r'a="x\\",b=2', [("a", r'"x\\"'), ("b", "2")]),
        ('a=("x" "y"), b=2', [("a", '("x" "y")'), ("b", "2")]),
        ("a=(1,2), b=2", [("a", "(1,2)"), ("b", "2")]),
        ('a=("(" 1), b=2', [("a", '("(" 1)'), ("b", "2")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=1, a=2", [("a", "1"), ("a", "2")]),
        ("", [("", "")]),
        ('a="x, b=2', [("a", '"x, b=2')]),
        ("a=(x, b=2", [("a", "(x, b=2")]),
    ],
)
def test_a_dictionary_is_split_outside_of_strings_and_lists(field: str, members: list[tuple[str, str]]) -> None:
    assert list(dictionary_members(field)) == members


# Digests


@pytest.mark.parametrize(
    ("field", "digest"),
    [
        ("sha-256=:aGk=:", b"hi"),
        ("sha-256=:aGk=:, sha-512=:eA==:", b"hi"),
        ("sha-512=:eA==:,sha-256=:aGk=:", b"hi"),
        ("sha-512=:eA==:", None),
        ("sha-512=:eA==:, md5=:eA==:", None),
        ("", None),
        ("SHA-256=:aGk=:", None),
        ("sha-256", b""),
        ("sha-256=", b""),
        ("sha-256=aGk=", b""),
        ("sha-256=aGk=, md5=:eA==:", b""),
        ("sha-256=:aGk=:;a=1", b""),
    ],
)
def test_a_digest_is_read(field: str, digest: bytes | None) -> None:
    assert read_digest(field) == digest


# Media types


@pytest.mark.parametrize("field", ["Application/JSON", " application/json ; charset=utf-8", "application/json;"])
def test_a_media_type_is_told_without_case_and_parameters(field: str) -> None:
    assert media_type_of(field) == "application/json"


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("a/b", ["a/b"]),
        ("a/b;q=0.1, C/D", ["c/d", "a/b"]),
        ("a/b, c/d", ["a/b", "c/d"]),
        ("a/b;q=0, c/d;q=0.0", []),
        ("a/b;v=1;q=0.5, c/d;q=0.6", ["c/d", "a/b"]),
        ("a/b;q=x, c/d", ["c/d"]),
        ("a/b;q=nan, c/d;q=inf, e/f;q=-1, g/h;q=1.1", []),
        ("", []),
        (" , ", []),
        ("a/b;q=0.5, */*", ["*/*", "a/b"]),
    ],
)
def test_accepted_media_types_come_best_first(field: str, names: list[str]) -> None:
    assert accepted_media_types(field) == names


# Time left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.5, "4.5"),
        (100.0, "100"),
        (0.25, "0.25"),
        (0.0, "0.001"),
        (-7.0, "0.001"),
        (0.0001, "0.001"),
        (MAX_TIMEOUT, "9999999"),
        (1e300, "9999999"),
        (float("inf"), "9999999"),
    ],
)
def test_the_time_left_is_written_in_seconds_and_is_always_one_that_can_be_read(seconds: float, text: str) -> None:
    assert format_timeout(seconds) == text
    assert parse_timeout(text) == pytest.approx(bounded_timeout(seconds), abs=0.001)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("0.000", 0.0), ("12", 12.0), ("0.001", 0.001), ("007.5", 7.5)]
)
def test_the_time_left_is_read(text: str, seconds: float) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "nan", "inf", "1e5", "0.0001", "12345678", "1.", ".5", " 1", "1\n", "1_0", "٣", "0x1"]
)
def test_what_is_no_time_left_is_refused(text: str) -> None:
    with pytest.raises(RequestMalformed, match="number of seconds"):
        parse_timeout(text)


# Trace


def test_a_traceparent_is_passed_on() -> None:
    assert parse_traceparent(TRACEPARENT) == TRACEPARENT


@pytest.mark.parametrize(
    "text", [None, "", TRACEPARENT.upper(), TRACEPARENT + "\n", TRACEPARENT[:-1], f"{TRACEPARENT}\r\nx: y"]
)
def test_a_broken_traceparent_is_as_good_as_none(text: str | None) -> None:
    assert parse_traceparent(text) is None


# Idempotency keys


@pytest.mark.parametrize(
    ("settled", "age", "text"),
    [
        (0, None, '"abc.17";settled=0'),
        (4702, 3.2, '"abc.17";settled=4702;age=3.200'),
        (1, 0.0, '"abc.17";settled=1;age=0.000'),
    ],
)
def test_a_call_key_comes_back(settled: int, age: float | None, text: str) -> None:
    assert format_call_key("abc", 17, settled, age) == text
    assert parse_call_key(text) == ("abc", 17, settled, age)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('"order-17"', ('"order-17"', 0, 0, None)),
        ('"a b/c";age=1.5', ('"a b/c"', 0, 0, 1.5)),
        ('"order-17";settled=5', ('"order-17"', 0, 0, None)),
        ('"a.b.1"', ('"a.b.1"', 0, 0, None)),
        ('"a.1234567890123456789"', ('"a.1234567890123456789"', 0, 0, None)),
        (f'"{"a" * 65}.1"', (f'"{"a" * 65}.1"', 0, 0, None)),
        ('"order.17"', ("order", 17, 0, None)),
        ('"a.1";age=2;settled=1', ("a", 1, 1, 2.0)),
        ('"a.999999999999999999";settled=99999999999999999999', ("a", 10**18 - 1, 10**20 - 1, None)),
    ],
)
def test_a_key_of_another_make_is_a_stream_of_its_own(text: str, key: tuple[str, int, int, float | None]) -> None:
    assert parse_call_key(text) == key


@pytest.mark.parametrize("texts", [('"a"', '"a.0"'), ('"a.7"', '"a.07"'), ('"a.0"', '"a.00"')])
def test_two_keys_are_never_taken_for_one(texts: tuple[str, str]) -> None:
    first, second = (parse_call_key(text)[:2] for text in texts)
    assert first != second


@pytest.mark.parametrize(
    "text",
    [
        "",
        "order-17",
        '""',
        '"order',
        '"a"b"',
        r'"a\"b"',
        '"é"',
        '"a\n"',
        f'"{"a" * 129}"',
        '"a.1";settled',
        '"a.1"; settled=1',
        '"a.1";settled=-1',
        '"a.1";settled=1;age=1;age=1',
        '"a.1";age=123456789012345678901',
        '"a.1";age=1e5',
        '"a.1";age=nan',
        '"a.1"\n',
    ],
)
def test_what_is_no_call_key_is_refused(text: str) -> None:
    with pytest.raises(RequestMalformed, match="quoted text"):
        parse_call_key(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [('"a.1";settled=1.5', "settled"), ('"a.1";age=1.2.3', "age"), ('"a.1";age=.', "age"), ('"a.1";other=1', "other")],
)
def test_a_broken_parameter_of_a_call_key_is_named(text: str, name: str) -> None:
    with pytest.raises(RequestMalformed, match=f"parameter '{name}'"):
        parse_call_key(text)


# Hostile lengths


@pytest.mark.parametrize(
    "text", ['"' * 20_000, "(" * 20_000, "," * 20_000, '\\"' * 10_000, '"a' + ";a=1" * 5_000, "0" * 20_000]
)
def test_long_odd_fields_are_read_in_linear_time(text: str) -> None:
    begun = time.perf_counter()
    list(dictionary_members(text))
    accepted_media_types(text)
    for parse in (parse_call_key, parse_timeout):
        with pytest.raises(RequestMalformed):
            parse(text)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("17", 17.0),
        ("9999", 9999.0),
        (None, None),
        ("", None),
        ("10000", None),
        ("-1", None),
        ("1.5", None),
    ],
)
def test_retry_after_is_read_as_seconds(text: str | None, seconds: float | None) -> None:
    assert read_retry_after(text) == seconds
    assert read_retry_after("²") is None
    assert read_retry_after("Sun, 06 Nov 1994 08:49:37 GMT") is None
