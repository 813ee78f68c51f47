from __future__ import annotations

import pytest

from backwater_tornado.errors import (
    KeyNotValid,
    ResponseAltered,
    ResponseMismatched,
    ResponseUnsigned,
    SignatureFromFuture,
    SignatureIncomplete,
    SignatureInvalid,
    SignatureMalformed,
    SignatureMissing,
    SignatureStale,
    UnknownKey,
)
from backwater_tornado.protocol.headers import encode_bytes
from backwater_tornado.protocol.keys import Key, KeyRing
from backwater_tornado.protocol.signatures import (
    MAX_COVERED,
    Parameters,
    RequestHead,
    Verified,
    _missing_coverage,
    _read_components,
    check_freshness,
    covered_fields,
    normal_authority,
    read_parameters,
    sign_response,
    verify_request,
    verify_response,
)
from tests.wire import KEY, NOW, OTHER_KEY, STREAM, fields_of, sign_again, signed, with_fields, with_members

NONCE = f"{STREAM}.1"
RING = KeyRing([OTHER_KEY, KEY])
COVERED = '"@method" "@authority" "@path" "@query" "content-type" "content-length" "content-digest"'
PARAMS = f';created={int(NOW)};expires={int(NOW) + 60};nonce="{NONCE}";keyid="test"'
MAC = ":AAAA:"


def verify(head: RequestHead, now: float = NOW) -> Verified:
    return verify_request(head, RING, now, 300.0)


def made(covered: str = COVERED, params: str = PARAMS, *, key: Key = KEY, **fields: str) -> RequestHead:
    """A head whose Signature-Input is as given, with the MAC that it needs as RFC 9421 says, 2.5."""
    head = RequestHead("POST", "host:8080", "/backwater/2/tasks/add", "", fields_of(**fields))
    derived = {"@method": "POST", "@authority": "host:8080", "@path": head.path, "@query": "?"}
    values = {**head.fields, **derived}
    names = [part.strip('"') for part in covered.split(" ") if part]
    lines = [f'"{name}": {values.get(name, "")}' for name in names]
    base = "\n".join([*lines, f'"@signature-params": ({covered}){params}'])
    signature = encode_bytes(key.mac_request(base.encode()))
    return with_fields(head, signature_input=f"bw=({covered}){params}", signature=f"bw={signature}")


# Requests that are accepted


def test_a_signed_request_is_verified() -> None:
    verified = verify(signed())
    assert verified.key is KEY
    assert verified.parameters.nonce == NONCE
    assert (verified.parameters.created, verified.parameters.expires) == (int(NOW), int(NOW) + 60)
    assert len(verified.signature) == 32


def test_the_signed_text_is_that_of_rfc_9421() -> None:
    assert signed() == made()


def test_only_covered_fields_are_handed_out() -> None:
    head = with_fields(signed(fields_of(accept="application/json")), traceparent="x", accept_encoding="zstd")
    assert set(verify(head).fields) == {"content-type", "content-length", "content-digest", "accept"}


def test_components_may_stand_in_any_order_and_algorithm_and_tag_may_be_named() -> None:
    covered = " ".join(reversed(COVERED.split(" ")))
    assert verify(made(covered, f'{PARAMS};alg="blake2b-256";tag="x"')).parameters.alg == "blake2b-256"


def test_an_hmac_key_verifies() -> None:
    key = Key(b"s" * 32, "hmac", algorithm="hmac-sha256")
    assert verify_request(signed(key=key), KeyRing([key]), NOW, 300.0).key is key


@pytest.mark.parametrize("order", [("bw", "proxy"), ("proxy", "bw")])
def test_signatures_with_other_labels_are_passed_over(order: tuple[str, str]) -> None:
    head = signed()
    inputs = {"bw": head.fields["signature-input"], "proxy": 'proxy=("@method" "a,b");created=1;note="bw=(),x"'}
    macs = {"bw": head.fields["signature"], "proxy": "proxy=:aGk=:"}
    several = with_fields(
        head,
        signature_input=", ".join(inputs[label] for label in order),
        signature=" , ".join(macs[label] for label in order),
    )
    assert verify(several).key is KEY


def test_a_key_id_may_have_brackets_and_commas() -> None:
    key = Key(b"s" * 32, "a),bw=(b;c=:d:")
    assert verify_request(signed(key=key), KeyRing([key]), NOW, 300.0).key is key


# Requests that are refused: no signature, or one that cannot be read


@pytest.mark.parametrize("name", ["signature", "signature-input"])
def test_without_one_of_its_two_fields_a_signature_is_missing(name: str) -> None:
    head = signed()
    fields = {each: value for each, value in head.fields.items() if each != name}
    with pytest.raises(SignatureMissing, match="not signed"):
        verify(with_members(head, fields=fields))


@pytest.mark.parametrize("label", ["bw2", "BW", "b", "sig1", "bw "])
def test_a_signature_with_another_label_is_missing(label: str) -> None:
    head = signed()
    fields = {
        "signature_input": label + head.fields["signature-input"][2:],
        "signature": label + head.fields["signature"][2:],
    }
    with pytest.raises(SignatureMissing, match="label bw"):
        verify(with_fields(head, **fields))


@pytest.mark.parametrize("name", ["signature_input", "signature"])
def test_two_signatures_with_our_label_are_refused(name: str) -> None:
    head = signed()
    value = head.fields[name.replace("_", "-")]
    with pytest.raises(SignatureMalformed, match="two signatures"):
        verify(with_fields(head, **{name: f"{value}, {value}"}))


@pytest.mark.parametrize("mac", ["bw", "bw=", "bw=aGk=", "bw=:aGk:", 'bw=":aGk=:"', "bw=:aGk=:;a=1", "bw=:aGk=: "])
def test_a_signature_is_a_byte_sequence(mac: str) -> None:
    with pytest.raises(SignatureMalformed, match="byte sequence"):
        verify(with_fields(signed(), signature=mac))


@pytest.mark.parametrize("text", ["bw", "bw=", "bw=(", 'bw=("@method"', 'bw="@method")', "bw=:aGk=:", "bw=1", "bw=?1"])
def test_a_signature_input_begins_with_a_list(text: str) -> None:
    with pytest.raises(SignatureMalformed, match="list of components"):
        verify(with_fields(signed(), signature_input=text))


@pytest.mark.parametrize(
    "params",
    [
        f"{PARAMS};created=1",
        f"{PARAMS};tag",
        f"{PARAMS};tag=?1",
        f"{PARAMS};tag=token",
        f"{PARAMS};tag=:aGk=:",
        f"{PARAMS};tag=1.5",
        f"{PARAMS};created=-1",
        f"{PARAMS};expires=1234567890123456",
        f"{PARAMS};expires=١",
        f"{PARAMS};TAG=1",
        f'{PARAMS};tag="a"b"',
        rf'{PARAMS};tag="a\"b"',
        rf'{PARAMS};tag="a\\"',
        f'{PARAMS};tag="é"',
        f'{PARAMS};tag="a\n"',
        f'{PARAMS};tag="a',
        f"{PARAMS} ",
        f"{PARAMS};",
        f" {PARAMS}",
        PARAMS.replace(";", "; "),
        f"{PARAMS})",
    ],
)
def test_parameters_in_another_form_are_refused(params: str) -> None:
    with pytest.raises(SignatureMalformed, match="cannot be read at character"):
        verify(made(params=params))


@pytest.mark.parametrize(
    "params",
    [
        f"{PARAMS};other=1",
        f'{PARAMS};alg="blake2b-256";x="y"',
        PARAMS.replace(f"created={int(NOW)}", f'created="{int(NOW)}"'),
        PARAMS.replace('keyid="test"', "keyid=7"),
        PARAMS.replace(f'nonce="{NONCE}"', "nonce=7"),
        f"{PARAMS};alg=1",
        f"{PARAMS};tag=1",
    ],
)
def test_unknown_parameters_and_kinds_are_refused(params: str) -> None:
    with pytest.raises(SignatureMalformed, match="unknown or of the wrong kind"):
        verify(made(params=params))


@pytest.mark.parametrize("params", [f';created={int(NOW)};nonce="x"', ';keyid="test"', ""])
def test_created_and_keyid_are_needed(params: str) -> None:
    with pytest.raises(SignatureMalformed, match="needs the parameters created and keyid"):
        verify(made(params=params))


# Requests that are refused: key


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(UnknownKey):
        verify(signed(key=Key(b"s" * 32, "nobody")))


def test_a_retired_key_is_refused() -> None:
    key = Key(b"s" * 32, "old", not_after=NOW - 1)
    with pytest.raises(KeyNotValid):
        verify_request(signed(key=key), KeyRing([key]), NOW, 300.0)


def test_a_key_not_valid_yet_is_accepted_within_the_tolerance() -> None:
    key = Key(b"s" * 32, "new", not_before=NOW + 299)
    assert verify_request(signed(key=key), KeyRing([key]), NOW, 300.0).key is key


def test_an_algorithm_that_is_not_the_keys_is_refused() -> None:
    with pytest.raises(SignatureMalformed, match="the key signs with blake2b-256"):
        verify(made(params=f'{PARAMS};alg="hmac-sha256"'))


# Requests that are refused: coverage


@pytest.mark.parametrize("name", COVERED.replace('"', "").split(" "))
def test_every_request_covers_the_fixed_set(name: str) -> None:
    covered = " ".join(part for part in COVERED.split(" ") if part != f'"{name}"')
    with pytest.raises(SignatureIncomplete, match=f"does not cover {name}"):
        verify(made(covered))


@pytest.mark.parametrize("name", ["content-encoding", "idempotency-key", "backwater-timeout"])
def test_a_field_that_is_acted_on_is_covered_where_it_is_present(name: str) -> None:
    with pytest.raises(SignatureIncomplete, match=f"does not cover {name}"):
        verify(made(**{name.replace("-", "_"): "x"}))
    verify(made(f'{COVERED} "{name}"', **{name.replace("-", "_"): "x"}))


def test_an_empty_list_covers_nothing() -> None:
    with pytest.raises(SignatureIncomplete):
        verify(made(""))


@pytest.mark.parametrize("name", ["accept", "@status", "@target-uri", "@signature-params"])
def test_what_the_request_does_not_have_cannot_be_covered(name: str) -> None:
    with pytest.raises(SignatureIncomplete, match=f"covers {name}, which"):
        verify(made(f'{COVERED} "{name}"'))


@pytest.mark.parametrize(
    "covered",
    [
        f'{COVERED} "content-type"',
        f'{COVERED} "content-type";sf',
        f'{COVERED} "@method";req',
        f'{COVERED} "Accept"',
        f'{COVERED} "a b"',
        f'{COVERED} "é"',
        f'{COVERED} ""',
        f'{COVERED} "accept',
        f"{COVERED} accept",
        f"{COVERED}  ",
        f" {COVERED}",
        COVERED.replace(" ", "  "),
        COVERED.replace(" ", "\t"),
        COVERED.replace(" ", ","),
        f"{COVERED} " + " ".join(f'"x{number}"' for number in range(26)),
    ],
)
def test_a_list_of_other_than_plain_distinct_names_is_refused(covered: str) -> None:
    with pytest.raises(SignatureMalformed, match="plain, distinct names"):
        verify(made(covered))


def test_up_to_32_components_are_read() -> None:
    names = [f"x{number}" for number in range(25)]
    covered = " ".join([COVERED, *(f'"{name}"' for name in names)])
    assert len(verify(made(covered, **dict.fromkeys(names, "1"))).fields) == 28


def test_expires_and_nonce_are_needed() -> None:
    for params in (PARAMS.replace(f";expires={int(NOW) + 60}", ""), PARAMS.replace(f';nonce="{NONCE}"', "")):
        with pytest.raises(SignatureIncomplete, match="expires and nonce"):
            verify(made(params=params))


def test_a_nonce_has_1_to_128_characters() -> None:
    for nonce in ("", "n" * 129):
        with pytest.raises(SignatureMalformed, match="between 1 and 128"):
            verify(made(params=PARAMS.replace(NONCE, nonce)))
    for nonce in ("n", "n" * 128):
        assert verify(made(params=PARAMS.replace(NONCE, nonce))).parameters.nonce == nonce


def test_a_long_list_is_refused_before_it_is_kept() -> None:
    kept = _read_components.cache_info().currsize, _missing_coverage.cache_info().currsize
    for number in range(20):
        covered = f'{COVERED} "{number}{"x" * MAX_COVERED}"'
        with pytest.raises(SignatureMalformed, match="plain, distinct names"):
            verify(made(covered))
    assert (_read_components.cache_info().currsize, _missing_coverage.cache_info().currsize) == kept


def test_the_longest_list_that_is_read() -> None:
    name = "x" * (MAX_COVERED - len(COVERED) - len('( "")'))
    verify(made(f'{COVERED} "{name}"', **{name: "1"}))
    with pytest.raises(SignatureMalformed):
        verify(made(f'{COVERED} "{name}x"', **{f"{name}x": "1"}))


def test_what_hostile_lists_leave_behind_is_bounded() -> None:
    for cache in (_read_components, _missing_coverage, covered_fields):
        assert (cache.cache_info().maxsize or 10**9) * MAX_COVERED < 2 << 20


# Requests that are refused: altered


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"authority": "host"},
        {"authority": "other:8080"},
        {"path": "/backwater/2/tasks/sub"},
        {"query": "x=1"},
    ],
)
def test_another_method_authority_path_or_query_is_noticed(change: dict[str, str]) -> None:
    with pytest.raises(SignatureInvalid):
        verify(with_members(signed(), **change))


@pytest.mark.parametrize(
    "name", ["content_type", "content_length", "content_digest", "idempotency_key", "backwater_timeout"]
)
def test_an_altered_field_is_noticed(name: str) -> None:
    head = signed(fields_of(idempotency_key='"a.1"', backwater_timeout="5"))
    with pytest.raises(SignatureInvalid):
        verify(with_fields(head, **{name: head.fields[name.replace("_", "-")] + "0"}))


def test_an_altered_parameter_is_noticed() -> None:
    head = signed()
    text = head.fields["signature-input"].replace(f"created={int(NOW)}", f"created={int(NOW) + 1}")
    with pytest.raises(SignatureInvalid):
        verify(with_fields(head, signature_input=text))


@pytest.mark.parametrize(
    "mac", ["bw=::", "bw=:AAAA:", f"bw={encode_bytes(bytes(32))}", f"bw={encode_bytes(bytes(33))}"]
)
def test_another_mac_is_noticed(mac: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(with_fields(signed(), signature=mac))


def test_another_secret_under_a_known_id_is_noticed() -> None:
    with pytest.raises(SignatureInvalid):
        verify(signed(key=Key(b"s" * 32, "test")))


def test_a_signature_by_one_key_is_none_by_another() -> None:
    head = signed()
    text = head.fields["signature-input"].replace('keyid="test"', 'keyid="other"')
    with pytest.raises(SignatureInvalid):
        verify(with_fields(head, signature_input=text))


@pytest.mark.parametrize(
    "value", ['application/json\n"@path": /other', "text/é", "\udc80", "application/json\n", "\u2028"]
)
def test_a_line_break_or_a_letter_beyond_ascii_never_gets_into_the_signed_text(value: str) -> None:
    with pytest.raises(SignatureMalformed, match="line break or a character beyond ASCII"):
        verify(with_fields(signed(), content_type=value))


@pytest.mark.parametrize("path", ["/a\n", "/\udcff", "/é"])
def test_the_same_holds_for_a_path(path: str) -> None:
    with pytest.raises(SignatureMalformed):
        verify(with_members(signed(), path=path))


# Freshness


def parameters(created: float = NOW, expires: float | None = NOW + 60) -> Parameters:
    return Parameters("", "", int(created), "test", None if expires is None else int(expires), "n")


@pytest.mark.parametrize("now", [NOW - 300, NOW, NOW + 300])
def test_a_signature_is_fresh_within_the_tolerance(now: float) -> None:
    check_freshness(parameters(), now, 300.0)


def test_a_signature_beyond_the_tolerance_is_stale_or_from_the_future() -> None:
    with pytest.raises(SignatureFromFuture, match="301 s in the future; 300 s are tolerated"):
        check_freshness(parameters(), NOW - 301, 300.0)
    with pytest.raises(SignatureStale, match="301 s ago"):
        check_freshness(parameters(), NOW + 301, 300.0)


def test_a_signature_that_has_expired_is_stale() -> None:
    check_freshness(parameters(NOW, NOW - 300), NOW, 300.0)
    with pytest.raises(SignatureStale):
        check_freshness(parameters(NOW, NOW - 301), NOW, 300.0)
    with pytest.raises(SignatureStale):
        check_freshness(parameters(NOW, None), NOW, 300.0)


# Responses

FIELDS = {"content-type": "application/msgpack", "content-length": "1", "content-digest": "sha-256=:aGk=:"}


def response(
    head: RequestHead | None = None, status: int = 200, key: Key = KEY, nonce: str = NONCE, **fields: str
) -> dict[str, str]:
    """The fields of a signed response."""
    given = {**FIELDS, **{name.replace("_", "-"): value for name, value in fields.items()}}
    written = sign_response(key, head or signed(), status, given, created=int(NOW) + 1, nonce=nonce)
    return {**given, "signature-input": written[0], "signature": written[1]}


def check(fields: dict[str, str], status: int = 200, head: RequestHead | None = None) -> Parameters:
    return verify_response(KEY, head or signed(), NONCE, status, fields)


def made_response(covered: str, params: str | None = None, status: int = 200, **fields: str) -> dict[str, str]:
    """A response whose Signature-Input is as given, with a fitting MAC wherever there can be one."""
    head, given = signed(), {**FIELDS, **fields}
    params = ';created=1;nonce="1";keyid="test"' if params is None else params
    values = {
        '"@status"': str(status),
        '"@method";req': head.method,
        '"@path";req': head.path,
        '"signature";req': head.fields["signature"],
        **{f'"{name}"': value for name, value in given.items()},
    }
    lines = [f"{part}: {values.get(part, '')}" for part in covered.split(" ")]
    base = "\n".join([*lines, f'"@signature-params": ({covered}){params}'])
    mac = encode_bytes(KEY.mac_response(base.encode()))
    return {**given, "signature-input": f"bw=({covered}){params}", "signature": f"bw={mac}"}


ALL = '"@status" "content-type" "content-digest" "@method";req "@path";req "signature";req'


def test_a_signed_response_is_verified() -> None:
    assert check(response()).created == int(NOW) + 1


def test_the_signed_text_of_a_response_is_that_of_rfc_9421() -> None:
    assert check(made_response(ALL)).covered == f"({ALL})"
    head = signed()
    covered, mac = sign_response(KEY, head, 200, FIELDS, created=1, nonce=NONCE)
    assert {"signature-input": covered, "signature": mac, **FIELDS} == made_response(ALL)


def test_a_response_may_have_more_fields() -> None:
    check({**response(), "date": "today", "via": "1.1 proxy"})


@pytest.mark.parametrize("name", ["signature", "signature-input"])
def test_a_response_without_a_signature_is_unsigned(name: str) -> None:
    fields = response()
    del fields[name]
    with pytest.raises(ResponseUnsigned, match="not signed"):
        check(fields)


def test_a_signature_of_a_response_that_cannot_be_read_is_told_as_an_alteration() -> None:
    with pytest.raises(ResponseAltered, match="cannot be read"):
        check({**response(), "signature": "bw=x"})


def test_a_response_by_another_key_is_unsigned() -> None:
    with pytest.raises(ResponseUnsigned, match="another key"):
        check(response(key=OTHER_KEY))


def test_a_response_with_another_nonce_answers_another_request() -> None:
    with pytest.raises(ResponseMismatched):
        check(response(nonce=f"{STREAM}.2"))
    with pytest.raises(ResponseMismatched):
        check(made_response(ALL, ';created=1;keyid="test"'))


def test_a_response_to_another_request_with_the_same_nonce_does_not_verify() -> None:
    for other in (signed(path="/backwater/2/tasks/sub"), signed(method="PUT"), signed(created=NOW + 1)):
        with pytest.raises(ResponseAltered, match="does not fit"):
            check(response(other))


def test_a_request_cannot_be_passed_off_as_a_response() -> None:
    head = signed()
    with pytest.raises(ResponseMismatched):
        check(dict(head.fields))
    with pytest.raises(ResponseAltered):
        check({**head.fields, "signature-input": head.fields["signature-input"].replace(NONCE, "1")})


@pytest.mark.parametrize("part", ALL.split(" "))
def test_a_response_covers_all_that_it_has_to(part: str) -> None:
    covered = " ".join(each for each in ALL.split(" ") if each != part)
    with pytest.raises(ResponseAltered, match="does not cover all"):
        check(made_response(covered))


@pytest.mark.parametrize("name", ["content-encoding", "retry-after", "allow"])
def test_a_response_covers_fields_that_matter_where_they_are_present(name: str) -> None:
    check(response(**{name.replace("-", "_"): "1"}))
    with pytest.raises(ResponseAltered, match="does not cover all"):
        check({**response(), name: "1"})


@pytest.mark.parametrize("covered", [f'{ALL} "content-type"', f'{ALL} "X"', f"{ALL} ", ALL.replace(" ", "  ")])
def test_a_list_of_a_response_that_cannot_be_read_is_refused(covered: str) -> None:
    with pytest.raises(ResponseAltered, match="does not cover all"):
        check(made_response(covered))


def test_a_long_list_of_a_response_is_refused_before_it_is_kept() -> None:
    kept = _read_components.cache_info().currsize, covered_fields.cache_info().currsize
    for number in range(20):
        name = f"{number}{'x' * MAX_COVERED}"
        with pytest.raises(ResponseAltered, match="does not cover all"):
            check(made_response(f'{ALL} "{name}"', **{name: ""}))
    assert (_read_components.cache_info().currsize, covered_fields.cache_info().currsize) == kept


def test_the_longest_list_of_a_response_that_is_read() -> None:
    name = "x" * (MAX_COVERED - len(ALL) - len('( "")'))
    for more, fits in (("", True), ("x", False)):
        response = made_response(ALL.replace('"@method"', f'"{name}{more}" "@method"'), **{name + more: ""})
        if fits:
            check(response)
        else:
            with pytest.raises(ResponseAltered, match="does not cover all"):
                check(response)


@pytest.mark.parametrize("part", ['"date"', '"@authority"', '"@status";req', '"content-type";req', '"date";sf'])
def test_a_response_covers_only_what_it_has(part: str) -> None:
    with pytest.raises(ResponseAltered, match="a field that is missing"):
        check(made_response(f"{ALL} {part}"))


@pytest.mark.parametrize("name", ["content-type", "content-digest"])
def test_an_altered_response_is_noticed(name: str) -> None:
    fields = response()
    with pytest.raises(ResponseAltered, match="does not fit"):
        check({**fields, name: fields[name] + "0"})


def test_another_status_is_noticed() -> None:
    with pytest.raises(ResponseAltered, match="does not fit"):
        check(response(), status=500)


@pytest.mark.parametrize("value", ["a\nb", "é", "\ud800"])
def test_a_line_break_or_a_letter_beyond_ascii_in_a_response_is_refused(value: str) -> None:
    with pytest.raises(ResponseAltered, match="line break or a character beyond ASCII"):
        check({**response(), "content-type": value})


def test_fields_that_matter_must_be_covered() -> None:
    names = ("content-type", "content-digest")
    assert covered_fields(f"({ALL})", names) is not None
    assert covered_fields(f"({ALL})", (*names, "allow")) is None


# Details of RFC 9421


@pytest.mark.parametrize(
    ("host", "scheme", "authority"),
    [
        ("Example.COM", "http", "example.com"),
        ("example.com:80", "http", "example.com"),
        ("example.com:443", "https", "example.com"),
        ("example.com:443", "http", "example.com:443"),
        ("example.com:80", "https", "example.com:80"),
        ("example.com:8080", "http", "example.com:8080"),
        ("[2001:DB8::1]:80", "http", "[2001:db8::1]"),
        ("[2001:db8::80]", "http", "[2001:db8::80]"),
    ],
)
def test_an_authority_is_in_lower_case_and_without_the_schemes_own_port(host: str, scheme: str, authority: str) -> None:
    assert normal_authority(host, scheme) == authority


def test_an_empty_query_is_a_question_mark() -> None:
    with_query = sign_again(with_members(signed(), query="a=1&b=%20"))
    assert verify(with_query).key is KEY
    with pytest.raises(SignatureInvalid):
        verify(with_members(with_query, query=""))


def test_parameters_are_written_in_their_canonical_form() -> None:
    assert signed().fields["signature-input"] == f"bw=({COVERED}){PARAMS}"


def test_parameters_are_read_with_their_own_text() -> None:
    found, mac = read_parameters({"signature-input": f"bw=({COVERED}){PARAMS}", "signature": f"bw={MAC}"})
    assert found.text == f"({COVERED}){PARAMS}"
    assert found.covered == f"({COVERED})"
    assert (found.keyid, found.alg, mac) == ("test", None, bytes(3))
