from __future__ import annotations

import hmac
import traceback
from datetime import UTC, datetime

import pytest
from nacl.encoding import RawEncoder
from nacl.hash import blake2b

from backwater_tornado.errors import InvalidKey, KeyNotValid, UnknownKey
from backwater_tornado.protocol.keys import Key, KeyRing, Scopes, format_key, parse_keys

SECRET = b"correct horse battery staple"
OTHER = b"another secret, just as long"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()


def subkey(material: bytes, person: bytes) -> bytes:
    return blake2b(b"", digest_size=32, key=material, person=person.ljust(16, b"\0"), encoder=RawEncoder)


# Message authentication


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 128, b"z" * 100_000])
@pytest.mark.parametrize("secret", [b"s" * 16, b"s" * 64])
def test_blake2b_macs_are_those_of_nacl(secret: bytes, data: bytes) -> None:
    key = Key(secret)
    for mac, person in (
        (key.mac_request, b"bw2-request"),
        (key.mac_response, b"bw2-response"),
        (key.mac_frame, b"bw2-frame"),
    ):
        expected = blake2b(data, digest_size=32, key=subkey(secret, person), encoder=RawEncoder)
        assert mac(data) == expected
        assert mac(data) == expected  # the prepared state was copied, not used up


def test_a_secret_longer_than_a_blake2b_key_is_hashed_first() -> None:
    secret = b"s" * 65
    material = blake2b(secret, digest_size=64, encoder=RawEncoder)
    expected = blake2b(b"data", digest_size=32, key=subkey(material, b"bw2-request"), encoder=RawEncoder)
    assert Key(secret).mac_request(b"data") == expected


def test_blake2b_macs_stay_what_they_are() -> None:
    key = Key(bytes(range(32)))
    assert key.id == "k572e2a85c1cf"
    assert key.mac_request(b"data").hex() == "96de5a8b1c9c08d87a56932bc1b65458d09f0f75062ac38b12d20a9b54d82780"
    assert key.mac_response(b"data").hex() == "4ff7161a69606d42a548c75d8f10b54117182cba1c90a8db0ce7b5a2df951159"
    assert key.mac_frame(b"data").hex() == "d9dd740105484a9d65f6494c96b539e4e037e875ede469ebfab7ea618d16809e"


def test_hmac_keys_sign_requests_and_responses_with_the_secret_itself() -> None:
    key = Key(SECRET, algorithm="hmac-sha256")
    expected = hmac.new(SECRET, b"data", "sha256").digest()
    assert key.mac_request(b"data") == key.mac_response(b"data") == expected


def test_hmac_keys_sign_frames_with_a_subkey() -> None:
    frame = hmac.new(SECRET, b"bw2-frame", "sha256").digest()
    assert Key(SECRET, algorithm="hmac-sha256").mac_frame(b"data") == hmac.new(frame, b"data", "sha256").digest()


def test_each_direction_has_its_own_mac() -> None:
    key = Key(SECRET)
    assert len({key.mac_request(b"data"), key.mac_response(b"data"), key.mac_frame(b"data")}) == 3


def test_verify_tells_equal_from_different() -> None:
    assert Key.verify(b"same" * 8, b"same" * 8)
    assert not Key.verify(b"same" * 8, b"some" * 8)
    assert not Key.verify(b"same" * 8, b"same" * 7)


# One key


def test_a_text_secret_stands_for_its_utf_8_bytes() -> None:
    text = "Größe und Länge genügen"
    assert Key(text).id == Key(text.encode()).id
    assert Key(text).mac_request(b"data") == Key(text.encode()).mac_request(b"data")


def test_the_default_id_depends_on_the_secret_and_tells_nothing_else() -> None:
    first, second = Key(SECRET), Key(OTHER)
    assert first.id != second.id
    assert len(first.id) == 13
    assert first.id.startswith("k")
    assert first.id == Key(SECRET, algorithm="hmac-sha256").id


def test_a_secret_of_15_bytes_is_too_short() -> None:
    Key(b"s" * 16)
    with pytest.raises(InvalidKey, match="16 bytes or more, not 15"):
        Key(b"s" * 15)


def test_the_length_of_a_text_secret_counts_in_bytes() -> None:
    Key("ü" * 8)


@pytest.mark.parametrize("secret", [None, 1, bytearray(32), ["s" * 16], 1.5])
def test_a_secret_is_bytes_or_text(secret: object) -> None:
    with pytest.raises(InvalidKey, match="bytes or text"):
        Key(secret)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["", "é", 'a"b', "a\\b", "a\nb", "a" * 129, 5, b"k"])
def test_an_id_fits_into_a_header(id: object) -> None:
    with pytest.raises(InvalidKey, match="id must be"):
        Key(SECRET, id)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["site-1", "a" * 128, "https://dc1.example/keys#3", "[ok] ~!"])
def test_an_id_may_be_any_plain_text(id: str) -> None:
    assert Key(SECRET, id).id == id


@pytest.mark.parametrize("algorithm", ["hmac-sha512", "", None, []])
def test_an_unknown_algorithm_is_refused(algorithm: object) -> None:
    with pytest.raises(InvalidKey, match="blake2b-256, hmac-sha256"):
        Key(SECRET, algorithm=algorithm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "moment", [float("nan"), float("inf"), -float("inf"), 10**400, True, "2026", datetime.now(UTC)]
)
@pytest.mark.parametrize("name", ["not_before", "not_after"])
def test_a_moment_is_a_number_of_seconds(name: str, moment: object) -> None:
    with pytest.raises(InvalidKey, match=name):
        Key(SECRET, **{name: moment})  # type: ignore[arg-type]


def test_a_key_cannot_end_before_it_begins() -> None:
    Key(SECRET, not_before=5, not_after=5)
    with pytest.raises(InvalidKey, match="later than not_after"):
        Key(SECRET, not_before=6, not_after=5)


def test_scopes_must_be_scopes() -> None:
    with pytest.raises(InvalidKey, match="scopes"):
        Key(SECRET, scopes={"call": ["*"]})  # type: ignore[arg-type]


# Secrets stay secret


def shown(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc)) + repr(vars(exc)) + repr(exc.__cause__)


def test_the_secret_is_in_no_repr() -> None:
    key = Key("open-sesame-open-sesame", "site")
    for thing in (key, KeyRing([key]), [key]):
        assert "sesame" not in repr(thing) + str(thing)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize(
    "secret",
    ["sesame", b"sesame", "open-sesame-open-sesame\ud800", ["open-sesame-open-sesame"]],
)
def test_the_secret_is_in_no_error_of_a_key(secret: object) -> None:
    with pytest.raises(InvalidKey) as caught:
        KeyRing.of([secret])  # type: ignore[list-item]
    assert "sesame" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "text",
    [
        '[[key]]\nsecret = "sesame"',
        '[[key]]\nsecret = "hex:sesame-sesame-sesame"',
        '[[key]]\nsecret = "base64:sesame.sesame"',
        '[[key]]\nsecret = ["sesame"]',
        '[[key]]\nsecret = "open-sesame-open-sesame"\nalgorithm = 5',
        '[[key]]\nsecret = "open-sesame-open-sesame',
        "[[key]]\nsecret = open-sesame-open-sesame",
        '[[key]]\nsecret = "open-sesame-open-sesame"\nsecret = "open-sesame-open-sesame"',
    ],
)
def test_the_secret_is_in_no_error_of_a_file(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        parse_keys(text)
    assert "sesame" not in shown(caught.value).split("InvalidKey:")[-1]
    assert caught.value.__suppress_context__


# Scopes


@pytest.mark.parametrize(
    ("pattern", "module", "function", "allowed"),
    [
        ("*", "tasks.admin", "wipe", True),
        ("tasks.add", "tasks", "add", True),
        ("tasks.add", "tasks", "addd", False),
        ("tasks.add", "task", "add", False),
        ("tasks.*", "tasks", "add", True),
        ("tasks.*", "tasks.admin", "wipe", False),
        ("tasks.*", "tasksx", "add", False),
        ("tasks.admin.*", "tasks.admin", "wipe", True),
        ("tasks.*.*", "tasks.admin", "wipe", True),
        ("tasks.get_*", "tasks", "get_all", True),
        ("tasks.get_*", "tasks", "put_all", False),
        ("*.ping", "anything.at.all", "ping", True),
        ("*.ping", "anything", "pong", False),
        ("tasks.add", "Tasks", "add", False),
        ("tasks.ADD", "tasks", "add", False),
        ("tasks.add", "tasks", "add\n", False),
    ],
)
def test_a_call_pattern_allows_what_it_says(pattern: str, module: str, function: str, allowed: bool) -> None:
    assert Scopes(call=("none.here", pattern)).allows_call(module, function) is allowed


def test_scopes_allow_everything_by_default_and_nothing_when_empty() -> None:
    assert Scopes().allows_call("m", "f")
    assert Scopes().allows_publish("q")
    assert Scopes().allows_consume("q")
    nothing = Scopes((), (), ())
    assert not nothing.allows_call("m", "f")
    assert not nothing.allows_publish("q")
    assert not nothing.allows_consume("q")


def test_queues_are_matched_by_their_own_field() -> None:
    scopes = Scopes(publish=("site-a.*",), consume=("site-b.*",))
    assert scopes.allows_publish("site-a.jobs")
    assert not scopes.allows_publish("site-b.jobs")
    assert scopes.allows_consume("site-b.jobs")
    assert not scopes.allows_consume("SITE-B.jobs")


@pytest.mark.parametrize("patterns", ["tasks.*", b"*", None, [1], [""], {"*"}])
def test_patterns_come_as_a_list(patterns: object) -> None:
    with pytest.raises(InvalidKey, match=r"scopes\.publish must be a list"):
        Scopes(publish=patterns)  # type: ignore[arg-type]


def test_a_list_of_patterns_is_kept_as_a_tuple() -> None:
    patterns = ["tasks.add"]
    scopes = Scopes(call=patterns)  # type: ignore[arg-type]
    patterns.append("*")
    assert scopes.call == ("tasks.add",)


def test_a_call_pattern_without_a_dot_is_refused() -> None:
    with pytest.raises(InvalidKey, match=r"'tasks' must be 'module\.function'"):
        Scopes(call=("tasks",))


# Rings


@pytest.mark.parametrize(
    ("now", "valid"), [(89.9, False), (90.0, True), (100.0, True), (200.0, True), (200.1, False), (205.0, False)]
)
def test_a_key_is_accepted_a_little_early_and_never_late(now: float, valid: bool) -> None:
    key = Key(SECRET, "site", not_before=100, not_after=200)
    ring = KeyRing([key])
    if valid:
        assert ring.accept("site", now, 10.0) is key
    else:
        with pytest.raises(KeyNotValid, match="'site' is not valid"):
            ring.accept("site", now, 10.0)


def test_an_unknown_key_is_refused_and_named_within_bounds() -> None:
    ring = KeyRing([Key(SECRET, "site")])
    with pytest.raises(UnknownKey, match="'sites'"):
        ring.accept("sites", 0, 0)
    with pytest.raises(UnknownKey) as caught:
        ring.accept("\n" + "x" * 10_000, 0, 0)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_the_newest_valid_key_signs() -> None:
    old = Key(SECRET, "old", not_after=100)
    new = Key(OTHER, "new", not_before=50)
    ring = KeyRing([old, new])
    assert ring.signing_key(49.9) is old
    assert ring.signing_key(50) is new
    assert ring.signing_key(1000) is new
    assert KeyRing([old]).signing_key(100) is old
    with pytest.raises(InvalidKey, match="'old'"):
        KeyRing([old]).signing_key(100.1)
    with pytest.raises(InvalidKey, match="'new'"):
        KeyRing([new]).signing_key(49.9)


def test_a_ring_gives_its_keys_in_order() -> None:
    old, new = Key(SECRET, "old"), Key(OTHER, "new")
    ring = KeyRing(iter([old, new]))
    assert ring.ids == ("old", "new")
    assert list(ring) == [old, new]
    assert ring.get("old") is old
    assert ring.get("none") is None
    assert repr(ring) == "KeyRing('old', 'new')"


def test_ids_in_a_ring_are_unique() -> None:
    with pytest.raises(InvalidKey, match="two keys have the id 'site'"):
        KeyRing([Key(SECRET, "site"), Key(OTHER, "site")])


def test_one_secret_cannot_have_two_scopes() -> None:
    KeyRing([Key(SECRET, "a"), Key(SECRET, "b", algorithm="hmac-sha256")])
    with pytest.raises(InvalidKey, match="'a' and 'b' have one secret"):
        KeyRing([Key(SECRET, "a"), Key(SECRET, "b", scopes=Scopes(call=()))])


def test_a_ring_is_never_empty_and_holds_keys_only() -> None:
    with pytest.raises(InvalidKey, match="at least one key"):
        KeyRing([])
    with pytest.raises(InvalidKey, match="not bytes"):
        KeyRing([SECRET])  # type: ignore[list-item]


def test_a_ring_can_be_had_of_anything_that_stands_for_it() -> None:
    key = Key(SECRET)
    ring = KeyRing([key])
    assert KeyRing.of(ring) is ring
    assert list(KeyRing.of(key)) == [key]
    assert KeyRing.of(SECRET).ids == KeyRing.of(SECRET.decode()).ids == (key.id,)
    assert KeyRing.of([OTHER, key, "a third secret of some length"]).ids[1] == key.id
    assert KeyRing.of(one for one in (OTHER, SECRET)).ids[1] == key.id


@pytest.mark.parametrize("secret", [None, 5, bytearray(32), memoryview(b"s" * 32), {"a": SECRET}, []])
def test_a_ring_of_nonsense_is_refused(secret: object) -> None:
    with pytest.raises(InvalidKey):
        KeyRing.of(secret)  # type: ignore[arg-type]


# Files


def same(first: Key, second: Key) -> bool:
    names = ("id", "algorithm", "not_before", "not_after", "scopes")
    return first.mac_request(b"") == second.mac_request(b"") and all(
        getattr(first, name) == getattr(second, name) for name in names
    )


@pytest.mark.parametrize(
    "key",
    [
        Key(SECRET),
        Key(bytes(range(256)), "site 1", algorithm="hmac-sha256"),
        Key(b"\xff" * 32, not_before=NOON, not_after=NOON + 0.5),
        Key(SECRET, not_before=-1e14, not_after=1e14),
        Key(SECRET, not_before=0.1 + 0.2, not_after=1 / 3 + 10),
        Key(SECRET, scopes=Scopes(call=("a.b", "c.[!x]?"), publish=(), consume=('q"\\', "\n\x7f\U0001f511"))),
    ],
)
def test_a_formatted_key_is_parsed_into_itself(key: Key) -> None:
    (back,) = parse_keys(format_key(key))
    assert same(back, key)


def test_a_formatted_key_reads_well() -> None:
    key = Key(bytes(32), "site", not_before=NOON, scopes=Scopes(call=("tasks.*",)))
    assert format_key(key) == (
        "[[key]]\n"
        'id = "site"\n'
        'secret = "base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"\n'
        'algorithm = "blake2b-256"\n'
        "not_before = 2026-07-01T12:00:00+00:00\n"
        'scopes = { call = ["tasks.*"], publish = ["*"], consume = ["*"] }\n'
    )


@pytest.mark.parametrize(
    ("written", "secret"),
    [
        ("hex:" + SECRET.hex(), SECRET),
        ("hex:" + SECRET.hex().upper(), SECRET),
        ("base64:" + "-_-_" * 6, bytes.fromhex("fbffbf") * 6),
        ("base64:" + "+/+/" * 6, bytes.fromhex("fbffbf") * 6),
        ("base64:AAAAAAAAAAAAAAAAAAAAAA==", bytes(16)),
        ("base64:AAAAAAAAAAAAAAAAAAAAAA", bytes(16)),
        ("text:hex:0123456789abcdef", b"hex:0123456789abcdef"),
        ("a bare text: it is what it is", b"a bare text: it is what it is"),
    ],
)
def test_a_secret_may_be_written_in_several_ways(written: str, secret: bytes) -> None:
    (key,) = parse_keys(f'[[key]]\nsecret = "{written}"')
    assert same(key, Key(secret))


def test_keys_in_a_file_are_oldest_to_newest() -> None:
    ring = parse_keys(f"""
        # rotated in July
        [[key]]
        id = "old"
        secret = "hex:{SECRET.hex()}"
        not_after = 2026-07-01T14:00:00+02:00

        [[key]]
        id = "new"
        secret = "hex:{OTHER.hex()}"
        not_before = {NOON}
        scopes = {{ call = ["tasks.*"] }}
    """)
    assert ring.ids == ("old", "new")
    old, new = ring
    assert (old.not_before, old.not_after, old.scopes) == (None, NOON, Scopes())
    assert (new.not_before, new.not_after, new.scopes) == (NOON, None, Scopes(call=("tasks.*",)))


GOOD = f'[[key]]\nsecret = "hex:{SECRET.hex()}"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no \\[\\[key\\]\\] entry"),
        ("key = []", "holds no"),
        ("key = 5", "holds no"),
        ('[key]\nsecret = "x"', "holds no"),
        ("key = [1]", "key 1 of 1: an entry must be written"),
        ("keys = 1\n" + GOOD, "not 'keys'"),
        ("\n\nkey = ", "not TOML \\(at "),
        ("key = 0001-99-99", "not TOML"),
        ("key = " + "9" * 5000, "not TOML$"),
        ("key = " + "[" * 100_000, "not TOML$"),
        (GOOD + "[[key]]\n", "key 2 of 2: secret is missing"),
        (GOOD + "algoritm = 'x'", "key 1 of 1: unknown field 'algoritm'; there are id, secret, algorithm"),
        (GOOD + "algorithm = 'md5'", "key 1 of 1: algorithm must be one of"),
        (GOOD + "algorithm = ['md5']", "algorithm must be one of"),
        (GOOD + "id = 5", "key 1 of 1: id must be"),
        ("[[key]]\nsecret = 5", "secret must be a text"),
        ("[[key]]\nsecret = 'hex:0'", "secret is not hex"),
        ("[[key]]\nsecret = 'base64:AAAAA'", "secret is not base64"),
        ("[[key]]\nsecret = 'base64:AA=AAAAA'", "secret is not base64"),
        ("[[key]]\nsecret = 'base64:AAAA'", "16 bytes or more, not 3"),
        ("[[key]]\nsecret = 'base64url:AAAAAAAAAAAAAAAAAAAAAA'", "unknown form; there are base64:, hex: and text:"),
        (GOOD + "not_before = 2026-07-01T12:00:00", "not_before needs its offset from UTC"),
        (GOOD + "not_after = 2026-07-01", "not_after must be a time"),
        (GOOD + "not_after = 'soon'", "not_after must be a time"),
        (GOOD + "not_after = inf", "not_after must be a time"),
        (GOOD + "not_before = 6\nnot_after = 5", "not_before must not be later"),
        (GOOD + "scopes = ['*']", "scopes must be a table with call, publish, consume"),
        (GOOD + "scopes = { calls = ['*'] }", "unknown field 'scopes.calls'"),
        (GOOD + "scopes = { call = '*' }", "scopes.call must be a list"),
        (GOOD + "scopes = { call = ['tasks'] }", "'tasks' must be"),
        (GOOD + GOOD, "two keys have the id"),
    ],
)
def test_a_wrong_file_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidKey, match=message):
        parse_keys(text)


def test_the_first_and_the_last_year_can_be_written() -> None:
    (key,) = parse_keys(GOOD + "not_before = 0001-01-01T00:00:00+23:59\nnot_after = 9999-12-31T23:59:59-23:59")
    (back,) = parse_keys(format_key(key))
    assert same(back, key)


@pytest.mark.parametrize("algorithm", ["blake2b-256", "hmac-sha256"])
def test_for_version_1_every_key_is_plain_hmac(algorithm: str) -> None:
    secret = bytes(range(32))
    key = Key(secret, algorithm=algorithm)  # type: ignore[arg-type]
    assert key.mac_plain(b"text") == hmac.new(secret, b"text", "sha256").digest()
