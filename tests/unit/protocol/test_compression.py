"""zstd bodies: what is compressed, what is refused, and that threads do not share an object."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from backwater_tornado.errors import BodyTooLarge, BodyUndecodable, InvalidOption
from backwater_tornado.protocol import compression
from backwater_tornado.protocol.compression import DEFAULT_LEVEL, MAX_LEVEL, MAX_WINDOW, compress, decompress

TEXT = b"all is well, all is well; " * 80
LIMIT = 1 << 20


def sized(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def unsized(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(content)


@pytest.mark.parametrize("level", [1, DEFAULT_LEVEL, MAX_LEVEL])
def test_a_compressed_body_comes_back_as_it_was(level: int) -> None:
    frame = compress(TEXT, 300, level)
    assert frame is not None
    assert len(frame) < len(TEXT)
    assert decompress(frame, LIMIT) == TEXT


def test_a_body_below_the_threshold_is_sent_as_it_is() -> None:
    assert compress(TEXT[:299], 300) is None
    assert compress(TEXT[:300], 300) is not None


def test_a_body_that_does_not_get_smaller_is_sent_as_it_is() -> None:
    assert compress(random.Random(1).randbytes(1000), 300) is None
    assert compress(b"", 0) is None


@pytest.mark.parametrize("level", [0, -1, MAX_LEVEL + 1])
def test_a_level_outside_the_range_is_an_invalid_option(level: int) -> None:
    with pytest.raises(InvalidOption, match="from 1 to 19"):
        compress(TEXT, 300, level)


def test_the_highest_level_stays_within_the_window_that_receivers_accept() -> None:
    streaming = zstandard.ZstdCompressor(level=MAX_LEVEL).compressobj()
    head = streaming.compress(TEXT) + streaming.flush()
    assert zstandard.get_frame_parameters(head).window_size <= MAX_WINDOW
    assert decompress(head, LIMIT) == TEXT


@pytest.mark.parametrize("make", [sized, unsized])
def test_content_of_exactly_the_limit_is_accepted_and_one_byte_more_is_too_large(make: object) -> None:
    assert callable(make)
    assert decompress(make(TEXT), len(TEXT)) == TEXT
    with pytest.raises(BodyTooLarge, match=str(len(TEXT) - 1)):
        decompress(make(TEXT), len(TEXT) - 1)


@pytest.mark.parametrize("make", [sized, unsized])
def test_an_empty_content_survives(make: object) -> None:
    assert callable(make)
    assert decompress(make(b""), 0) == b""


@pytest.mark.parametrize("make", [sized, unsized])
def test_every_truncation_of_a_frame_is_refused_and_never_returned_short(make: object) -> None:
    assert callable(make)
    frame = make(TEXT)
    for end in range(len(frame)):
        with pytest.raises(BodyUndecodable):
            decompress(frame[:end], LIMIT)


@pytest.mark.parametrize("make", [sized, unsized])
@pytest.mark.parametrize("behind", [b"\0", b"junk", sized(TEXT), b"\x50\x2a\x4d\x18\0\0\0\0"])
def test_bytes_behind_the_frame_are_refused(make: object, behind: bytes) -> None:
    assert callable(make)
    with pytest.raises(BodyUndecodable):
        decompress(make(TEXT) + behind, LIMIT)


@pytest.mark.parametrize("body", [b"", b"plain text, not zstd", b"\x50\x2a\x4d\x18\x04\0\0\0skip", b"\x28\xb5\x2f\xfd"])
def test_what_is_not_a_frame_is_refused(body: bytes) -> None:
    with pytest.raises(BodyUndecodable, match="zstd"):
        decompress(body, LIMIT)


@pytest.mark.parametrize("claimed", [10, len(TEXT) - 256 + 1])
def test_a_frame_that_lies_about_its_size_is_refused(claimed: int) -> None:
    frame = bytearray(sized(TEXT))
    assert zstandard.frame_content_size(bytes(frame)) == len(TEXT)
    frame[5:7] = claimed.to_bytes(2, "little")
    with pytest.raises(BodyUndecodable):
        decompress(bytes(frame), LIMIT)


def test_a_window_above_the_bound_is_refused() -> None:
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compressobj()
    frame = wide.compress(TEXT) + wide.flush()
    with pytest.raises(BodyUndecodable, match="memory"):
        decompress(frame, LIMIT)


def test_a_frame_that_needs_a_dictionary_is_refused() -> None:
    dictionary = zstandard.ZstdCompressionDict(TEXT, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    trained = zstandard.train_dictionary(1024, [TEXT[i : i + 200] + str(i).encode() * 9 for i in range(400)])
    assert dictionary.dict_id() == 0
    with pytest.raises(BodyUndecodable):
        decompress(zstandard.ZstdCompressor(dict_data=trained).compress(TEXT), LIMIT)


def test_a_wrong_checksum_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)
    assert decompress(frame, LIMIT) == TEXT
    with pytest.raises(BodyUndecodable):
        decompress(frame[:-1] + bytes([frame[-1] ^ 1]), LIMIT)


class Meeting:
    """Compresses and decompresses nothing; returns only when as many are in it as were announced."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier

    def compress(self, body: bytes) -> bytes:
        self._barrier.wait(20)
        return b""

    def decompress(self, body: bytes, **how: bool) -> bytes:
        self._barrier.wait(20)
        return b"content"


def test_objects_in_use_at_the_same_time_are_different_and_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Meeting] = []

    def make(**options: object) -> Meeting:
        made.append(Meeting(barrier))
        return made[-1]

    monkeypatch.setattr(compression, "_compressors", {})
    monkeypatch.setattr(compression, "_decompressors", [])
    frame = compress(b"x" * 1000, 10)
    assert frame is not None
    assert decompress(frame, 1000) == b"x" * 1000
    compression._compressors[DEFAULT_LEVEL].clear()
    compression._decompressors.clear()
    monkeypatch.setattr(compression.zstandard, "ZstdCompressor", make)
    monkeypatch.setattr(compression.zstandard, "ZstdDecompressor", make)
    barrier = threading.Barrier(3)
    for work in (lambda: compress(b"x" * 1000, 10), lambda: decompress(frame, 1000)):
        for _ in range(2):
            with ThreadPoolExecutor(3) as pool:
                results = [future.result() for future in [pool.submit(work) for _ in range(3)]]
            assert len(set(results)) == 1
    assert len(made) == 6
    assert len(compression._compressors[DEFAULT_LEVEL]) == len(compression._decompressors) == 3


def test_an_object_whose_work_failed_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_decompressors", [])
    for _ in range(3):
        with pytest.raises(BodyUndecodable):
            decompress(b"no frame at all", 100)
    assert len(compression._decompressors) == 1


def test_many_threads_may_compress_and_decompress_at_once() -> None:
    def trip(number: int) -> bool:
        body = TEXT + str(number).encode() * 50
        return decompress(compress(body, 0) or b"", LIMIT) == body

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(trip, range(400)))
