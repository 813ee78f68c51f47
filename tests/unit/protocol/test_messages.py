from __future__ import annotations

import msgspec
import pytest

from backwater_tornado.protocol.messages import Batch, Call, HttpRequest, HttpResponse


def test_a_call_has_no_bounds_and_no_identity_of_its_own() -> None:
    call = Call("tasks", "add", b"")
    assert (call.timeout, call.call_id, call.traceparent) == (None, None, None)


def test_a_batch_is_answered_at_once_unless_it_is_streamed() -> None:
    assert not Batch([]).streamed
    assert Batch([], streamed=True).streamed


@pytest.mark.parametrize(
    "message", [HttpRequest("http://host/", [], b""), HttpResponse(200, {}, b""), Call("m", "f", b""), Batch([])]
)
def test_messages_do_not_change(message: msgspec.Struct) -> None:
    for name in message.__struct_fields__:
        with pytest.raises(AttributeError, match="immutable"):
            setattr(message, name, None)
