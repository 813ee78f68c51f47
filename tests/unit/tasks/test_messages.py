"""A task as bytes: what a producer writes, a worker reads, and whatever else arrives is refused."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from backwater_tornado.broker.values import Message
from backwater_tornado.errors import BodyUndecodable, UnsupportedMediaType
from backwater_tornado.protocol.codec import JSON, MSGPACK
from backwater_tornado.tasks.messages import (
    MAX_INPUTS_DEPTH,
    TaskHeaders,
    codec_of,
    encode_headers,
    input_ids,
    read_arguments,
    read_custom,
    read_headers,
)


def message(headers: bytes = b"", body: bytes = b"", content_type: str = "") -> Message:
    return Message("1", body, headers=headers, content_type=content_type)


def nested(depth: int) -> Any:
    inputs: Any = "id"
    for _ in range(depth):
        inputs = [inputs]
    return inputs


@pytest.mark.parametrize(
    "headers",
    [
        TaskHeaders("m.f"),
        TaskHeaders("m.f", retries=2, root="r", parent="p", inputs="a", time_limit=1.5, max_retries=None),
        TaskHeaders("m.f", inputs=["a", ["b", []]], inputs_by_id=True, upstream_failed=True, custom=b"x"),
        TaskHeaders("m.f", inputs=nested(MAX_INPUTS_DEPTH)),
    ],
)
def test_headers_come_back(headers: TaskHeaders) -> None:
    assert read_headers(message(encode_headers(headers))) == headers


def test_headers_of_another_version_are_read() -> None:
    assert read_headers(message(msgspec.msgpack.encode(["m.f", 3]))) == TaskHeaders("m.f", retries=3)
    more = [*msgspec.structs.astuple(TaskHeaders("m.f")), "of tomorrow"]
    assert read_headers(message(msgspec.msgpack.encode(more))) == TaskHeaders("m.f")


#: A time limit, and a soft one: no deadline can be made of these.
LIMITS = [[0], [-1.0], [float("nan")], [float("inf")], [1e308], [None, -math.inf], [None, 1e16]]


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode({"task": "m.f"}),
        msgspec.msgpack.encode([5]),
        msgspec.msgpack.encode(["m.f", "many"]),
        msgspec.msgpack.encode(["m.f", 0, "", "", 5]),
        msgspec.msgpack.encode(["m.f", 0, "", "", ["a", None]]),
        msgspec.msgpack.encode(["m.f", 0, "", "", {"a": "b"}]),
        msgspec.msgpack.encode(["m.f", 0, "", "", ["x" * 256]]),
        msgspec.msgpack.encode(["m.f", 0, "", "", nested(MAX_INPUTS_DEPTH + 1)]),
        msgspec.msgpack.encode(["m.f", -1]),
        msgspec.msgpack.encode(["m.f", 1 << 63]),
        *(msgspec.msgpack.encode(["m.f", 0, "", "", None, False, False, *limits]) for limits in LIMITS),
        msgspec.msgpack.encode(["m.f", 0, "", "", None, False, False, None, None, -2]),
        b"\x95\xa3m.f\x00\xa0\xa0" + b"\x91" * 100_000 + b"\xa1a",
    ],
)
def test_what_is_no_tasks_headers_is_refused(headers: bytes) -> None:
    with pytest.raises(BodyUndecodable, match="the headers are not a task's"):
        read_headers(message(headers))


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_arguments_come_back_in_either_serializer(codec: Any) -> None:
    body = codec.encode([[1, "two"], {"three": None}])
    assert read_arguments(message(body=body, content_type=codec.media_type)) == ([1, "two"], {"three": None})


def test_a_body_that_does_not_say_its_type_is_message_pack() -> None:
    assert read_arguments(message(body=MSGPACK.encode([(1,), {}]))) == ([1], {})


@pytest.mark.parametrize(
    "value", [None, [], [1, 2], [[], {}, 3], [[]], [{}, []], [[], []], [[], {1: 2}], ["ab", {}], {"args": []}]
)
def test_a_body_that_is_no_arguments_is_refused(value: Any) -> None:
    with pytest.raises(BodyUndecodable, match=r"the body of a task is \[args, kwargs\]"):
        read_arguments(message(body=MSGPACK.encode(value)))


def test_a_body_that_is_nothing_at_all_is_refused() -> None:
    with pytest.raises(BodyUndecodable):
        read_arguments(message(body=b"\xc1"))


@pytest.mark.parametrize("content_type", ["application/x-python-pickle", "text/plain"])
def test_only_known_serializers_are_read_and_never_pickle(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=content_type):
        read_arguments(message(body=b"", content_type=content_type))
    with pytest.raises(UnsupportedMediaType):
        codec_of(content_type)


def test_the_senders_own_headers_come_back() -> None:
    assert read_custom(TaskHeaders("m.f")) == {}
    assert read_custom(TaskHeaders("m.f", custom=MSGPACK.encode({"a": [1]}))) == {"a": [1]}


@pytest.mark.parametrize("custom", [b"\xc1", MSGPACK.encode([1])])
def test_wrong_headers_of_the_sender_are_refused(custom: bytes) -> None:
    with pytest.raises(BodyUndecodable):
        read_custom(TaskHeaders("m.f", custom=custom))


@pytest.mark.parametrize(
    ("inputs", "ids"),
    [(None, []), ("a", ["a"]), ([], []), (["a", ["b", [], ["c"]], "d"], ["a", "b", "c", "d"]), (nested(5_000), ["id"])],
)
def test_the_ids_of_inputs_come_in_their_order_however_deep(inputs: Any, ids: list[str]) -> None:
    assert list(input_ids(inputs)) == ids
