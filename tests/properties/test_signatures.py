from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.errors import BackwaterError, CallFailed, Refused, Unverified
from backwater_tornado.protocol.headers import (
    accepted_media_types,
    decode_bytes,
    dictionary_members,
    encode_bytes,
    media_type_of,
    parse_call_key,
    parse_timeout,
    parse_traceparent,
)
from backwater_tornado.protocol.keys import Key, KeyRing
from backwater_tornado.protocol.signatures import (
    RequestHead,
    read_parameters,
    sign_response,
    verify_request,
    verify_response,
)
from tests.wire import KEY, NOW, OTHER_KEY, STREAM, fields_of, sign_again, signed, with_members

HMAC = Key(b"s" * 32, "hmac", algorithm="hmac-sha256")
RING = KeyRing([KEY, OTHER_KEY, HMAC])
NONCE = f"{STREAM}.1"

keys = st.sampled_from([KEY, OTHER_KEY, HMAC])
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
#: Optional fields in any order: which of them there are is itself covered.
extras = st.dictionaries(
    st.sampled_from(["content_encoding", "idempotency_key", "backwater_timeout", "accept", "traceparent"]), values
)
#: What the quick brown fox would not send: pieces of signatures, in any order, with anything between.
pieces = st.sampled_from(
    ["bw", "=", "(", ")", '"', "\\", ",", ";", ":", " ", "\n", "@method", '"@path"', "created", "1", "keyid", '"test"']
)
odd_text = st.one_of(
    st.text(max_size=50), st.lists(pieces, max_size=25).map("".join), st.text("\ud800\udc80é\n", max_size=5)
)


def response(head: RequestHead, key: Key, status: int, body: str, nonce: str = NONCE) -> dict[str, str]:
    given_fields = {"content-type": "application/msgpack", "content-digest": body}
    written = sign_response(key, head, status, given_fields, created=int(NOW), nonce=nonce)
    return {**given_fields, "signature-input": written[0], "signature": written[1]}


def swap_parts(text: str, first: int, second: int) -> str:
    """The Signature-Input with two covered components exchanged."""
    inner, bracket, rest = text[len("bw=(") :].partition(")")
    parts = inner.split(" ")
    first, second = first % len(parts), second % len(parts)
    parts[first], parts[second] = parts[second], parts[first]
    return f"bw=({' '.join(parts)}{bracket}{rest}"


@given(keys, extras, st.text("abc/%20", max_size=9), st.text("ab=&", max_size=9))
def test_what_is_signed_verifies_and_hands_out_all_that_is_covered(
    key: Key, more: dict[str, str], path: str, query: str
) -> None:
    fields = fields_of(**more)
    head = sign_again(with_members(signed(fields, key), path=f"/{path}", query=query), key)
    assert verify_request(head, RING, NOW, 300.0).fields == fields


@given(keys, extras, st.data())
def test_any_changed_character_of_a_request_is_noticed(key: Key, more: dict[str, str], data: st.DataObject) -> None:
    head = signed(fields_of(**more), key)
    parts = ["method", "authority", "path", "query", *head.fields]
    part = data.draw(st.sampled_from(parts))
    text = head.fields[part] if part in head.fields else getattr(head, part)
    at = data.draw(st.integers(0, len(text)))
    char = data.draw(st.characters(exclude_characters=text[at : at + 1] or None))
    # Either in place of a character or in front of it.
    changed = text[:at] + char + text[at + data.draw(st.integers(0, 1)) :]
    if changed == text or changed.strip() == text:
        return
    altered = (
        with_members(head, fields={**head.fields, part: changed})
        if part in head.fields
        else with_members(head, **{part: changed})
    )
    with pytest.raises(Refused):
        verify_request(altered, RING, NOW, 300.0)


@given(keys, extras, st.data())
def test_a_dropped_field_is_noticed(key: Key, more: dict[str, str], data: st.DataObject) -> None:
    head = signed(fields_of(**more), key)
    name = data.draw(st.sampled_from(list(head.fields)))
    altered = with_members(head, fields={each: value for each, value in head.fields.items() if each != name})
    with pytest.raises(Refused):
        verify_request(altered, RING, NOW, 300.0)


@given(extras, st.sampled_from(["content-encoding", "idempotency-key", "backwater-timeout"]), values)
def test_an_added_field_that_matters_is_noticed(more: dict[str, str], name: str, value: str) -> None:
    head = signed(fields_of(**{each: text for each, text in more.items() if each.replace("_", "-") != name}))
    with pytest.raises(Refused):
        verify_request(with_members(head, fields={**head.fields, name: value}), RING, NOW, 300.0)


@given(extras, values)
def test_an_added_field_that_does_not_matter_is_not_handed_out(more: dict[str, str], value: str) -> None:
    head = signed(fields_of(**more))
    got = verify_request(with_members(head, fields={**head.fields, "x-other": value}), RING, NOW, 300.0)
    assert "x-other" not in got.fields


@given(keys, extras, st.integers(0, 20), st.integers(0, 20))
def test_a_reordered_list_is_noticed(key: Key, more: dict[str, str], first: int, second: int) -> None:
    head = signed(fields_of(**more), key)
    text = head.fields["signature-input"]
    swapped = swap_parts(text, first, second)
    if swapped == text:
        return
    with pytest.raises(Refused):
        verify_request(with_members(head, fields={**head.fields, "signature-input": swapped}), RING, NOW, 300.0)


@given(keys, st.integers(0, 255), st.data())
def test_any_flipped_bit_of_the_mac_is_noticed(key: Key, bit: int, data: st.DataObject) -> None:
    head = signed(key=key)
    mac = bytearray(verify_request(head, RING, NOW, 300.0).signature)
    mac[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        fields = {**head.fields, "signature": f"bw={encode_bytes(bytes(mac))}"}
        verify_request(with_members(head, fields=fields), RING, NOW, 300.0)


# Responses -----------------------------------------------------------------------------------------------------------


@given(keys, st.sampled_from([200, 404, 500]), values, st.data())
def test_any_changed_character_of_a_response_is_noticed(key: Key, status: int, body: str, data: st.DataObject) -> None:
    head = signed(key=key)
    fields = response(head, key, status, body)
    verify_response(key, head, NONCE, status, fields)
    name = data.draw(st.sampled_from(list(fields)))
    text = fields[name]
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters(exclude_characters=text[at]))
    changed = text[:at] + char + text[at + 1 :]
    if changed.strip() == text.strip():
        return
    for altered, told in (({**fields, name: changed}, status), (fields, status + 1)):
        with pytest.raises(Unverified):
            verify_response(key, head, NONCE, told, altered)


@given(keys, st.data())
def test_a_response_never_verifies_for_another_request(key: Key, data: st.DataObject) -> None:
    """Not even when the other request has the same nonce."""
    paths = st.text("ab/", min_size=1, max_size=3)
    create = st.builds(
        lambda path, created, other: signed(fields_of(**other), key, path=path, created=created),
        paths,
        st.integers(1, 4),
        extras,
    )
    mine, other = data.draw(create), data.draw(create)
    if (mine.path, mine.fields["signature"]) == (other.path, other.fields["signature"]):
        return
    with pytest.raises(Unverified):
        verify_response(key, mine, NONCE, 200, response(other, key, 200, "x"))


# Anything at all -----------------------------------------------------------------------------------------------------


@given(odd_text, odd_text, odd_text, odd_text)
def test_reading_anything_raises_nothing_but_our_errors(method: str, path: str, name: str, value: str) -> None:
    good = signed()
    for fields in (
        {"signature-input": name, "signature": value},
        {**good.fields, "signature-input": "bw=" + name, "signature": "bw=:aGk=:"},
        {**good.fields, "signature-input": f'bw=("{name}");created=1;keyid="test"', "signature": f"bw=:{value}:"},
        {**good.fields, name: value, "content-type": value},
    ):
        for attempt in (
            lambda fields=fields: read_parameters(fields),
            lambda fields=fields: verify_request(
                with_members(good, method=method, path=path, fields=fields), RING, NOW, 300.0
            ),
            lambda fields=fields: verify_response(KEY, good, NONCE, 200, fields),
        ):
            with suppress(CallFailed):
                attempt()


@given(odd_text)
def test_parsing_any_field_raises_nothing_but_our_errors(text: str) -> None:
    for parse in (
        decode_bytes,
        lambda each: list(dictionary_members(each)),
        accepted_media_types,
        media_type_of,
        parse_traceparent,
        parse_timeout,
        parse_call_key,
    ):
        with suppress(BackwaterError):
            parse(text)  # type: ignore[operator]
