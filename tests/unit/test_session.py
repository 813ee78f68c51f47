"""The state of a client, apart from sockets."""

from __future__ import annotations

import time

from backwater_tornado.options import CallOptions
from backwater_tornado.protocol.calling import Attempt, Outgoing
from backwater_tornado.protocol.keys import Key, KeyRing
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
