"""Any body survives compression; any change to a frame is refused or changes nothing but the content."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from backwater_tornado.errors import BodyTooLarge, BodyUndecodable
from backwater_tornado.protocol.compression import compress, decompress

bodies = st.one_of(
    st.binary(max_size=2000), st.builds(lambda part, n: part * n, st.binary(max_size=40), st.integers(0, 400))
)


@given(bodies, st.integers(0, 500), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_any_body_survives(body: bytes, threshold: int, level: int) -> None:
    frame = compress(body, threshold, level)
    if frame is None:
        return
    assert len(body) >= threshold
    assert len(frame) < len(body)
    assert decompress(frame, len(body)) == body


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_decompressed_within_the_limit_or_refused(body: bytes) -> None:
    _within_limit_or_refused(body)


@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_is_refused_or_stays_within_the_limit(body: bytes, place: int, bit: int) -> None:
    frame = bytearray(compress(body + bytes(600), 0) or b"")
    frame[place % len(frame)] ^= 1 << bit
    _within_limit_or_refused(bytes(frame))


def _within_limit_or_refused(body: bytes) -> None:
    with contextlib.suppress(BodyTooLarge, BodyUndecodable):
        assert len(decompress(body, 1000)) <= 1000
