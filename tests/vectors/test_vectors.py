"""The vectors replayed both ways: our writer produces exactly these bytes, our reader makes of them what they say."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

import pytest
import zstandard
from nacl.encoding import RawEncoder
from nacl.hash import blake2b

from backwater_tornado import protocol
from backwater_tornado.errors import WIRE_ERRORS, CallFailed
from backwater_tornado.protocol.batches import FrameReader
from backwater_tornado.protocol.calling import decode_problem
from backwater_tornado.protocol.messages import HttpResponse
from backwater_tornado.protocol.sealing import Sealed, answers_reader, open_one, verify_head
from backwater_tornado.protocol.serving import call_digest
from backwater_tornado.protocol.signatures import RequestHead
from tests.vectors import make
from tests.wire import arrive, calls_of, serving_of, with_members

FILES = {name: json.loads((make.FOLDER / f"{name}.json").read_text()) for name in ("good", "hostile", "forged")}
GOOD, HOSTILE, FORGED = (FILES[name]["vectors"] for name in FILES)
SAME_ZSTD = FILES["good"]["zstd"] == ".".join(map(str, zstandard.ZSTD_VERSION))
SINGLE = [name for name, vector in GOOD.items() if "frames" not in vector["response"]]
STREAMED = [name for name in GOOD if name not in SINGLE]


def head_of(shown: dict[str, Any]) -> RequestHead:
    return RequestHead(shown["method"], shown["authority"], shown["path"], shown["query"], dict(shown["fields"]))


def sealed_of(vector: dict[str, Any]) -> Sealed:
    """Our writer's request, as the vector has it even where another zstd writes other bytes."""
    shown = vector["request"]
    head = head_of(shown)
    sealed = make.write(vector)
    return with_members(sealed, head=head, mac=bytes.fromhex(shown["mac"]))


def response_of(shown: dict[str, Any]) -> HttpResponse:
    return HttpResponse(shown["status"], dict(shown["fields"]), bytes.fromhex(shown["body"]))


# Writing


def test_what_is_made_now_is_what_is_on_disk() -> None:
    if not SAME_ZSTD:
        pytest.skip("another version of zstd compresses to other bytes")
    assert make.build() == {name: file["vectors"] for name, file in FILES.items()}


@pytest.mark.parametrize("name", GOOD)
def test_our_writer_produces_exactly_these_bytes(name: str) -> None:
    vector = GOOD[name]
    if "content-encoding" in vector["request"]["fields"] and not SAME_ZSTD:
        pytest.skip("another version of zstd compresses to other bytes")
    sealed, shown = make.write(vector), vector["request"]
    assert sealed.request.url == shown["url"]
    assert dict(sealed.request.fields) == shown["fields"]
    assert sealed.request.body.hex() == shown["body"]
    assert sealed.mac.hex() == shown["mac"]


# MACs, by other means than our own


def subkey(secret: bytes, person: bytes) -> bytes:
    return blake2b(b"", digest_size=32, key=secret, person=person, encoder=RawEncoder)


def mac_of(key: dict[str, str], person: bytes, data: bytes) -> str:
    secret = bytes.fromhex(key["secret"])
    if key["algorithm"] == "hmac-sha256":
        if person == b"bw2-frame":
            secret = hmac.new(secret, person, "sha256").digest()
        return hmac.new(secret, data, "sha256").hexdigest()
    return blake2b(data, digest_size=32, key=subkey(secret, person), encoder=RawEncoder).hex()


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(("side", "person"), [("request", b"bw2-request"), ("response", b"bw2-response")])
def test_macs_and_digests_are_those_of_the_libraries(name: str, side: str, person: bytes) -> None:
    shown = GOOD[name][side]
    assert mac_of(GOOD[name]["key"], person, shown["base"].encode()) == shown["mac"]
    digest = hashlib.sha256(bytes.fromhex(shown["body"])).hexdigest()
    if "content-digest" in shown["fields"]:
        assert bytes.fromhex(digest) == __import__("base64").b64decode(shown["fields"]["content-digest"][9:-1])


@pytest.mark.parametrize("name", STREAMED)
def test_frames_are_laid_out_as_written(name: str) -> None:
    vector = GOOD[name]
    request_mac = bytes.fromhex(vector["request"]["mac"])
    frames = [bytes.fromhex(each["frame"]) for each in vector["response"]["frames"]]
    for number, frame in enumerate(frames):
        length, flags, mac, payload = frame[:4], frame[4:5], frame[5:37], frame[37:]
        assert int.from_bytes(length, "big") == len(frame) - 4
        assert bool(flags[0] & 2) == (number == len(frames) - 1)
        signed = request_mac + number.to_bytes(4, "big") + flags + payload
        assert mac_of(vector["key"], b"bw2-frame", signed) == mac.hex()
        content = zstandard.ZstdDecompressor().decompress(payload) if flags[0] & 1 else payload
        assert content.hex() == vector["response"]["frames"][number]["content"]


# Reading


@pytest.mark.parametrize("name", GOOD)
def test_our_reader_makes_of_a_request_what_it_says(name: str) -> None:
    vector = GOOD[name]
    given, shown = vector["given"], vector["request"]
    serving = serving_of(make.key_of(vector["key"]["algorithm"]))
    exchange = arrive(serving, head_of(shown), bytes.fromhex(shown["body"]), float(given["unix"]))
    assert exchange.body.hex() == shown["content"]
    batch = calls_of(exchange)
    assert batch.streamed == (name in STREAMED)
    read = [
        {
            "number": call.call_id.number,
            "module": call.module,
            "function": call.function,
            "arguments": call.arguments.hex(),
            "seconds_left": call.timeout,
            "age": call.call_id.age,
            "traceparent": call.traceparent,
        }
        for call in batch.calls
        if call.call_id is not None
    ]
    assert read == [dict(call) for call in given["calls"]]
    assert {call.call_id.settled for call in batch.calls if call.call_id} == {given["settled"]}
    assert len({call_digest(call) for call in batch.calls}) == len(batch.calls)


@pytest.mark.parametrize("name", SINGLE)
def test_our_client_opens_a_response(name: str) -> None:
    vector = GOOD[name]
    answer, _ = open_one(sealed_of(vector), response_of(vector["response"]), 1 << 20)
    assert answer.body.hex() == vector["response"]["content"]
    assert answer.status == vector["response"]["status"]
    if answer.status != 200:
        assert decode_problem(answer).code in WIRE_ERRORS


@pytest.mark.parametrize("name", STREAMED)
def test_our_client_opens_a_stream_of_answers(name: str) -> None:
    vector = GOOD[name]
    sealed, shown = sealed_of(vector), vector["response"]
    response = response_of(shown)
    verify_head(sealed, response)
    reader = answers_reader(sealed, response, 1 << 20)
    assert isinstance(reader, FrameReader)
    for each in shown["frames"]:
        assert not reader.ended
        read = [[got.number, got.status, bytes(got.body).hex()] for got in reader.feed(bytes.fromhex(each["frame"]))]
        assert read == each["answers"]
    assert reader.ended


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_with_its_code(name: str) -> None:
    vector = HOSTILE[name]
    with pytest.raises(CallFailed) as caught:
        arrive(serving_of(make.key_of()), head_of(vector), bytes.fromhex(vector["body"]), vector["now"])
    assert caught.value.code == vector["code"]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_response_is_not_believed(name: str) -> None:
    vector = FORGED[name]
    with pytest.raises(CallFailed) as caught:
        open_one(sealed_of(GOOD["one call"]), response_of(vector), 1 << 20)
    assert caught.value.code == vector["code"]


# The worked example


def test_the_example_that_is_written_down_is_the_vector() -> None:
    """In the docstring of `protocol` a long line is broken at a blank, and goes on indented by four more."""
    assert protocol.__doc__ is not None
    example = protocol.__doc__.partition("A worked example")[2]
    written = re.sub(r"\n {8}", " ", example)
    vector = GOOD["one call"]
    shown, response = vector["request"], vector["response"]
    for side in (shown, response):
        for name, value in side["fields"].items():
            assert f"\n    {name}: {value}\n" in written, name
    for line in shown["base"].split("\n"):
        assert f"\n    {line}\n" in written
    for text in (shown["body"], shown["mac"], response["body"], response["mac"], vector["key"]["secret"]):
        assert text in written
    assert f"POST {shown['path']} HTTP/1.1" in written
    assert f"\n    host: {shown['authority']}\n" in written
