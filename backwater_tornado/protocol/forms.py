"""How the calls of one request are read, and how their outcomes are written.

`Form` is all that who runs a call (`dispatch`) has to know of the wire it came over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from backwater_tornado.errors import (
    BodyUndecodable,
    CallFailed,
    NotInScope,
    ResultTooLarge,
    ResultUnserializable,
    StoreError,
    Unserializable,
)
from backwater_tornado.exposure import Exposure, Function, Readings
from backwater_tornado.options import ServerOptions

from .codec import JSON, MSGPACK, Codec
from .keys import Key
from .memory import Recorded
from .messages import Call
from .problems import PROBLEM_MEDIA_TYPES, describe, describe_exception, plainly

Arguments = tuple[list[Any], dict[str, Any]]


class Form(Protocol):
    """What one wire makes of calls and outcomes. None of the `encode_…` raises."""

    @property
    def readings(self) -> Readings | None:
        """What else an argument that does not fit may stand for."""
        ...

    def find_function(self, key: Key, call: Call) -> Function:
        """The exposed function, if the key may call it; raises `Refused`."""
        ...

    def decode_arguments(self, arguments: bytes) -> Arguments:
        """The arguments of one call, by position and by name; raises `Refused`."""
        ...

    def encode_result(self, value: Any) -> Recorded:
        """A function's result as an answer; one that cannot be encoded, or is too large, is told as that."""
        ...

    def encode_exception(self, raised: BaseException) -> Recorded:
        """What a function raised as an answer."""
        ...

    def encode_problem(self, error: CallFailed) -> Recorded:
        """Any other error as an answer."""
        ...

    def record(self, answer: Recorded) -> Recorded:
        """What is remembered of an answer, for whoever asks for it again."""
        ...


@dataclass(frozen=True, slots=True)
class CodecForm:
    """Version 2: `[args, kwargs]` by the request's codec, results and problem details by the answer's."""

    exposure: Exposure
    options: ServerOptions
    codec: Codec
    answer_codec: Codec

    @property
    def readings(self) -> None:
        """See `Form`: msgpack and JSON have the types they need."""
        return None

    def find_function(self, key: Key, call: Call) -> Function:
        """See `Form`."""
        return find_function(self.exposure, key, call)

    def decode_arguments(self, arguments: bytes) -> Arguments:
        """See `Form`."""
        return decode_arguments(self.codec, arguments)

    def encode_result(self, value: Any) -> Recorded:
        """See `Form`."""
        limit = self.options.limits.max_encoded_result_size
        found = encode_bounded(self.answer_codec.encode, value, limit)
        if isinstance(found, CallFailed):
            return self.encode_problem(found)
        return Recorded(True, 200, self.answer_codec.media_type, found)

    def encode_exception(self, raised: BaseException) -> Recorded:
        """See `Form`."""
        if isinstance(raised, StoreError):
            return self.encode_problem(raised)
        return self.encode_problem(describe_exception(raised, with_traceback=self.options.return_exception_stacktraces))

    def encode_problem(self, error: CallFailed) -> Recorded:
        """See `Form`."""
        return encode_problem(self.answer_codec, error)

    def record(self, answer: Recorded) -> Recorded:
        """See `Form`: all of it, until the caller says that it has it."""
        return answer


def find_function(exposure: Exposure, key: Key, call: Call) -> Function:
    """The exposed function, if the key may call it; raises `Refused`."""
    function = exposure.find(call.module, call.function)
    if not key.scopes.allows_call(call.module, call.function):
        raise NotInScope(f"the key {key.id} may not call {call.module}.{call.function}")
    return function


def decode_arguments(codec: Codec, arguments: bytes) -> Arguments:
    """`[args, kwargs]` of one call; raises `BodyUndecodable`."""
    decoded = codec.decode(arguments)
    match decoded:
        case [list() | tuple() as args, dict() as kwargs] if all(isinstance(name, str) for name in kwargs):
            return list(args), kwargs
    raise BodyUndecodable("the body is not [[argument, …], {name: argument, …}]")


def encode_bounded(
    encode: Callable[[Any], bytes], value: Any, limit: int
) -> bytes | ResultUnserializable | ResultTooLarge:
    """The encoded result, or why it cannot travel."""
    try:
        body = encode(value)
    except Unserializable as error:
        return ResultUnserializable(str(error))
    if len(body) > limit:
        return ResultTooLarge(f"the encoded result has {len(body)} bytes; max_encoded_result_size is {limit}")
    return body


def encode_problem(codec: Codec, error: CallFailed) -> Recorded:
    """An error as problem details."""
    media_type = PROBLEM_MEDIA_TYPES[codec.media_type]
    values = JSON if codec is JSON else MSGPACK
    problem = describe(error)
    try:
        body = values.encode(problem)
    except Unserializable:  # the error's own members or the exception's arguments: the rest is text and numbers
        body = values.encode(plainly(problem))
    return Recorded(False, error.status, media_type, body)
