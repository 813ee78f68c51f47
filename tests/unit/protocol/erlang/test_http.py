"""What version 1 reads of HTTP."""

from __future__ import annotations

import gzip as reference
import zlib

import pytest

from backwater_tornado.protocol.erlang.http import (
    NotGzip,
    TooLarge,
    chosen,
    digest_of,
    format_digest,
    gunzip,
    gzip,
    media_type_of,
    preferred_codings,
    preferred_types,
)


@pytest.mark.parametrize(
    ("field", "media_type"),
    [
        ("application/x-erlang-etf", "application/x-erlang-etf"),
        (" Application/X-Erlang-ETF\t", "application/x-erlang-etf"),
        ('text/plain; charset="a, b;c" ; x=y ', "text/plain"),
        ("", None),
        ("text", None),
        ("text/", None),
        ("text/plain;", None),
        ("text/plain; x", None),
        ("text/plain x", None),
        ("text/plain, text/html", None),
        ("téxt/plain", None),
        ("text/plain\n", None),
    ],
)
def test_a_media_type_is_read_without_its_parameters(field: str, media_type: str | None) -> None:
    assert media_type_of(field) == media_type


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("", []),
        (" , ,", []),
        ("a/b", ["a/b"]),
        ("A/B", ["a/b"]),
        ("a/b, c/d", ["c/d", "a/b"]),
        ("a/b;q=0.9, c/d;q=0.8", ["a/b", "c/d"]),
        ("a/b; q=0.5 ; level=1, c/d;Q=0.501", ["c/d", "a/b"]),
        ("a/b;q=0, c/d;q=0.000, e/f;q=0.001", ["e/f"]),
        ("a/b;q=1.000, c/d", ["c/d", "a/b"]),
        ("a/b;q=2", ["a/b"]),  # no quality, so as good as any
        ("a/b;x=0;q=0.1, c/d;xq=0", ["c/d", "a/b"]),
        ("*/*;q=0.1", ["*/*"]),
        ("a", None),
        ("a/b c/d", None),
        ("a/b, ;q=1", None),
        ("a/b;q", None),
    ],
)
def test_types_come_by_quality_and_of_equals_the_last_first(field: str, names: list[str] | None) -> None:
    assert preferred_types(field) == names


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("gzip", ["gzip"]),
        ("gzip, identity", ["identity", "gzip"]),
        ("gzip;q=1, identity;q=0.5, *;q=0", ["gzip", "identity"]),
        ("gzip;q=0", []),
        ("gz/ip", None),
        ("gzip identity", None),
    ],
)
def test_codings_come_in_the_same_order(field: str, names: list[str] | None) -> None:
    assert preferred_codings(field) == names


def test_the_first_that_is_known_is_chosen() -> None:
    assert chosen(["br", "gzip", "identity"], ("identity", "gzip")) == "gzip"
    assert chosen(["br"], ("identity", "gzip")) is None
    assert chosen([], ("gzip",)) is None


def test_a_digest_is_that_of_the_bytes_sent() -> None:
    # printf abc | sha256sum | xxd -r -p | base64
    assert digest_of(b"abc") == "SHA-256=ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    assert format_digest(bytes(32)) == "SHA-256=" + "A" * 43 + "="


def test_what_is_packed_is_read_by_others_and_what_others_pack_by_us() -> None:
    packed = gzip(b"a" * 300, 300)
    assert packed is not None
    assert packed[:2] == b"\x1f\x8b"
    assert reference.decompress(packed) == b"a" * 300
    assert gunzip(reference.compress(b"abc" * 9), 27) == b"abc" * 9


def test_what_is_small_or_would_not_get_smaller_is_not_packed() -> None:
    assert gzip(b"a" * 299, 300) is None
    assert gzip(b"abc", 0) is None
    assert gzip(b"", 0) is None


def test_the_limit_counts_what_comes_out_and_is_included() -> None:
    packed = reference.compress(bytes(1000))
    assert gunzip(packed, 1000) == bytes(1000)
    with pytest.raises(TooLarge):
        gunzip(packed, 999)
    # Too large comes first: nobody needs the rest to see that.
    with pytest.raises(TooLarge):
        gunzip(packed[:-9], 10)


def test_what_follows_the_first_member_is_not_looked_at() -> None:
    assert gunzip(reference.compress(b"abc") + b"junk", 3) == b"abc"
    assert gunzip(reference.compress(b"abc") + reference.compress(b"def"), 3) == b"abc"


_GOOD = reference.compress(b"abc" * 100)


@pytest.mark.parametrize(
    "body",
    [
        *(_GOOD[:cut] for cut in range(len(_GOOD))),
        zlib.compress(b"abc"),
        zlib.compress(b"abc", wbits=-15),
        _GOOD[:-8] + bytes(8),
        b"junk",
    ],
)
def test_what_is_no_whole_gzip_stream_is_refused(body: bytes) -> None:
    with pytest.raises(NotGzip):
        gunzip(body, 1 << 20)
