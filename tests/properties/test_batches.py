from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.errors import BodyUndecodable, ResponseAltered, Unverified
from backwater_tornado.protocol.batches import (
    BatchedAnswer,
    BatchedCall,
    Envelope,
    FrameReader,
    decode_envelope,
    encode_answers,
    encode_envelope,
    write_frame,
)
from tests.wire import KEY, OTHER_KEY

MEDIA_TYPE = "application/msgpack"
MAC, OTHER_MAC = bytes(32), bytes(range(32))
LIMIT = 5000

#: The answers of each frame: (number, status, text).
answers = st.lists(st.tuples(st.integers(0, 99), st.sampled_from([200, 404]), st.text("ab", max_size=600)), max_size=3)
streams = st.lists(answers, min_size=1, max_size=5)


def frames_of(stream: list[list[tuple[int, int, str]]], mac: bytes = MAC) -> list[bytes]:
    """The frames that carry these answers."""
    found = []
    for number, group in enumerate(stream):
        listed = [
            BatchedAnswer(each, status, msgspec.Raw(msgspec.msgpack.encode(text))) for each, status, text in group
        ]
        payload = encode_answers(MEDIA_TYPE, listed)
        last = number == len(stream) - 1
        found.append(write_frame(KEY, mac, number, payload, last=last, threshold=100, level=1))
    return found


def read(*pieces: bytes, mac: bytes = MAC) -> tuple[list[tuple[int, int, str]], bool]:
    """The answers in these pieces, and whether the stream has ended."""
    reader = FrameReader(KEY, mac, MEDIA_TYPE, LIMIT)
    found = [answer for piece in pieces for answer in reader.feed(piece)]
    return [(each.number, each.status, msgspec.msgpack.decode(each.body)) for each in found], reader.ended


def flat(stream: list[list[tuple[int, int, str]]]) -> list[tuple[int, int, str]]:
    return [answer for group in stream for answer in group]


@given(streams)
def test_a_stream_comes_back_whole_and_byte_by_byte(stream: list[list[tuple[int, int, str]]]) -> None:
    whole = b"".join(frames_of(stream))
    assert read(whole) == (flat(stream), True)
    assert read(*(whole[at : at + 1] for at in range(len(whole)))) == (flat(stream), True)


@given(streams, st.lists(st.integers(0, 5000), max_size=8))
def test_a_stream_comes_back_in_any_pieces(stream: list[list[tuple[int, int, str]]], cuts: list[int]) -> None:
    whole = b"".join(frames_of(stream))
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    assert read(*(whole[begin:end] for begin, end in pairwise(places))) == (flat(stream), True)


@given(streams, st.integers(0, 10**6))
def test_a_cut_stream_has_not_ended_and_gives_only_what_was_sent(
    stream: list[list[tuple[int, int, str]]], cut: int
) -> None:
    whole = b"".join(frames_of(stream))
    got, ended = read(whole[: cut % len(whole)])
    assert not ended
    assert got == flat(stream)[: len(got)]


@given(streams, st.data())
def test_a_stream_in_another_order_is_noticed(stream: list[list[tuple[int, int, str]]], data: st.DataObject) -> None:
    """Frames left out, moved or doubled: whatever is not the beginning of what was sent."""
    frames = frames_of(stream)
    chosen = data.draw(st.lists(st.sampled_from(frames), min_size=1, max_size=len(frames) + 1))
    if chosen == frames[: len(chosen)]:
        return
    with pytest.raises(ResponseAltered):
        read(*chosen)


@given(streams, st.integers(0, 10**6), st.integers(1, 255))
def test_any_altered_byte_is_noticed_or_leaves_the_stream_without_an_end(
    stream: list[list[tuple[int, int, str]]], at: int, change: int
) -> None:
    whole = bytearray(b"".join(frames_of(stream)))
    whole[at % len(whole)] ^= change
    with suppress(ResponseAltered):
        got, ended = read(bytes(whole))
        assert not ended
        assert got == flat(stream)[: len(got)]


@given(streams, st.binary(min_size=1, max_size=50))
def test_nothing_may_follow_the_end(stream: list[list[tuple[int, int, str]]], tail: bytes) -> None:
    with pytest.raises(ResponseAltered):
        read(b"".join(frames_of(stream)) + tail)


@given(streams)
def test_a_frame_of_another_request_is_noticed(stream: list[list[tuple[int, int, str]]]) -> None:
    frames = frames_of(stream)
    with pytest.raises(ResponseAltered):
        read(*frames[:-1], frames_of(stream, OTHER_MAC)[-1])
    with pytest.raises(ResponseAltered):
        list(FrameReader(OTHER_KEY, MAC, MEDIA_TYPE, LIMIT).feed(frames[0]))


@given(st.binary(max_size=100))
def test_any_bytes_raise_nothing_but_our_errors(data: bytes) -> None:
    with suppress(Unverified):
        assert not read(data)[1]
    flags = data[:1] or b"\0"
    mac = KEY.mac_frame(MAC + bytes(4) + flags + data)
    with suppress(Unverified):
        read((33 + len(data)).to_bytes(4, "big") + flags + mac + data)
    for media_type in ("application/msgpack", "application/json"):
        with suppress(BodyUndecodable):
            decode_envelope(media_type, data)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
numbers = st.integers(0, 10**18 - 1)
calls = st.builds(
    lambda number, module, function, value, timeout, age: BatchedCall(number, module, function, value, timeout, age),
    numbers,
    names,
    names,
    st.integers(0, 9),
    st.none() | st.floats(0.001, 1e6),
    st.none() | st.floats(0, 1e6),
)


@given(st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"), numbers, st.lists(calls, max_size=4))
def test_an_envelope_comes_back(stream: str, settled: int, sent: list[BatchedCall]) -> None:
    for media_type, encode in (
        ("application/msgpack", msgspec.msgpack.encode),
        ("application/json", msgspec.json.encode),
    ):
        wrapped = [msgspec.structs.replace(call, arguments=msgspec.Raw(encode(call.arguments))) for call in sent]
        got = decode_envelope(media_type, encode_envelope(media_type, Envelope(stream, settled, wrapped)))
        assert (got.stream, got.settled) == (stream, settled)
        assert encode_envelope(media_type, got) == encode_envelope(media_type, Envelope(stream, settled, wrapped))
