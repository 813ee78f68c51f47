"""Many calls in one request, and their answers as a stream of authenticated frames.

The request's body is one envelope; its calls carry their arguments encoded on their own, so that one bad call spoils no
other. The answers come back in frames, each with whatever calls have ended by then, so that a slow call never holds
back the rest. A frame on the wire::

    4 bytes   length of what follows, big endian
    1 byte    flags: 1 = the payload is one zstd frame, 2 = this is the last frame
    32 bytes  MAC over: the request's MAC (32 bytes), the frame's number (4 bytes, from 0), flags, payload
    n bytes   payload: a list of answers [number, status, value or problem]

The MAC binds each frame to its request and to its place; the last frame's flag makes a cut visible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hmac import compare_digest
from typing import Annotated

import msgspec

from backwater_tornado.errors import BodyUndecodable, CallFailed, ResponseAltered, ResponseUndecodable

from .compression import compress, decompress
from .keys import Key

#: Media type of the stream of frames, by the media type of the values within.
ANSWERS_MEDIA_TYPES = {
    "application/msgpack": "application/vnd.backwater.answers+msgpack",
    "application/json": "application/vnd.backwater.answers+json",
}
VALUES_MEDIA_TYPES = {answers: values for values, answers in ANSWERS_MEDIA_TYPES.items()}

COMPRESSED, LAST = 1, 2
_HEAD = 4 + 1 + 32
#: No frame is larger, whatever its length says (one result and some room).
FRAME_ROOM = 1 << 20

#: Characters in the name of a module or function.
MAX_NAME = 255
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]


class BatchedCall(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One call of an envelope: `[number, module, function, arguments, timeout, age, traceparent]`."""

    number: Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
    module: Name
    function: Name
    arguments: msgspec.Raw
    timeout: Annotated[float, msgspec.Meta(gt=0, lt=1e7)] | None = None
    age: Annotated[float, msgspec.Meta(ge=0, lt=1e9)] | None = None
    traceparent: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body of a request with many calls: `[stream, settled, [call, …]]`."""

    stream: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    settled: Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
    calls: list[BatchedCall]


class BatchedAnswer(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One answer of a frame: `[number, status, value or problem]`."""

    number: int
    status: int
    body: msgspec.Raw


_ENCODE = {"application/msgpack": msgspec.msgpack.encode, "application/json": msgspec.json.encode}
_READ_ENVELOPE = {
    "application/msgpack": msgspec.msgpack.Decoder(Envelope).decode,
    "application/json": msgspec.json.Decoder(Envelope).decode,
}
_READ_ANSWERS = {
    "application/msgpack": msgspec.msgpack.Decoder(list[BatchedAnswer]).decode,
    "application/json": msgspec.json.Decoder(list[BatchedAnswer]).decode,
}


def encode_envelope(media_type: str, envelope: Envelope) -> bytes:
    """The body of a request with many calls."""
    return _ENCODE[media_type](envelope)


def decode_envelope(media_type: str, body: bytes) -> Envelope:
    """The calls of a request; raises `BodyUndecodable`."""
    try:
        return _READ_ENVELOPE[media_type](body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BodyUndecodable(f"the body is not [stream, settled, [call, …]]: {error}") from error


def encode_answers(media_type: str, answers: Sequence[BatchedAnswer]) -> bytes:
    """The payload of one frame."""
    return _ENCODE[media_type](answers)


def write_frame(
    key: Key, request_mac: bytes, number: int, payload: bytes, *, last: bool, threshold: int, level: int
) -> bytes:
    """One frame, compressed where that makes it smaller."""
    packed = compress(payload, threshold, level)
    flags = (LAST if last else 0) | (COMPRESSED if packed is not None else 0)
    payload = payload if packed is None else packed
    mac = key.mac_frame(_signed(request_mac, number, flags, payload))
    return b"".join([(33 + len(payload)).to_bytes(4, "big"), bytes([flags]), mac, payload])


def _signed(request_mac: bytes, number: int, flags: int, payload: bytes) -> bytes:
    return b"".join([request_mac, number.to_bytes(4, "big"), bytes([flags]), payload])


class FrameReader:
    """Turns the bytes of a response into verified answers, as they come; `ended` once the last frame was read."""

    def __init__(self, key: Key, request_mac: bytes, media_type: str, limit: int) -> None:
        self._key = key
        self._request_mac = request_mac
        self._read = _READ_ANSWERS[media_type]
        self._limit = limit + FRAME_ROOM
        self._buffer = bytearray()
        self._number = 0
        self.ended = False

    def feed(self, data: bytes) -> Iterator[BatchedAnswer]:
        """The answers that are complete with these bytes.

        Raises:
            ResponseAltered: a frame is too long, does not verify, or follows the last one.
            ResponseUndecodable: a verified frame cannot be decoded.
        """
        self._buffer += data
        while self._buffer:
            if self.ended:
                raise ResponseAltered("the stream of answers is broken: something follows its last frame")
            length = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) >= 4 and not 33 <= length <= self._limit:
                raise ResponseAltered("the stream of answers is broken: a frame of an impossible length")
            if len(self._buffer) < 4 + length:
                return
            frame = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            yield from self._open(frame)

    def _open(self, frame: bytes) -> list[BatchedAnswer]:
        flags, mac, payload = frame[0], frame[1:33], frame[33:]
        signed = _signed(self._request_mac, self._number, flags, payload)
        if not compare_digest(self._key.mac_frame(signed), mac):
            raise ResponseAltered("a frame of the answer does not verify: altered, moved, or of another request")
        self._number += 1
        self.ended = bool(flags & LAST)
        try:
            if flags & COMPRESSED:
                payload = decompress(payload, self._limit)
            return self._read(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, CallFailed) as error:
            raise ResponseUndecodable(f"a frame of the answer cannot be decoded: {error}") from error
