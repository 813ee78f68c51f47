"""The state of a client, apart from sockets."""

from __future__ import annotations

import time

import pytest

from backwater_tornado.errors import (
    ErlangError,
    InvalidArguments,
    InvalidEndpoint,
    InvalidOption,
    ResponseUndecodable,
    UnknownFunction,
)
from backwater_tornado.options import CallOptions
from backwater_tornado.protocol.calling import Answer, Attempt, Outgoing
from backwater_tornado.protocol.erlang.encoding import encode_term
from backwater_tornado.protocol.erlang.http import digest_of
from backwater_tornado.protocol.erlang.sealing import ErlangSealer
from backwater_tornado.protocol.erlang.signatures import response_pseudo, sign
from backwater_tornado.protocol.erlang.terms import Atom, Charlist
from backwater_tornado.protocol.keys import Key, KeyRing
from backwater_tornado.protocol.messages import HttpResponse
from backwater_tornado.session import Session

OLD, NEW = Key(b"old secret, 16 bytes or more", "old"), Key(b"new secret, 16 bytes or more", "new")


def outgoing(number: int) -> Outgoing:
    return Outgoing(number, "tasks", "add", b"\x92\x90\x80", time.monotonic() + 10)


def signer(session: Session, call: Outgoing) -> str:
    return session.seal([Attempt(call, session.targets[0], fresh=call.key_id is not None)]).key.id


def test_a_call_is_signed_with_the_newest_valid_key() -> None:
    retired = Key(b"retired secret, 16 bytes", "retired", not_after=time.time() - 1)
    assert signer(Session("host", [OLD, NEW, retired], {}), outgoing(1)) == "new"


def test_another_attempt_keeps_the_key_of_the_first_over_a_rotation() -> None:
    session = Session("host", [OLD], {})
    first, second = outgoing(1), outgoing(2)
    assert signer(session, first) == "old"
    session.keys = KeyRing.of([OLD, NEW])
    assert signer(session, first) == "old"
    assert signer(session, second) == "new"


def test_a_key_that_is_gone_is_replaced() -> None:
    session = Session("host", [OLD], {})
    call = outgoing(1)
    assert signer(session, call) == "old"
    session.keys = KeyRing.of([NEW])
    assert signer(session, call) == "new"


def test_a_call_has_a_number_until_it_is_settled() -> None:
    session = Session("host", OLD, {})
    flow = session.calling("tasks", "add", [1], {}, CallOptions(timeout=5))
    attempt = next(flow)
    assert session.stream.draw()[1] == attempt.call.number
    flow.close()
    assert session.stream.draw()[1] == attempt.call.number + 1


def test_a_poll_says_how_long_it_waits_and_the_endpoint_that_is_asked_how_long_it_may() -> None:
    session = Session(["a", "b"], OLD, {})
    flow = session.calling("tasks", "add", [1], {}, CallOptions(waits=5.0))
    assert next(flow).call.waits == 5.0
    flow.close()
    first, second = session.targets
    for target, age in ((first, 2.0), (second, 4.0)):
        for now in (99.0, 1e9):
            target.patience.note_death(now - age, 6.0, now)
    assert session.patience(6.0) == pytest.approx(1.6)
    assert [each["longest_wait"] for each in session.endpoints()] == pytest.approx([1.6, 3.2])
    first.breaker.note_failure(0.0, 0.0, (9.0, 9.0), 0.5, unreachable=True)
    assert session.patience(6.0) == pytest.approx(3.2)
    second.breaker.note_failure(0.0, 0.0, (9.0, 9.0), 0.5, unreachable=True)
    assert session.patience(6.0) == pytest.approx(1.6)


# Wires


def erlang(endpoints: object = "erlang+http://host", **given: object) -> Session:
    return Session(endpoints, NEW, dict(given))


@pytest.mark.parametrize(
    ("endpoints", "given", "urls"),
    [
        ("erlang+http://host/base", {}, ["http://host/base"]),
        ("erlang+https://host", {}, ["https://host"]),
        (["erlang+http://a", "erlang+http://b"], {}, ["http://a", "http://b"]),
        ("http://host", {"wire": "erlang"}, ["http://host"]),
        (["erlang+http://a", ("b", 81)], {"wire": "erlang"}, ["http://a", "http://b:81"]),
    ],
)
def test_an_endpoint_or_an_option_says_that_it_speaks_version_1(
    endpoints: object, given: dict[str, object], urls: list[str]
) -> None:
    session = erlang(endpoints, **given)
    assert isinstance(session.sealer, ErlangSealer)
    assert [target.endpoint.url for target in session.targets] == urls
    assert session.calls_per_request == 1


@pytest.mark.parametrize("endpoints", [["erlang+http://a", "http://b"], ["http://a", "erlang+http://b"]])
def test_one_client_speaks_one_wire(endpoints: object) -> None:
    with pytest.raises(InvalidEndpoint, match="one wire"):
        erlang(endpoints)


@pytest.mark.parametrize("endpoint", ["erlang+", "erlang+ftp://a", "erlang+erlang+http://a", "Erlang+http://a"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidEndpoint):
        erlang(endpoint)


def test_a_media_type_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidOption, match="needs decode_unsafe_terms"):
        Session("host", NEW, {"media_type": "application/x-python-pickle"})


def result(value: object, **own: object) -> object:
    """What a call gives when the server returns that."""
    flow = erlang().calling("m", "f", [1], {}, CallOptions(**own))  # type: ignore[arg-type]
    attempt = next(flow)
    assert (attempt.call.arity, attempt.call.arguments) == (1, encode_term([1]))
    with pytest.raises(StopIteration) as stopped:
        flow.send(Answer(200, "application/x-erlang-etf", encode_term((Atom("return"), value))))
    return stopped.value.value


@pytest.mark.parametrize(
    ("value", "returns", "expected"),
    [
        (b"text", None, b"text"),
        (b"text", str, "text"),
        (b"text", bytes, b"text"),
        (Atom("ok"), str, "ok"),
        (Charlist("hi"), str, "hi"),
        ([104, 105], list[int], [104, 105]),
        ([104, 105], str, "hi"),
        ([], str, ""),
        ({b"k": [b"v"]}, dict[str, list[str]], {"k": ["v"]}),
        ((b"a", 1), tuple[str, int], ("a", 1)),
    ],
)
def test_a_term_is_a_text_where_one_is_wanted(value: object, returns: object, expected: object) -> None:
    assert result(value, returns=returns) == expected


def test_what_is_no_text_in_any_reading_is_refused() -> None:
    for value in (b"\xff", 7, [-1], [0xD800]):
        with pytest.raises(ResponseUndecodable, match="not what `returns` says: Expected `str`"):
            result(value, returns=str)


def test_erlang_has_no_named_arguments() -> None:
    session = erlang()
    with pytest.raises(InvalidArguments, match="no named arguments: x"):
        next(session.calling("m", "f", [], {"x": 1}, CallOptions()))
    assert session.counted()["calls"] == 0


def test_what_a_node_raises_is_raised_and_counted() -> None:
    session = erlang(rethrow_remote_exceptions=True)
    told = encode_term((Atom("exception"), (Atom("exit"), Atom("normal"), [])))
    flow = session.calling("m", "f", [], {}, CallOptions())
    next(flow)
    with pytest.raises(ErlangError, match="exit: normal"):
        flow.send(Answer(200, "application/x-erlang-etf", told))
    told = encode_term((Atom("exception"), (Atom("error"), (Atom("KeyError"), b"x"), [])))
    flow = session.calling("m", "f", [], {}, CallOptions())
    next(flow)
    with pytest.raises(KeyError, match="x"):
        flow.send(Answer(200, "application/x-erlang-etf", told))
    assert session.counted()["failures"] == 2


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_node_does_not_remember_so_only_what_may_run_twice_is_repeated(idempotent: bool) -> None:
    flow = erlang().calling("m", "f", [], {}, CallOptions(idempotent=idempotent))
    assert next(flow).call.repeatable is idempotent
    assert next(Session("host", NEW, {}).calling("m", "f", [], {}, CallOptions())).call.repeatable


def test_a_refusal_is_told_in_the_words_of_version_1() -> None:
    flow = erlang().calling("m", "f", [], {}, CallOptions())
    next(flow)
    with pytest.raises(UnknownFunction, match="answered 404: function_not_found"):
        flow.send(Answer(404, "text/plain", b"function_not_found"))


def test_a_signed_answer_says_nothing_of_a_clock() -> None:
    session = erlang()
    target = session.targets[0]
    sealed = session.seal([Attempt(outgoing(1), target, fresh=False)])
    fields = {"content-type": "text/plain", "digest": digest_of(b"x"), "x-request-id": sealed.nonce}
    fields["signature"], _ = sign(NEW, response_pseudo(400), fields)
    assert session.open(sealed, target, HttpResponse(400, fields, b"x")).body == b"x"
    assert target.offset == 0.0
