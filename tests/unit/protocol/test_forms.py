"""How calls are found and read, and their outcomes written."""

from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.errors import (
    BodyUndecodable,
    NestedTooDeep,
    NotInScope,
    Overloaded,
    RemoteError,
    UnknownFunction,
    UnknownModule,
    UnknownQueue,
)
from backwater_tornado.exposure import Exposed, Exposure
from backwater_tornado.options import Limits, ServerOptions
from backwater_tornado.protocol.codec import JSON, MSGPACK, PICKLE
from backwater_tornado.protocol.forms import CodecForm, decode_arguments, encode_problem, find_function
from backwater_tornado.protocol.keys import Key, Scopes
from backwater_tornado.protocol.memory import Recorded
from backwater_tornado.protocol.messages import Call
from backwater_tornado.protocol.problems import TYPE_PREFIX
from tests.wire import KEY, Tasks

EXPOSURE = Exposure.of(Exposed(tasks=Tasks()))


def form_of(*, stacktraces: bool = True, **limits: int) -> CodecForm:
    options = ServerOptions(limits=Limits(**limits), return_exception_stacktraces=stacktraces)
    return CodecForm(EXPOSURE, options, JSON, MSGPACK)


def test_a_form_has_a_codec_for_each_direction() -> None:
    form = form_of()
    assert form.find_function(KEY, Call("tasks", "add", b"")).name == "add"
    assert form.decode_arguments(b"[[1], {}]") == ([1], {})
    assert form.encode_result(3) == Recorded(True, 200, "application/msgpack", MSGPACK.encode(3))
    assert MSGPACK.decode(form.encode_problem(Overloaded("busy")).body)["detail"] == "busy"
    assert form.readings is None


def test_an_answer_is_remembered_whole() -> None:
    answer = Recorded(True, 200, "application/msgpack", bytes(100_000))
    assert form_of().record(answer) is answer


def test_an_error_of_the_broker_is_told_as_itself_and_any_other_refusal_is_not() -> None:
    """A refusal that a function meets in a call of its own is not this server's."""
    problem = MSGPACK.decode(form_of().encode_exception(UnknownQueue("none")).body)
    assert problem["type"] == TYPE_PREFIX + "unknown_queue"
    problem = MSGPACK.decode(form_of().encode_exception(Overloaded("elsewhere")).body)
    assert problem["type"] == TYPE_PREFIX + "remote_exception"


@pytest.mark.parametrize("stacktraces", [True, False])
def test_an_exception_is_told_with_its_traceback_where_that_is_allowed(stacktraces: bool) -> None:
    try:
        raise ValueError("no")
    except ValueError as raised:
        recorded = form_of(stacktraces=stacktraces).encode_exception(raised)
    told = MSGPACK.decode(recorded.body)["exception"]
    assert (recorded.ok, recorded.status) == (False, 500)
    assert (told["type"], told["message"], told["args"]) == ("ValueError", "no", ["no"])
    assert (told["traceback"] is not None) is stacktraces


def test_an_exposed_function_is_found() -> None:
    assert find_function(EXPOSURE, KEY, Call("tasks", "add", b"")).name == "add"


def test_unknown_modules_and_functions_are_refused() -> None:
    with pytest.raises(UnknownModule):
        find_function(EXPOSURE, KEY, Call("nothing", "add", b""))
    with pytest.raises(UnknownFunction):
        find_function(EXPOSURE, KEY, Call("tasks", "sub", b""))


def test_a_key_calls_only_what_its_scopes_allow() -> None:
    key = Key(b"s" * 32, "narrow", scopes=Scopes(call=("tasks.sub",)))
    with pytest.raises(NotInScope, match="the key narrow may not call tasks.add"):
        find_function(EXPOSURE, key, Call("tasks", "add", b""))


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_arguments_are_two_collections(codec: Any) -> None:
    assert decode_arguments(codec, codec.encode([[1, [2]], {"a": 3}])) == ([1, [2]], {"a": 3})
    assert decode_arguments(codec, codec.encode([(), {}])) == ([], {})


@pytest.mark.parametrize(
    "value", [None, [], [[]], [[], {}, {}], {"a": {}}, "ab", [{}, []], ["ab", {}], [[], []], [[], {1: 2}]]
)
def test_arguments_of_another_shape_are_undecodable(value: object) -> None:
    with pytest.raises(BodyUndecodable):
        decode_arguments(MSGPACK, MSGPACK.encode(value))


def test_arguments_that_cannot_be_decoded_are_refused() -> None:
    with pytest.raises(BodyUndecodable):
        decode_arguments(MSGPACK, b"\xc1")
    with pytest.raises(NestedTooDeep):
        decode_arguments(MSGPACK, b"\x91" * 1000 + b"\x90")


def test_a_result_without_a_form_on_the_wire_becomes_a_problem() -> None:
    recorded = form_of().encode_result(object())
    assert (recorded.ok, recorded.status, recorded.media_type) == (False, 500, "application/problem+msgpack")
    assert MSGPACK.decode(recorded.body)["type"] == TYPE_PREFIX + "result_unserializable"


def test_a_result_beyond_the_limit_becomes_a_problem() -> None:
    form = form_of(max_encoded_result_size=100)
    assert form.encode_result(b"x" * 98) == Recorded(True, 200, "application/msgpack", MSGPACK.encode(b"x" * 98))
    recorded = form.encode_result(b"x" * 99)
    assert MSGPACK.decode(recorded.body)["detail"] == "the encoded result has 101 bytes; max_encoded_result_size is 100"


@pytest.mark.parametrize(
    ("codec", "media_type", "reads"),
    [
        (MSGPACK, "application/problem+msgpack", MSGPACK),
        (JSON, "application/problem+json", JSON),
        (PICKLE, "application/problem+msgpack", MSGPACK),
    ],
)
def test_a_problem_travels_in_the_media_type_that_goes_with_the_answers(
    codec: Any, media_type: str, reads: Any
) -> None:
    recorded = encode_problem(codec, Overloaded("busy"))
    assert (recorded.ok, recorded.status, recorded.media_type) == (False, 503, media_type)
    assert reads.decode(recorded.body)["detail"] == "busy"


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_a_problem_is_told_even_where_its_members_have_no_form_on_the_wire(codec: Any) -> None:
    error = RemoteError("\udcff", type="E", message="no", traceback="T", exception_args=("\ud800",), odd=object())
    problem = codec.decode(encode_problem(codec, error).body)
    assert problem["detail"] == "\\udcff"
    assert problem["exception"] == {"type": "E", "message": "no", "traceback": "T", "args": None}
    assert "odd" not in problem
    assert error.extra != {}
