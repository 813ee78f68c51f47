"""A task as the broker carries it: headers and a body that it never opens.

The headers say what to run and what the run depends on; the body is `[args, kwargs]`, encoded as a call's arguments are
(`protocol.codec`). Both are written by a producer and read by a worker that may be of another version: a header that is
missing has its default, one that is too many is passed over.

Rule: whatever a message holds, reading it gives a value or `BodyUndecodable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from backwater_tornado.broker.bounds import MAX_NAME, Count
from backwater_tornado.broker.values import Message
from backwater_tornado.errors import BodyUndecodable, UnsupportedMediaType
from backwater_tornado.protocol.codec import MSGPACK, Codec, codec_for

from .options import MAX_SECONDS

#: The queue of a task that names none.
DEFAULT_QUEUE: Final = "default"
#: How long a result is kept where nothing else is said, seconds.
RESULT_EXPIRES: Final = 86_400.0

#: Results that a task waits for, by the ids of their messages: one id, or a list of such for the results of a group.
Inputs = Any
#: Seconds, as a sender may give them.
Limit = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]


class TaskHeaders(msgspec.Struct, frozen=True, array_like=True):
    """What a worker has to know of a task beside its arguments."""

    #: The function, as `module.name`.
    task: str
    #: Runs that ended in a retry before this one.
    retries: Count = 0
    #: The message that the whole workflow began with, and the task that sent this one; empty: itself, nobody.
    root: str = ""
    parent: str = ""
    #: The results that come before the arguments; None: none do.
    inputs: Inputs = None
    #: The ids of `inputs` come in place of their results (a task that looks into failures).
    inputs_by_id: bool = False
    #: What it waits for has failed: it ends as failed without a run.
    upstream_failed: bool = False
    #: Seconds; None: as its function has it.
    time_limit: Limit | None = None
    soft_time_limit: Limit | None = None
    #: -1: as its function has it; None: no bound.
    max_retries: Annotated[int, Meta(ge=-1)] | None = -1
    #: The sender's own, encoded as a body is; empty: none.
    custom: bytes = b""


_HEADERS = msgspec.msgpack.Decoder(TaskHeaders)
_encode_headers = msgspec.msgpack.Encoder().encode


def encode_headers(headers: TaskHeaders) -> bytes:
    """The headers as bytes."""
    return _encode_headers(headers)


def read_headers(message: Message) -> TaskHeaders:
    """The headers of a message; raises `BodyUndecodable`."""
    try:
        headers = _HEADERS.decode(message.headers)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BodyUndecodable(f"the headers are not a task's: {error}") from error
    if not _are_inputs(headers.inputs):
        raise BodyUndecodable("the headers are not a task's: inputs are ids, or lists of them")
    return headers


def codec_of(content_type: str) -> Codec:
    """The codec of a message's body or an outcome's; raises `UnsupportedMediaType`."""
    codec = codec_for(content_type or MSGPACK.media_type, unsafe=False)
    if codec is None:
        raise UnsupportedMediaType(f"there is no serializer for {content_type!r}")
    return codec


def read_arguments(message: Message) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in a message's body; raises `BodyUndecodable`, `UnsupportedMediaType`."""
    match codec_of(message.content_type).decode(message.body):
        case [list() | tuple() as args, dict() as kwargs] if all(type(name) is str for name in kwargs):
            return list(args), kwargs
    raise BodyUndecodable("the body of a task is [args, kwargs]")


def read_custom(headers: TaskHeaders) -> dict[str, Any]:
    """The sender's own headers; raises `BodyUndecodable`."""
    found = MSGPACK.decode(headers.custom) if headers.custom else {}
    if not isinstance(found, dict):
        raise BodyUndecodable("the headers of a task's sender are a dict")
    return found


def input_ids(inputs: Inputs) -> Iterator[str]:
    """The ids in `TaskHeaders.inputs`, in order."""
    waiting = [inputs]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif each is not None:
            waiting.extend(reversed(each))


#: Groups within groups within groups: as deep as a body may be nested would be of no use.
MAX_INPUTS_DEPTH: Final = 32


def _are_inputs(inputs: Inputs, depth: int = 0) -> bool:
    if inputs is None:
        return depth == 0
    if isinstance(inputs, str):
        return len(inputs) <= MAX_NAME
    return (
        isinstance(inputs, list) and depth < MAX_INPUTS_DEPTH and all(_are_inputs(each, depth + 1) for each in inputs)
    )
