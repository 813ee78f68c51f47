from __future__ import annotations

import msgspec
import pytest

from backwater_tornado.errors import BodyUndecodable, ResponseAltered, ResponseUndecodable
from backwater_tornado.protocol.batches import (
    ANSWERS_MEDIA_TYPES,
    COMPRESSED,
    FRAME_ROOM,
    LAST,
    MAX_NAME,
    VALUES_MEDIA_TYPES,
    BatchedAnswer,
    BatchedCall,
    Envelope,
    FrameReader,
    decode_envelope,
    encode_answers,
    encode_envelope,
    write_frame,
)
from backwater_tornado.protocol.compression import decompress
from tests.wire import KEY, OTHER_KEY

MEDIA_TYPES = ["application/msgpack", "application/json"]
MSGPACK = MEDIA_TYPES[0]
MAC = bytes(range(32))


def raw(value: object, media_type: str = MSGPACK) -> msgspec.Raw:
    encode = msgspec.msgpack.encode if media_type == MSGPACK else msgspec.json.encode
    return msgspec.Raw(encode(value))


def encoded(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


# Envelopes


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_an_envelope_comes_back(media_type: str) -> None:
    arguments = raw([[1, "zwei"], {"three": None}], media_type)
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    calls = [BatchedCall(7, "m", "f", arguments, 1.5, 0.25, trace), BatchedCall(0, "m.n", "g", arguments)]
    got = decode_envelope(media_type, encode_envelope(media_type, Envelope("s-_1", 3, calls)))
    assert (got.stream, got.settled) == ("s-_1", 3)
    assert [(call.number, call.module, call.function) for call in got.calls] == [(7, "m", "f"), (0, "m.n", "g")]
    assert (got.calls[0].timeout, got.calls[0].age, got.calls[0].traceparent) == (1.5, 0.25, trace)
    assert (got.calls[1].timeout, got.calls[1].age, got.calls[1].traceparent) == (None, None, None)
    assert bytes(got.calls[0].arguments) == bytes(arguments)


def test_an_envelope_is_a_plain_list_on_the_wire() -> None:
    body = encode_envelope(MEDIA_TYPES[1], Envelope("s", 0, [BatchedCall(1, "m", "f", raw([[], {}], "json"), 2.0)]))
    assert body == b'["s",0,[[1,"m","f",[[],{}],2.0,null,null]]]'


def test_trailing_members_of_a_call_may_be_left_out() -> None:
    call = decode_envelope(MEDIA_TYPES[1], b'["s",0,[[1,"m","f",[[],{}]]]]').calls[0]
    assert bytes(call.arguments) == b"[[],{}]"
    assert call.timeout is None


CALL = [1, "m", "f", [[], {}]]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["s", 0],
        ["s", 0, [], 1],
        {"stream": "s", "settled": 0, "calls": []},
        ["", 0, []],
        ["s" * 65, 0, []],
        ["s.1", 0, []],
        ["s\n", 0, []],
        ["é", 0, []],
        [7, 0, []],
        ["s", -1, []],
        ["s", 10**18, []],
        ["s", 1.5, []],
        ["s", "1", []],
        ["s", 0, {}],
        ["s", 0, [None]],
        ["s", 0, [[1, "m", "f"]]],
        ["s", 0, [[*CALL, None, None, None, None]]],
        ["s", 0, [[-1, *CALL[1:]]]],
        ["s", 0, [[10**18, *CALL[1:]]]],
        ["s", 0, [[True, *CALL[1:]]]],
        ["s", 0, [[1, "", "f", 0]]],
        ["s", 0, [[1, "m", "", 0]]],
        ["s", 0, [[1, "m" * (MAX_NAME + 1), "f", 0]]],
        ["s", 0, [[1, "m", "f" * (MAX_NAME + 1), 0]]],
        *(["s", 0, [[*CALL, timeout]]] for timeout in (0, -1, 1e7, float("nan"), float("inf"), "1", True)),
        *(["s", 0, [[*CALL, None, age]]] for age in (-0.001, 1e9, float("nan"), float("inf"), "1")),
        *(["s", 0, [[*CALL, None, None, trace]]] for trace in ("x" * 65, 1)),
    ],
)
def test_another_shape_or_range_is_refused(value: object) -> None:
    with pytest.raises(BodyUndecodable, match="not \\[stream, settled, "):
        decode_envelope(MSGPACK, encoded(value))


@pytest.mark.parametrize(
    "value",
    [
        ["s" * 64, 10**18 - 1, []],
        ["s", 0, [[10**18 - 1, *CALL[1:], 9_999_999, 999_999_999, "x" * 64]]],
        ["s", 0, [[1, "m" * MAX_NAME, "f" * MAX_NAME, 0, 0.001, 0]]],
    ],
)
def test_the_ends_of_the_ranges_are_accepted(value: object) -> None:
    decode_envelope(MSGPACK, encoded(value))


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (MSGPACK, b""),
        (MSGPACK, b"\xc1"),
        (MSGPACK, encoded(["s", 0, []]) + b"\0"),
        (MSGPACK, b"\x93\xa1s\0\xdd\xff\xff\xff\xff"),
        (MSGPACK, b"\x93\xa1\xff\0\x90"),
        (MSGPACK, b"\x93\xa1s\0\x91\x94\1\xa1m\xa1f" + b"\x91" * 500_000),
        (MEDIA_TYPES[1], b'["s",0,[[1,"m","f",' + b"[" * 500_000),
        (MEDIA_TYPES[1], b'["s",0,[[1,"\\ud800","f",0]]]'),
        (MEDIA_TYPES[1], b'["s\xff",0,[]]'),
        (MEDIA_TYPES[1], b'["s",0,[]] x'),
        (MEDIA_TYPES[1], b'["s",' + b"9" * 100_000 + b",[]]"),
    ],
)
def test_what_cannot_be_decoded_is_refused(media_type: str, body: bytes) -> None:
    with pytest.raises(BodyUndecodable):
        decode_envelope(media_type, body)


def test_each_media_type_of_values_has_one_of_answers() -> None:
    assert set(ANSWERS_MEDIA_TYPES) == set(MEDIA_TYPES)
    assert {ANSWERS_MEDIA_TYPES[values]: values for values in MEDIA_TYPES} == VALUES_MEDIA_TYPES


# Frames


def answers(*numbers: int, media_type: str = MSGPACK, size: int = 1) -> bytes:
    return encode_answers(media_type, [BatchedAnswer(number, 200, raw("x" * size, media_type)) for number in numbers])


def frame(number: int, payload: bytes, *, last: bool = False, threshold: int = 10**9) -> bytes:
    return write_frame(KEY, MAC, number, payload, last=last, threshold=threshold, level=3)


def read(*pieces: bytes, limit: int = 1000, media_type: str = MSGPACK) -> tuple[FrameReader, list[int]]:
    reader = FrameReader(KEY, MAC, media_type, limit)
    return reader, [answer.number for piece in pieces for answer in reader.feed(piece)]


def test_a_frame_is_laid_out_as_written() -> None:
    payload = answers(1)
    signed = MAC + (5).to_bytes(4, "big") + bytes([LAST]) + payload
    expected = (33 + len(payload)).to_bytes(4, "big") + bytes([LAST]) + KEY.mac_frame(signed) + payload
    assert frame(5, payload, last=True) == expected


def test_a_frame_is_compressed_where_that_makes_it_smaller() -> None:
    payload = answers(1, size=5000)
    small = frame(0, payload, threshold=100)
    assert small[4] == COMPRESSED
    assert decompress(small[37:], 10_000) == payload
    assert frame(0, payload, last=True, threshold=100)[4] == COMPRESSED | LAST
    assert frame(0, payload, threshold=10_000)[4] == 0
    assert read(small, frame(1, answers(2), last=True), limit=10_000)[1] == [1, 2]


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_frames_come_back_in_order(media_type: str) -> None:
    first, second = answers(2, 0, media_type=media_type), answers(1, media_type=media_type)
    reader, numbers = read(frame(0, first), frame(1, second, last=True), media_type=media_type)
    assert numbers == [2, 0, 1]
    assert reader.ended


def test_an_answer_has_status_and_body() -> None:
    reader = FrameReader(KEY, MAC, MSGPACK, 1000)
    (answer,) = reader.feed(frame(0, encode_answers(MSGPACK, [BatchedAnswer(4, 404, raw({"a": 1}))])))
    assert (answer.number, answer.status, bytes(answer.body)) == (4, 404, encoded({"a": 1}))
    assert not reader.ended


def test_an_empty_frame_says_that_the_link_lives() -> None:
    reader, numbers = read(frame(0, answers()), frame(1, answers(3), last=True))
    assert numbers == [3]
    assert reader.ended


def test_frames_may_come_in_any_pieces() -> None:
    whole = frame(0, answers(1)) + frame(1, answers(2), last=True)
    assert read(whole)[1] == [1, 2]
    assert read(*(whole[at : at + 1] for at in range(len(whole))))[1] == [1, 2]


def test_what_is_complete_is_given_at_once() -> None:
    whole = frame(0, answers(1)) + frame(1, answers(2), last=True)
    reader, numbers = read(whole[:-1])
    assert numbers == [1]
    assert not reader.ended


def broken(*pieces: bytes, limit: int = 1000) -> None:
    with pytest.raises(ResponseAltered):
        read(*pieces, limit=limit)


def test_a_frame_in_another_place_is_noticed() -> None:
    first, second = frame(0, answers(1)), frame(1, answers(2), last=True)
    broken(second)
    broken(first, first)
    broken(second, first)


def test_a_frame_for_another_request_or_by_another_key_is_noticed() -> None:
    for key, mac in ((KEY, bytes(32)), (OTHER_KEY, MAC)):
        broken(write_frame(key, mac, 0, answers(1), last=True, threshold=300, level=3))


def test_every_altered_byte_is_noticed_or_leaves_the_frame_incomplete() -> None:
    whole = frame(0, answers(1), last=True)
    for at in range(len(whole)):
        altered = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        try:
            reader, numbers = read(altered)
        except ResponseAltered:
            continue
        assert not reader.ended
        assert numbers == []


@pytest.mark.parametrize("tail", [b"x", b"xyz", b"\0\0\0\0", frame(1, answers())])
def test_nothing_may_follow_the_last_frame(tail: bytes) -> None:
    whole = frame(0, answers(1), last=True)
    broken(whole + tail)
    broken(whole, tail)


@pytest.mark.parametrize("length", [0, 32, FRAME_ROOM + 1001, 2**32 - 1])
def test_an_impossible_length_is_noticed_before_the_frame_comes(length: int) -> None:
    with pytest.raises(ResponseAltered, match="impossible length"):
        read(length.to_bytes(4, "big"))


def test_the_largest_and_the_smallest_length_are_possible() -> None:
    for length in (33, FRAME_ROOM + 1000):
        read(length.to_bytes(4, "big"))
    with pytest.raises(ResponseUndecodable):
        read(frame(0, b""))


def undecodable(payload: bytes, *, flags: int = 0, limit: int = 1000) -> None:
    mac = KEY.mac_frame(MAC + bytes(4) + bytes([flags]) + payload)
    with pytest.raises(ResponseUndecodable, match="cannot be decoded"):
        read((33 + len(payload)).to_bytes(4, "big") + bytes([flags]) + mac + payload, limit=limit)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", encoded({"a": 1}), encoded([[1, 200]]), encoded([["1", 200, 0]]), encoded([[1, 200, 0, 0]])],
)
def test_a_genuine_frame_that_is_no_list_of_answers_is_undecodable(payload: bytes) -> None:
    undecodable(payload)


def test_a_genuine_frame_nested_without_end_is_undecodable() -> None:
    undecodable(b"\x91\x93\1\xcc\xc8" + b"\x91" * 500_000)


def test_a_genuine_frame_with_broken_or_bombed_compression_is_undecodable() -> None:
    undecodable(answers(1), flags=COMPRESSED)
    bomb = frame(0, answers(1, size=FRAME_ROOM + 2000), threshold=1)
    with pytest.raises(ResponseUndecodable, match="limit is"):
        read(bomb)


def test_a_frame_may_hold_one_result_of_the_limit_and_some_room() -> None:
    payload = answers(1, size=FRAME_ROOM)
    for threshold in (1, 10**9):
        assert read(frame(0, payload, threshold=threshold), limit=1000)[1] == [1]


def test_answers_before_a_broken_frame_are_still_given() -> None:
    reader = FrameReader(KEY, MAC, MSGPACK, 1000)
    found = reader.feed(frame(0, answers(1, 2)) + frame(0, answers(3)))
    assert [next(found).number, next(found).number] == [1, 2]
    with pytest.raises(ResponseAltered):
        next(found)
