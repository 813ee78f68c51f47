"""Arguments and outcomes as version 1 has them."""

from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.errors import (
    DeadlineExceeded,
    ErlangError,
    InvalidArguments,
    NotInScope,
    Overloaded,
    ResultTooLarge,
    UnknownFunction,
)
from backwater_tornado.exposure import Exposed, Exposure
from backwater_tornado.options import Limits, ServerOptions
from backwater_tornado.protocol.erlang.decoding import decode_term
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.forms import MAX_FRAMES, MAX_KEPT, ErlangForm, stack_of, texts_of
from backwater_tornado.protocol.erlang.terms import Atom, BitString, ImproperList
from backwater_tornado.protocol.keys import Key, Scopes
from backwater_tornado.protocol.memory import Recorded
from backwater_tornado.protocol.messages import Call
from tests.wire import KEY, Tasks

EXPOSURE = Exposure.of(Exposed(tasks=Tasks()))
ETF = "application/x-erlang-etf"


def form_of(
    *, arity: int = 2, none: str = "undefined", known: Any = None, stacks: bool = True, **limits: int
) -> ErlangForm:
    options = ServerOptions(limits=Limits(**limits), return_exception_stacktraces=stacks)
    return ErlangForm(EXPOSURE, options, none, known, arity)


def term_of(recorded: Recorded) -> Any:
    assert (recorded.ok, recorded.status, recorded.media_type) == (True, 200, ETF)
    return decode_term(recorded.body)


def exception_of(raised: BaseException, **more: Any) -> Any:
    tag, told = term_of(form_of(**more).encode_exception(raised))
    assert tag == "exception"
    return told


def caught(raised: BaseException) -> BaseException:
    """As `dispatch` has it: raised by a function, caught one frame further out."""

    def function() -> None:
        raise raised

    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


# Arguments -----------------------------------------------------------------------------------------------------------


def test_a_function_is_found_within_the_scopes() -> None:
    form = form_of()
    assert form.find_function(KEY, Call("tasks", "add", b"")).name == "add"
    with pytest.raises(UnknownFunction):
        form.find_function(KEY, Call("tasks", "other", b""))
    with pytest.raises(NotInScope):
        form.find_function(Key(bytes(32), scopes=Scopes(call=("other.*",))), Call("tasks", "add", b""))


@pytest.mark.parametrize(
    ("body", "args"),
    [
        (b"\x83l\0\0\0\2a\1w\1xj", [1, Atom("x")]),
        (b"\x83k\0\2\1\2", [1, 2]),
        (b"\x83k\0\2\1\2 and more", [1, 2]),
    ],
)
def test_arguments_are_a_list(body: bytes, args: list[Any]) -> None:
    assert form_of().decode_arguments(body) == (args, {})


def test_no_arguments_are_an_empty_list() -> None:
    assert form_of(arity=0).decode_arguments(b"\x83j") == ([], {})


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "unable_to_decode_arguments"),
        (b"\x83k\0\2\1", "unable_to_decode_arguments"),
        (b"\x83P\0\0\0\1x", "unable_to_decode_arguments"),
        (b"\x83" + b"l\0\0\0\1" * 300 + b"j" * 301, "unable_to_decode_arguments"),
        (encode_term({}), "arguments_not_a_list"),
        (encode_term((1, 2)), "arguments_not_a_list"),
        (encode_term(ImproperList((1, 2), 3)), "arguments_not_a_list"),
        (b"\x83k\0\1\1", "inconsistent_arguments_arity"),
        (b"\x83k\0\3\1\2\3", "inconsistent_arguments_arity"),
        (b"\x83j", "inconsistent_arguments_arity"),
    ],
)
def test_what_is_no_list_of_arguments_is_named(body: bytes, word: str) -> None:
    form = form_of()
    with pytest.raises(Exception) as raised:
        form.decode_arguments(body)
    assert form.encode_problem(raised.value) == Recorded(  # type: ignore[arg-type]
        False, 400, "text/plain", word.encode()
    )


def test_atoms_and_nothing_are_read_as_the_options_say() -> None:
    body = encode_term([Atom("nil"), Atom("undefined")])
    assert form_of().decode_arguments(body) == ([Atom("nil"), None], {})
    assert form_of(none="nil").decode_arguments(body) == ([None, Atom("undefined")], {})
    with pytest.raises(Exception, match="unable_to_decode"):
        form_of(known=frozenset("y")).decode_arguments(b"\x83l\0\0\0\2a\1w\1xj")
    assert form_of(known=frozenset("x")).decode_arguments(b"\x83l\0\0\0\2a\1w\1xj") == ([1, Atom("x")], {})


# Results -------------------------------------------------------------------------------------------------------------


def test_a_result_is_returned() -> None:
    assert term_of(form_of().encode_result(3)) == ("return", 3)
    assert form_of(none="nil").encode_result(None).body == encode_term((Atom("return"), Atom("nil")))
    assert form_of().encode_result(None).body == encode_term((Atom("return"), Atom("undefined")))


def test_a_result_that_cannot_travel_is_an_exception() -> None:
    told = term_of(form_of().encode_result(object()))
    assert told == ("exception", ("error", ("result_unserializable", told[1][1][1]), []))
    assert b"object" in told[1][1][1]
    exactly = len(form_of().encode_result(b"x" * 100).body)
    assert term_of(form_of(max_encoded_result_size=exactly).encode_result(b"x" * 100)) == ("return", b"x" * 100)
    told = term_of(form_of(max_encoded_result_size=exactly - 1).encode_result(b"x" * 100))
    assert told[1][1] == (
        "result_too_large",
        f"the encoded result has {exactly} bytes; max_encoded_result_size is {exactly - 1}".encode(),
    )


# Exceptions ----------------------------------------------------------------------------------------------------------


def test_an_exception_is_told_by_name_and_message() -> None:
    error_class, reason, stack = exception_of(caught(ValueError("nö")))
    assert (error_class, reason) == ("error", ("ValueError", "nö".encode()))
    ((module, function, arity, place),) = stack
    assert (module, function, arity) == (__name__, "function", 0)
    assert place[0] == ("file", list(__file__.encode()))
    assert place[1][0] == "line"
    assert isinstance(module, Atom)
    assert exception_of(caught(ValueError("no")), stacks=False)[2] == []


def test_an_exception_without_a_traceback_has_no_stack() -> None:
    assert exception_of(ValueError("no"))[2] == []


class Sad(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_that_cannot_be_printed_is_told_all_the_same() -> None:
    _, (name, message), _ = exception_of(caught(Sad()))
    assert name == f"{__name__}.Sad"
    assert message == b"<the text of the exception raised RuntimeError>"
    assert exception_of(ValueError("\udcff"))[1] == ("ValueError", b"\\udcff")
    assert len(exception_of(ValueError("x" * 100_000))[1][1]) == 8192
    assert exception_of(type("E" * 300, (Exception,), {"__module__": "builtins"})())[1][0] == "E" * 255
    _, (name, message), _ = exception_of(type("E", (Exception,), {"__module__": "\ud800"})("x"))
    assert name == "unserializable_reason"
    assert exception_of(SystemExit(3))[1] == ("SystemExit", b"3")


@pytest.mark.parametrize("error_class", ["error", "exit", "throw"])
def test_an_erlang_error_travels_as_what_it_stands_for(error_class: str) -> None:
    raised = ErlangError(error_class=error_class, reason=(Atom("r"), [1]), stack=[(Atom("m"), Atom("f"), 1, [])])
    assert exception_of(raised) == (error_class, ("r", [1]), [("m", "f", 1, [])])
    assert exception_of(raised, stacks=False) == (error_class, ("r", [1]), [])


def test_an_erlang_error_without_a_stack_has_pythons() -> None:
    _, _, ((module, *_),) = exception_of(caught(ErlangError(reason=1)))
    assert module == __name__


def test_nothing_in_a_reason_is_the_atom_that_stands_for_it() -> None:
    raised = ErlangError(reason=None)
    assert form_of(none="nil").encode_exception(raised).body == encode_term(
        (Atom("exception"), (Atom("error"), Atom("nil"), []))
    )


def test_a_reason_that_cannot_travel_is_told_as_that() -> None:
    error_class, (name, text), stack = exception_of(caught(ErlangError(error_class="throw", reason=object())))
    assert (error_class, name, stack) == ("throw", "unserializable_reason", [])
    assert b"object" in text


def test_a_stack_that_cannot_travel_does_not_take_the_reason_with_it() -> None:
    odd = ErlangError(error_class="exit", reason=1, stack=[object()])
    assert exception_of(odd) == ("exit", 1, [])
    spaces: dict[str, Any] = {}
    exec(compile("def function(): raise ValueError('no')", "/odd\udcff.py", "exec"), spaces)  # noqa: S102
    with pytest.raises(ValueError, match="no") as raised:
        spaces["function"]()
    assert exception_of(raised.value) == ("error", ("ValueError", b"no"), [])


def test_a_reason_has_the_longest_length_of_a_result() -> None:
    raised = ErlangError(reason=b"x" * 200, stack=[b"y" * 200])
    assert exception_of(raised)[1:] == (b"x" * 200, [b"y" * 200])
    assert exception_of(raised, max_encoded_result_size=300) == ("error", b"x" * 200, [])
    error_class, (name, text), stack = exception_of(raised, max_encoded_result_size=200)
    assert (error_class, name, stack) == ("error", "reason_too_large", [])
    assert b"max_encoded_result_size is 200" in text


@pytest.mark.parametrize("missing", ["error_class", "reason", "stack"])
def test_half_an_erlang_error_is_an_exception_like_any_other(missing: str) -> None:
    class Half(ErlangError):
        def __init__(self) -> None:
            self.error_class, self.reason, self.stack = "error", 1, ()
            delattr(self, missing)

    assert exception_of(Half())[1][0].endswith(".Half")


def test_what_only_looks_like_an_erlang_error_is_none() -> None:
    class Alike(Exception):
        error_class, reason, stack = "odd", object(), 7

    assert exception_of(Alike("x")) == ("error", (f"{Alike.__module__}.{Alike.__qualname__}", b"x"), [])


def test_a_stack_begins_with_the_innermost_frame_and_is_cut() -> None:
    def sink(depth: int) -> None:
        if not depth:
            raise ValueError
        sink(depth - 1)

    try:
        sink(MAX_FRAMES + 20)
    except ValueError as error:
        trace = error.__traceback__
    frames = stack_of(trace)
    assert len(frames) == MAX_FRAMES
    lines = [frame[3][1][1] for frame in frames]
    assert lines[0] == lines[1] - 1  # `raise` stands above the call
    assert set(lines[1:]) == {lines[1]}
    assert stack_of(None) == []


def test_a_frame_of_nowhere_in_particular_has_a_module_too() -> None:
    spaces: dict[str, Any] = {"__name__": 17}
    exec("def function(a, b, /, c, *d, e): raise ValueError", spaces)  # noqa: S102
    nameless: dict[str, Any] = {"__builtins__": __builtins__, "function": spaces["function"]}
    exec("def outer(): function(1, 2, 3, e=4)", nameless)  # noqa: S102
    nameless.pop("__name__", None)
    try:
        nameless["outer"]()
    except ValueError as error:
        frames = stack_of(error.__traceback__)
    assert [frame[:3] for frame in frames] == [("17", "function", 3), ("?", "outer", 0)]


# Refusals ------------------------------------------------------------------------------------------------------------


def test_what_concerns_the_call_is_an_exception() -> None:
    form = form_of()
    told = term_of(form.encode_problem(InvalidArguments("x is wrong")))
    assert told == ("exception", ("error", ("invalid_arguments", b"x is wrong"), []))
    assert term_of(form.encode_problem(ResultTooLarge("x")))[1][1] == ("result_too_large", b"x")


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [(Overloaded("x"), 503, b"overloaded"), (DeadlineExceeded("x"), 504, b"deadline_exceeded")],
)
def test_what_concerns_the_server_is_a_status_and_a_word(error: Any, status: int, word: bytes) -> None:
    assert form_of().encode_problem(error) == Recorded(False, status, "text/plain", word)


def test_small_answers_are_kept_and_of_large_ones_that_there_was_one() -> None:
    form = form_of()
    small = Recorded(True, 200, ETF, bytes(MAX_KEPT))
    assert form.record(small) is small
    large = Recorded(True, 200, ETF, bytes(MAX_KEPT + 1))
    assert form.record(large) == Recorded(False, 409, "text/plain", b"already_answered")


# Texts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "readings"),
    [
        (b"abc", ["abc"]),
        (b"\xff", [b"\xff"]),
        (Atom("a"), ["a"]),
        (7, [7]),
        (None, [None]),
        ([104, 105], [[104, 105], "hi"]),
        ([], [[], ""]),
        ([b"a", 98], [["a", 98], "ab"]),
        ([b"a", 1.5], [["a", 1.5]]),
        ((b"a", [b"b"]), [("a", ["b"])]),
        ({b"k": [b"v"], Atom("a"): {b"x": Atom("y")}}, [{"k": ["v"], "a": {"x": "y"}}]),
        (BitString(b"a", 3), [BitString(b"a", 3)]),
    ],
)
def test_what_a_term_may_stand_for_where_texts_are_wanted(value: Any, readings: list[Any]) -> None:
    found = list(texts_of(value))
    assert found == readings
    assert all(type(each) is not Atom for each in found)


def test_a_form_reads_terms_as_texts() -> None:
    assert form_of().readings is texts_of
