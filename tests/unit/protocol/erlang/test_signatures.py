"""Version 1's signature: read, written, and what it has to cover."""

from __future__ import annotations

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backwater_tornado.protocol.erlang.signatures import (
    MAX_PARAMETERS,
    MAX_SIGNED,
    REQUEST_TARGET,
    RESPONSE_STATUS,
    SIGNED_IF_PRESENT,
    Signature,
    Unsigned,
    check_names,
    read_signature,
    request_pseudo,
    response_pseudo,
    sign,
    signing_text,
    trimmed,
    write_signature,
)
from backwater_tornado.protocol.keys import Key
from backwater_tornado.protocol.signatures import RequestHead, sign_request, sign_response
from tests.vectors.erlang import CAPTURED

GOOD = {"algorithm": '"hmac-sha256"', "headers": '"a b"', "keyId": '"default"', "signature": '"AAEC"'}
SECRET = bytes(range(32))


def written(**changes: str | None) -> str:
    return ",".join(f"{name}={value}" for name, value in {**GOOD, **changes}.items() if value is not None)


def word_of(parameters: str) -> str:
    with pytest.raises(Unsigned) as raised:
        read_signature(parameters)
    return raised.value.word


def test_a_signature_is_read_as_it_is_written() -> None:
    text = write_signature(["b", "(request-target)"], b"\0\1\2")
    assert text == 'algorithm="hmac-sha256",headers="b (request-target)",keyId="default",signature="AAEC"'
    assert read_signature(text) == Signature(("b", "(request-target)"), b"\0\1\2")


def test_a_signature_may_be_written_in_other_ways() -> None:
    expected = Signature(("a", "b"), b"\0\1\2")
    assert read_signature(",".join(reversed(written().split(",")))) == expected
    assert read_signature(f',,{written()},more="x=y",') == expected
    assert read_signature(written(headers='" a  b "')) == expected
    assert read_signature(written(headers='"c"') + ',headers="a b"') == expected


def test_without_a_mac_it_is_one_that_never_fits() -> None:
    assert read_signature(written(signature=None)).mac == b""
    assert read_signature(written(signature='""')).mac == b""


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ("", "unknown_key"),
        (written(keyId=None), "unknown_key"),
        (written(keyId='"other"'), "unknown_key"),
        (written().replace(",", ", "), "unknown_key"),
        (written(algorithm=None), "unknown_algorithm"),
        (written(algorithm='"HMAC-SHA256"'), "unknown_algorithm"),
        (written(headers=None), "missing_signed_header_list"),
        (written(keyId="default"), "invalid_header_params"),
        (written(keyId='"'), "invalid_header_params"),
        (written(keyId='"default'), "invalid_header_params"),
        (written(keyId='default"'), "invalid_header_params"),
        (written() + ",alone", "invalid_header_params"),
        (written(signature='"AAE"'), "invalid_header_params"),
        (written(signature='"AA-_"'), "invalid_header_params"),
        (written(signature='"AAEC\n"'), "invalid_header_params"),
        (written(signature='"AAÉC"'), "invalid_header_params"),
        (written(signature='"A"'), "invalid_header_params"),
    ],
)
def test_what_is_wrong_with_parameters_is_named(parameters: str, word: str) -> None:
    assert word_of(parameters) == word


def test_parameters_have_a_longest_length() -> None:
    filled = written(headers='"' + "a" * (MAX_PARAMETERS - len(written(headers='""'))) + '"')
    assert len(filled) == MAX_PARAMETERS
    assert read_signature(filled).mac == b"\0\1\2"
    assert word_of(filled + ",") == "invalid_header_params"


# What it covers ------------------------------------------------------------------------------------------------------

FIELDS = {"digest": "d", "x-request-id": "r", "host": "h"}
NAMES = ("(request-target)", "digest", "x-request-id")


def refusal_of(names: tuple[str, ...], fields: dict[str, str]) -> str:
    with pytest.raises(Unsigned) as raised:
        check_names(names, REQUEST_TARGET, fields, SIGNED_IF_PRESENT)
    return raised.value.word


def test_enough_is_covered() -> None:
    check_names(NAMES, REQUEST_TARGET, FIELDS, SIGNED_IF_PRESENT)
    check_names((*NAMES[::-1], "host", "host"), REQUEST_TARGET, FIELDS, SIGNED_IF_PRESENT)
    check_names((*NAMES, "accept"), REQUEST_TARGET, {**FIELDS, "accept": "x"}, SIGNED_IF_PRESENT)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_mandatory_has_to_be_covered(name: str) -> None:
    names = tuple(each for each in NAMES if each != name)
    assert refusal_of(names, FIELDS) == f'{{missing_mandatory_header,<<"{name}">>}}'


def test_the_other_directions_pseudo_header_does_not_do() -> None:
    names = (RESPONSE_STATUS, *NAMES[1:])
    assert refusal_of(names, FIELDS) == '{missing_mandatory_header,<<"(request-target)">>}'
    assert refusal_of((*NAMES, RESPONSE_STATUS), FIELDS) == '{missing_header,<<"(response-status)">>}'


@pytest.mark.parametrize("name", SIGNED_IF_PRESENT)
def test_what_is_present_and_matters_has_to_be_covered(name: str) -> None:
    assert refusal_of(NAMES, {**FIELDS, name: "x"}) == f'{{missing_mandatorily_signed_header,<<"{name}">>}}'


def test_what_is_covered_has_to_be_there() -> None:
    assert refusal_of((*NAMES, "ghost"), FIELDS) == '{missing_header,<<"ghost">>}'
    assert refusal_of(NAMES, {"digest": "d"}) == '{missing_header,<<"x-request-id">>}'
    assert refusal_of((*NAMES, "é" + "x" * 200), FIELDS) == '{missing_header,<<"?' + "x" * 99 + '">>}'


def test_what_is_covered_has_a_longest_length() -> None:
    fields = {"digest": "", "x-request-id": "", "x": ""}
    most = MAX_SIGNED - sum(map(len, NAMES)) - 1
    check_names((*NAMES, "x"), REQUEST_TARGET, {**fields, "x": "v" * most}, ())
    assert refusal_of((*NAMES, "x"), {**fields, "x": "v" * (most + 1)}) == "invalid_header_params"
    # A field that is named often counts as often.
    assert refusal_of((*NAMES, *"xx"), {**fields, "x": "v" * (most // 2 + 1)}) == "invalid_header_params"


# What is signed ------------------------------------------------------------------------------------------------------


def test_the_signed_text_has_a_line_for_each_name() -> None:
    text = signing_text(["b", "(request-target)", "b"], request_pseudo("POST", "/P?"), {"b": " \t\v\f x é \r\n"})
    assert text == b"b: x \xe9\n(request-target): post /P?\nb: x \xe9"
    assert signing_text(["(response-status)"], response_pseudo(200), {}) == b"(response-status): 200"


def test_a_field_of_the_pseudo_headers_name_is_not_taken_for_it() -> None:
    assert signing_text([REQUEST_TARGET], request_pseudo("GET", "/"), {REQUEST_TARGET: "post /"}) == (
        b"(request-target): get /"
    )


def test_only_the_blanks_of_ascii_are_trimmed() -> None:
    assert trimmed(" \t\r\n\v\fa b \t") == "a b"
    assert trimmed("\xa0\x85a\x1f") == "\xa0\x85a\x1f"
    assert signing_text(["a"], ("p", ""), {"a": "\xa0b"}) == b"a: \xa0b"


def test_all_fields_are_signed_in_order() -> None:
    parameters, mac = sign(Key(SECRET), request_pseudo("POST", "/p"), {"b": "2", "a": "1"})
    assert mac == hmac.digest(SECRET, b"(request-target): post /p\na: 1\nb: 2", "sha256")
    assert read_signature(parameters) == Signature(("(request-target)", "a", "b"), mac)


@pytest.mark.parametrize("algorithm", ["blake2b-256", "hmac-sha256"])
def test_every_key_signs_in_the_one_way_that_version_1_knows(algorithm: str) -> None:
    key = Key(SECRET, algorithm=algorithm)  # type: ignore[arg-type]
    assert sign(key, response_pseudo(200), {})[1] == hmac.digest(SECRET, b"(response-status): 200", "sha256")


def test_genuine_messages_are_signed_like_that() -> None:
    captured = CAPTURED["ok_to_upper"]
    asked = {name.lower(): value for name, value in captured.asked.headers}
    signature = read_signature(asked["authorization"].removeprefix("Signature "))
    check_names(signature.names, REQUEST_TARGET, asked, SIGNED_IF_PRESENT)
    text = signing_text(signature.names, request_pseudo("POST", captured.asked.target), asked)
    assert hmac.digest(captured.secret, text, "sha256") == signature.mac
    answered = {name.lower(): value for name, value in captured.answered.headers}
    signature = read_signature(answered["signature"])
    check_names(signature.names, RESPONSE_STATUS, answered, SIGNED_IF_PRESENT)
    text = signing_text(signature.names, response_pseudo(200), answered)
    assert hmac.digest(captured.secret, text, "sha256") == signature.mac
    assert base64.b64encode(signature.mac).decode() in answered["signature"]


# Version 2 with the same secret --------------------------------------------------------------------------------------

_value = st.text(st.characters(min_codepoint=32, max_codepoint=126))
_fields = st.dictionaries(st.sampled_from(["digest", "x-request-id", '"@method"', '"@status"', "@query", "a"]), _value)


class _Recording(Key):
    """Keeps what it is asked to sign for version 2."""

    signed: bytes

    def mac_request(self, data: bytes) -> bytes:
        self.signed = data
        return super().mac_request(data)

    def mac_response(self, data: bytes) -> bytes:
        self.signed = data
        return super().mac_response(data)


@given(fields=_fields, path=_value, status=st.integers(100, 599))
def test_no_text_is_one_of_either_version(fields: dict[str, str], path: str, status: int) -> None:
    # Version 1 insists on a line that begins with its pseudo-header; in version 2 all lines begin with a quote, and
    # neither has values with line breaks in them.
    key = _Recording(SECRET, "test", algorithm="hmac-sha256")
    for pseudo in (request_pseudo("POST", path), response_pseudo(status)):
        lines = signing_text([pseudo[0], *fields], pseudo, fields).split(b"\n")
        assert lines[0].startswith((b"(request-target): ", b"(response-status): "))
    head = RequestHead("POST", "host", path, "", {**fields, "signature": "x"})
    sign_request(key, head, created=1, expires=2, nonce="n")
    assert all(line.startswith(b'"') for line in key.signed.split(b"\n"))
    sign_response(key, head, status, fields, created=1, nonce="n")
    assert all(line.startswith(b'"') for line in key.signed.split(b"\n"))
