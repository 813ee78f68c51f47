"""Calls and outcomes as version 1 has them: a list of arguments in, `{return, …}` or `{exception, …}` out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from backwater_tornado.errors import (
    BodyUndecodable,
    CallFailed,
    ErlangError,
    InvalidArguments,
    NestedTooDeep,
    ResultTooLarge,
    ResultUnserializable,
)
from backwater_tornado.exposure import Exposure, Function, Readings
from backwater_tornado.options import ServerOptions
from backwater_tornado.protocol.forms import Arguments, encode_bounded, find_function
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.memory import Recorded
from backwater_tornado.protocol.messages import Call
from backwater_tornado.protocol.problems import describe_exception

from .decoding import decode_term
from .encoding import encode_term
from .http import MEDIA_TYPE, TEXT
from .terms import Atom, Charlist, text_of

RETURN: Final = Atom("return")
EXCEPTION: Final = Atom("exception")
#: Answers beyond this, in bytes, are not kept for a repetition of the message: nobody says when they are not needed
#: any more. The repetition is told that it was answered; it never runs.
MAX_KEPT: Final = 4096
#: Frames of a stack that are told, the innermost first.
MAX_FRAMES: Final = 50


@dataclass(frozen=True, slots=True)
class ErlangForm:
    """See the head of this module.

    Attributes:
        exposure: what may be called.
        options: the server's.
        none: the atom that is None.
        known_atoms: the only ones that are taken; None: any.
        arity: the one that the request's path states.
    """

    exposure: Exposure
    options: ServerOptions
    none: str
    known_atoms: frozenset[str] | None
    arity: int

    @property
    def readings(self) -> Readings:
        """See `Form`: where a text is wanted, a binary or a charlist is one."""
        return texts_of

    def find_function(self, key: Key, call: Call) -> Function:
        """See `Form`."""
        return find_function(self.exposure, key, call)

    def decode_arguments(self, arguments: bytes) -> Arguments:
        """See `Form`."""
        try:
            args = decode_term(arguments, none=self.none, known_atoms=self.known_atoms)
        except (BodyUndecodable, NestedTooDeep) as error:
            raise BadTerm("unable_to_decode_arguments") from error
        if not isinstance(args, list):
            raise BadTerm("arguments_not_a_list")
        if len(args) != self.arity:
            raise BadTerm("inconsistent_arguments_arity")
        return args, {}

    def encode_result(self, value: Any) -> Recorded:
        """See `Form`."""
        found = encode_bounded(self._encode_return, value, self.options.limits.max_encoded_result_size)
        if isinstance(found, CallFailed):
            return self.encode_problem(found)
        return Recorded(True, 200, MEDIA_TYPE, found)

    def _encode_return(self, value: Any) -> bytes:
        return encode_term((RETURN, value), none=self.none)

    def encode_exception(self, raised: BaseException) -> Recorded:
        """See `Form`. An `ErlangError` travels as what it stands for, any other as `{'Name', <<"message">>}`."""
        erlang = _whole(raised)
        stack: list[Any] = []
        if self.options.return_exception_stacktraces:
            stack = (erlang and list(erlang.stack)) or stack_of(raised.__traceback__)
        if erlang is not None:
            return self._exception(erlang.error_class, erlang.reason, stack)
        told = describe_exception(raised, with_traceback=False)
        return self._exception("error", _reason(told.type, told.message), stack)

    def encode_problem(self, error: CallFailed) -> Recorded:
        """See `Form`. What concerns the call, rather than the message, an Erlang caller expects as an exception."""
        if isinstance(error, InvalidArguments | ResultUnserializable | ResultTooLarge):
            return self._exception("error", _reason(error.code, error.detail), [])
        if isinstance(error, BadTerm):
            return Recorded(False, error.status, TEXT, error.detail.encode())
        return Recorded(False, error.status, TEXT, error.code.encode())

    def _exception(self, error_class: str, reason: Any, stack: list[Any]) -> Recorded:
        """The exception; where its stack or its reason cannot travel, it goes without."""
        limit = self.options.limits.max_encoded_result_size
        kind = Atom(error_class)
        body = encode_bounded(self._encode_raised, (kind, reason, stack), limit)
        if not isinstance(body, bytes):
            body = encode_bounded(self._encode_raised, (kind, reason, []), limit)
        if not isinstance(body, bytes):
            name = "reason_too_large" if isinstance(body, ResultTooLarge) else "unserializable_reason"
            body = self._encode_raised((kind, _reason(name, body.detail), []))
        return Recorded(True, 200, MEDIA_TYPE, body)

    def _encode_raised(self, raised: Any) -> bytes:
        return encode_term((EXCEPTION, raised), none=self.none)

    def record(self, answer: Recorded) -> Recorded:
        """See `Form`: small answers only."""
        return answer if len(answer.body) <= MAX_KEPT else Recorded(False, 409, TEXT, b"already_answered")


class BadTerm(BodyUndecodable):
    """Arguments that version 1 has its own word for."""


def _whole(raised: BaseException) -> ErlangError | None:
    """An `ErlangError` that has all of its own: a class made of it may never have called its constructor."""
    members = ("error_class", "reason", "stack")
    if isinstance(raised, ErlangError) and all(hasattr(raised, name) for name in members):
        return raised
    return None


def _reason(name: str, text: str) -> tuple[Atom, bytes]:
    return Atom(name[:255]), text.encode("utf-8", "backslashreplace")


def stack_of(trace: TracebackType | None) -> list[Any]:
    """A traceback as Erlang has it: `{Module, Function, Arity, [{file, …}, {line, …}]}`, the innermost first."""
    # The first frame is ours.
    trace = trace.tb_next if trace is not None else None
    frames: list[Any] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        module = str(trace.tb_frame.f_globals.get("__name__", "?"))
        place = [(Atom("file"), Charlist(code.co_filename)), (Atom("line"), trace.tb_lineno)]
        frames.append((Atom(module[:255]), Atom(code.co_name[:255]), code.co_argcount, place))
        trace = trace.tb_next
    return frames[::-1][:MAX_FRAMES]


def texts_of(value: Any) -> Iterable[Any]:
    """What a term may stand for where Python wants texts: its binaries as texts, or, of a charlist, the text."""
    yield _with_texts(value)
    if isinstance(value, list):
        try:
            yield text_of(value)
        except ValueError:
            return


def _with_texts(value: Any) -> Any:
    """The same value with texts in the place of binaries and atoms."""
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value
        case Atom():
            return str(value)
        case list():
            return [_with_texts(each) for each in value]
        case tuple():
            return tuple(_with_texts(each) for each in value)
        case dict():
            return {_with_texts(key): _with_texts(each) for key, each in value.items()}
    return value
