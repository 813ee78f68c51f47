from __future__ import annotations

import inspect
import pickle
import re

import pytest

from backwater_tornado import errors
from backwater_tornado.errors import (
    WIRE_ERRORS,
    BackwaterError,
    CallFailed,
    Refused,
    RemoteError,
    StoreError,
    TaskError,
)
from backwater_tornado.protocol.problems import describe, rebuild

LINE = re.compile(r"    (?P<indent>[ │]*)(?:[├└]── )?(?P<names>[A-Z]\w+(?:, [A-Z]\w+)*)(?: \((?P<base>\w+)\))?(?: .*)?")
CLASSES = {
    name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, BackwaterError)
}


def written_tree() -> dict[str, tuple[str, ...]]:
    """The bases of each class as the docstring draws them."""
    assert errors.__doc__ is not None
    found: dict[str, tuple[str, ...]] = {}
    above: dict[int, str] = {}
    for line in errors.__doc__.partition("::\n")[2].partition("\nRule:")[0].splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            assert not line.strip() or "one class per code" in line, line
            continue
        depth = len(match["indent"]) // 4 + ("── " in line)
        for name in match["names"].split(", "):
            above[depth] = name
            found[name] = tuple(base for base in (above.get(depth - 1, "Exception"), match["base"]) if base)
    return found


def test_the_tree_that_is_drawn_is_the_tree_that_is() -> None:
    real = {
        name: tuple(base.__name__ for base in kind.__bases__)
        for name, kind in CLASSES.items()
        if not (issubclass(kind, Refused) and kind is not Refused)
    }
    assert written_tree() == real


def test_every_refusal_is_directly_below_refused_or_one_of_the_brokers() -> None:
    for kind in CLASSES.values():
        if issubclass(kind, Refused) and kind is not Refused:
            assert kind.__bases__ in ((Refused,), (StoreError,))


def test_every_code_is_unique_and_spelt_plainly() -> None:
    codes = [kind.__dict__["code"] for kind in CLASSES.values() if issubclass(kind, CallFailed)]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_every_class_that_may_fail_a_call_has_a_title_of_its_own() -> None:
    titles = [kind.__dict__["title"] for kind in CLASSES.values() if issubclass(kind, CallFailed)]
    assert len(set(titles)) == len(titles)


def test_the_table_has_every_refusal_and_what_a_server_may_tell_beside() -> None:
    beside = {"outcome_unknown", "deadline_exceeded", "result_unserializable", "result_too_large", "internal_error"}
    refusals = {kind.code for kind in CLASSES.values() if issubclass(kind, Refused | TaskError)}
    assert set(WIRE_ERRORS) == refusals | beside | {"remote_exception"}
    assert all(kind.code == code for code, kind in WIRE_ERRORS.items())


def test_every_class_of_the_table_has_an_http_status_of_a_failure() -> None:
    assert all(400 <= kind.status < 600 for kind in WIRE_ERRORS.values())


@pytest.mark.parametrize("code", WIRE_ERRORS)
def test_every_code_comes_back_as_its_class(code: str) -> None:
    kind = WIRE_ERRORS[code]
    for error in (kind(), kind("why"), kind("why", more=1)):
        got = rebuild(describe(error), error.status)
        assert type(got) is kind
        assert (got.detail, dict(got.extra) if kind is not RemoteError else {}) == (
            error.detail,
            dict(error.extra) if kind is not RemoteError else {},
        )


def test_an_error_without_a_word_says_its_title() -> None:
    assert Refused().detail == Refused.title
    assert str(Refused("no")) == "no"


def test_an_error_keeps_its_extra_members() -> None:
    assert Refused("no", limit=7).extra == {"limit": 7}
    assert Refused().extra == {}


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ({}, "Exception"),
        ({"type": "E"}, "E"),
        ({"type": "E", "message": "no"}, "E: no"),
        ({"detail": "why", "type": "E", "message": "no"}, "why"),
    ],
)
def test_a_remote_error_says_type_and_text(given: dict[str, str], detail: str) -> None:
    error = RemoteError(**given)  # type: ignore[arg-type]
    assert error.detail == detail
    assert (error.traceback, error.exception_args) == (None, None)


def test_a_remote_error_keeps_what_is_known_of_the_exception() -> None:
    error = RemoteError(type="E", message="no", traceback="T", exception_args=(1,), more=2)
    assert (error.type, error.message, error.traceback, error.exception_args) == ("E", "no", "T", (1,))
    assert error.extra == {"more": 2}


def test_what_may_be_tried_again_by_itself() -> None:
    assert {kind.code for kind in CLASSES.values() if issubclass(kind, CallFailed) and kind.retryable} == {
        "storage_failed",
        "unreachable",
        "unverified",
        "response_unsigned",
        "response_altered",
        "response_mismatched",
        "signature_stale",
        "signature_from_future",
        "replayed",
        "memory_full",
        "digest_mismatch",
        "draining",
        "overloaded",
    }


def test_the_bases_that_other_code_knows() -> None:
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.Unserializable, TypeError)
    assert issubclass(errors.Unreachable, ConnectionError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)


@pytest.mark.parametrize("error_class", ["error", "exit", "throw"])
def test_an_erlang_error_has_what_erlang_raises(error_class: str) -> None:
    error = errors.ErlangError(reason=("badarg", 1), error_class=error_class, stack=[1, 2])
    assert str(error) == f"{error_class}: ('badarg', 1)"
    assert (error.error_class, error.reason, error.stack) == (error_class, ("badarg", 1), (1, 2))
    assert str(errors.ErlangError("text", reason=1)) == "text"
    assert errors.ErlangError(reason=1, type="KeyError").type == "KeyError"


def test_an_erlang_error_has_no_other_class() -> None:
    with pytest.raises(ValueError, match="error_class is error, exit or throw, not 'raise'"):
        errors.ErlangError(reason=1, error_class="raise")
    assert errors.ErlangError.code not in WIRE_ERRORS


def test_an_error_of_erlang_can_be_pickled() -> None:
    """As a pool of processes does with what its workers raise."""
    error = errors.ErlangError(reason=1, error_class="exit", stack=["frame"], type="exit", traceback="  frame")
    error.retry_after = 2.0
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.ErlangError
    assert (again.args, vars(again)) == (error.args, vars(error))
    assert again.__notes__ == ["The remote traceback:\n  frame"]
