from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.errors import (
    WIRE_ERRORS,
    CallFailed,
    DeadlineExceeded,
    InvalidArguments,
    MemoryFull,
    Overloaded,
    Refused,
    RemoteError,
    Unreachable,
)
from backwater_tornado.protocol.codec import JSON, MSGPACK
from backwater_tornado.protocol.problems import (
    MAX_MESSAGE,
    MAX_TRACEBACK,
    PROBLEM_MEDIA_TYPES,
    PROBLEM_VALUES,
    TYPE_PREFIX,
    describe,
    describe_exception,
    original_exception,
    plainly,
    rebuild,
)


def raised(error: BaseException) -> BaseException:
    """The exception as it is where it has been raised and caught."""
    try:
        raise error
    except BaseException as caught:
        return caught


def told(error: BaseException, *, with_traceback: bool = False) -> RemoteError:
    return describe_exception(raised(error), with_traceback=with_traceback)


# Describing


def test_problem_details_say_what_rfc_9457_asks_for() -> None:
    assert describe(InvalidArguments("add() needs y")) == {
        "type": TYPE_PREFIX + "invalid_arguments",
        "title": InvalidArguments.title,
        "status": 422,
        "detail": "add() needs y",
    }


def test_an_errors_own_members_and_its_retry_after_travel() -> None:
    error = Overloaded("busy", pending=7)
    error.retry_after = 2.5
    problem = describe(error)
    assert problem["pending"] == 7
    assert problem["retry_after"] == 2.5


def test_a_retry_after_of_nothing_travels_too() -> None:
    error = Overloaded()
    error.retry_after = 0.0
    assert describe(error)["retry_after"] == 0.0


def test_an_exception_travels_with_its_type_text_arguments_and_traceback() -> None:
    error = RemoteError(type="m.E", message="no", traceback="Traceback", exception_args=("no", 1))
    assert describe(error)["exception"] == {"type": "m.E", "message": "no", "traceback": "Traceback", "args": ["no", 1]}


def test_what_an_exception_lacks_is_null() -> None:
    assert describe(RemoteError(type="E"))["exception"] == {"type": "E", "message": "", "traceback": None, "args": None}


def test_a_long_detail_is_cut() -> None:
    assert describe(Refused("x" * (MAX_MESSAGE + 1)))["detail"] == "x" * MAX_MESSAGE


def test_lone_surrogates_are_spelt_out_as_no_media_type_has_them() -> None:
    error = RemoteError("a\udcff", type="E\udcff", message="b\udcff", traceback="c\ud800")
    problem = describe(error)
    assert problem["detail"] == "a\\udcff"
    assert problem["exception"] == {"type": "E\\udcff", "message": "b\\udcff", "traceback": "c\\ud800", "args": None}
    for codec in (JSON, MSGPACK):
        codec.encode(problem)


def test_problem_details_can_do_without_what_has_no_form_on_the_wire() -> None:
    error = RemoteError(type="E", message="no", exception_args=(float("nan"),), odd=object())
    error.retry_after = 1.0
    problem = plainly(describe(error))
    assert problem == {
        "type": TYPE_PREFIX + "remote_exception",
        "title": RemoteError.title,
        "status": 500,
        "detail": "E: no",
        "retry_after": 1.0,
        "exception": {"type": "E", "message": "no", "traceback": None, "args": None},
    }
    assert "exception" not in plainly(describe(Refused()))
    assert "retry_after" not in plainly(describe(Refused()))


# Exceptions of functions


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unprintable(Exception):
    """Its traceback cannot be printed: the text of what it notes cannot be had."""

    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


def test_an_exception_is_told_by_its_qualified_name_and_text() -> None:
    error = told(KeyError("k"))
    assert (error.type, error.message, error.exception_args) == ("KeyError", "'k'", ("k",))
    assert error.detail == "KeyError: 'k'"
    assert told(Odd()).type == f"{__name__}.Odd"


def test_exceptions_that_are_no_errors_are_told_too() -> None:
    assert told(KeyboardInterrupt()).type == "KeyboardInterrupt"


def test_a_broken_text_does_not_hide_the_exception() -> None:
    assert told(Odd()).message == "<the text of the exception raised RuntimeError>"


def test_a_traceback_travels_where_that_is_wanted() -> None:
    assert told(ValueError()).traceback is None
    text = told(ValueError("no"), with_traceback=True).traceback
    assert text is not None
    assert text.startswith("Traceback")
    assert text.endswith("ValueError: no\n")


def test_a_traceback_begins_with_the_function_and_not_with_the_server() -> None:
    def function() -> None:
        raise ValueError("no")

    try:
        function()
    except ValueError as error:
        text = describe_exception(error, with_traceback=True).traceback
    assert text is not None
    assert "in function" in text
    assert "in test_a_traceback_begins" not in text


def test_an_exception_that_was_never_raised_has_a_short_traceback() -> None:
    assert describe_exception(ValueError("no"), with_traceback=True).traceback == "ValueError: no\n"


def test_a_traceback_that_cannot_be_printed_does_not_hide_the_exception() -> None:
    error = raised(ValueError("no"))
    error.__cause__ = raised(Unprintable())
    text = describe_exception(error, with_traceback=True).traceback
    assert text is not None
    assert "ValueError: no" in text or text == "<printing the traceback raised RuntimeError>"


def test_what_goes_wrong_in_printing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traceback.format_exception", lambda *args: 1 / 0)
    assert told(ValueError(), with_traceback=True).traceback == "<printing the traceback raised ZeroDivisionError>"


def test_a_long_traceback_keeps_its_end() -> None:
    text = told(ValueError("x" * MAX_TRACEBACK), with_traceback=True).traceback
    assert text is not None
    assert len(text) == MAX_TRACEBACK + 1
    assert text[0] == "…"
    assert text.endswith("x\n")


def test_a_traceback_of_the_greatest_length_is_whole() -> None:
    room = MAX_TRACEBACK - len("ValueError: \n")
    text = describe_exception(ValueError("x" * room), with_traceback=True).traceback
    assert text is not None
    assert text.startswith("ValueError")


@pytest.mark.parametrize("arguments", [(), ("a", 1, 1.5, True, None), (2**63 - 1, -(2**63) + 1), ("x" * MAX_MESSAGE,)])
def test_plain_short_arguments_travel(arguments: tuple[Any, ...]) -> None:
    assert told(ValueError(*arguments)).exception_args == arguments


@pytest.mark.parametrize(
    "arguments",
    [(object(),), ([1],), (b"x",), (2**63,), (-(2**63),), ("x" * MAX_MESSAGE, "y"), ("x" * (MAX_MESSAGE + 1),)],
)
def test_other_arguments_stay_where_they_are(arguments: tuple[Any, ...]) -> None:
    assert told(ValueError(*arguments)).exception_args is None


def test_a_long_text_is_cut() -> None:
    assert told(ValueError("x" * (MAX_MESSAGE + 1))).message == "x" * MAX_MESSAGE


# Rebuilding


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
@pytest.mark.parametrize("kind", WIRE_ERRORS.values())
def test_every_error_of_the_table_comes_back_as_its_class(kind: type[CallFailed], codec: Any) -> None:
    error = kind("why")
    error.retry_after = 3.0 if kind is not RemoteError else None
    got = rebuild(codec.decode(codec.encode(describe(error))), kind.status)
    assert type(got) is kind
    assert (got.detail, got.retry_after) == ("why", error.retry_after)


def test_extra_members_come_back() -> None:
    got = rebuild({**describe(MemoryFull("full")), "limit": 7, 8: "no name"}, 503)
    assert got.extra == {"limit": 7}


def test_an_exception_comes_back() -> None:
    error = RemoteError(type="m.E", message="no", traceback="Traceback", exception_args=("no", 1))
    got = rebuild(describe(error), 500)
    assert isinstance(got, RemoteError)
    assert (got.type, got.message, got.traceback, got.exception_args) == ("m.E", "no", "Traceback", ("no", 1))
    assert got.detail == "m.E: no"


@pytest.mark.parametrize("code", ["", "nonsense", "unreachable", "unverified", "tls_failed", "call_failed"])
def test_a_code_that_is_not_in_the_table_is_a_plain_refusal(code: str) -> None:
    assert type(rebuild({"type": TYPE_PREFIX + code, "detail": "x"}, 400)) is Refused


def test_a_code_is_read_without_its_prefix_too() -> None:
    assert type(rebuild({"type": "overloaded"}, 503)) is Overloaded


@pytest.mark.parametrize("problem", [None, [], "x", 7, b"x"])
def test_what_is_no_table_is_a_plain_refusal_that_tells_the_status(problem: object) -> None:
    error = rebuild(problem, 418)
    assert type(error) is Refused
    assert "418" in error.detail


@pytest.mark.parametrize(
    "problem", [{}, {"type": 7, "detail": []}, {"type": ["x"], "detail": None}, {b"type": b"overloaded"}]
)
def test_members_of_another_kind_count_as_missing(problem: object) -> None:
    error = rebuild(problem, 400)
    assert type(error) is Refused
    assert error.detail == Refused.title


@pytest.mark.parametrize("retry_after", [-1, 86_400, float("nan"), float("inf"), 10**400, "5", None, [1]])
def test_an_odd_retry_after_is_none(retry_after: object) -> None:
    assert rebuild({"type": "overloaded", "retry_after": retry_after}, 503).retry_after is None


@pytest.mark.parametrize("retry_after", [0, 0.5, 86_399])
def test_a_retry_after_is_read(retry_after: float) -> None:
    assert rebuild({"type": "overloaded", "retry_after": retry_after}, 503).retry_after == retry_after


@pytest.mark.parametrize(
    "exception", [None, 7, {}, {"type": 7, "message": None, "traceback": 1, "args": "x"}, {"args": {"a": 1}}]
)
def test_an_exception_with_members_of_another_kind_is_an_exception(exception: object) -> None:
    got = rebuild({"type": "remote_exception", "detail": "x", "exception": exception}, 500)
    assert isinstance(got, RemoteError)
    assert (got.type, got.message, got.traceback, got.exception_args) == ("Exception", "", None, None)


def test_every_media_type_of_values_has_one_of_problems() -> None:
    assert set(PROBLEM_MEDIA_TYPES.values()) == set(PROBLEM_VALUES)
    assert all(PROBLEM_MEDIA_TYPES[values] == problem for problem, values in PROBLEM_VALUES.items())


# The exception's own class


class Registered(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Demanding(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("done")


def test_a_builtin_exception_is_rebuilt_with_its_arguments() -> None:
    error = told(KeyError("k"))
    original = original_exception(error, ())
    assert type(original) is KeyError
    assert original.args == ("k",)
    assert original.__cause__ is error


def test_without_arguments_the_text_is_the_argument() -> None:
    original = original_exception(RemoteError(type="ValueError", message="no"), ())
    assert type(original) is ValueError
    assert original.args == ("no",)


def test_no_arguments_are_no_arguments() -> None:
    original = original_exception(RemoteError(type="ValueError", message="no", exception_args=()), ())
    assert original is not None
    assert original.args == ()


def test_a_registered_exception_is_rebuilt() -> None:
    original = original_exception(told(Registered(7)), [Demanding, Registered])
    assert isinstance(original, Registered)
    assert original.code == 7


@pytest.mark.parametrize(
    "name",
    [
        "SystemExit",
        "KeyboardInterrupt",
        "BaseException",
        "GeneratorExit",
        "print",
        "eval",
        "int",
        "object",
        "__import__",
    ],
)
def test_nothing_but_an_exception_is_ever_made(name: str) -> None:
    assert original_exception(RemoteError(type=name, message="1", exception_args=("1",)), ()) is None


@pytest.mark.parametrize(
    "name", ["", "no.such.Error", "os.system", f"{__name__}.Registered", "\udc80", "builtins.ValueError"]
)
def test_an_unknown_class_is_not_looked_for(name: str) -> None:
    assert original_exception(RemoteError(type=name), ()) is None


def test_a_constructor_that_wants_something_else_leaves_the_remote_error() -> None:
    assert original_exception(told(Demanding(1, 2)), [Demanding]) is None
    assert original_exception(RemoteError(type="UnicodeDecodeError", message="x"), ()) is None


def test_a_registered_class_may_stand_for_a_builtin_one() -> None:
    class Mine(Exception):
        __module__ = "builtins"
        __qualname__ = "ValueError"

    assert isinstance(original_exception(RemoteError(type="ValueError"), [Mine]), Mine)


def test_what_never_crosses_the_wire_is_not_in_the_table() -> None:
    assert Unreachable not in WIRE_ERRORS.values()
    assert DeadlineExceeded in WIRE_ERRORS.values()
