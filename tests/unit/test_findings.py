from __future__ import annotations

import pytest

from backwater_tornado import errors
from backwater_tornado.errors import CallFailed, ResponseUnsigned
from backwater_tornado.findings import (
    SOON,
    Finding,
    Sight,
    Verdict,
    judge_body,
    judge_clock,
    judge_connection,
    judge_health,
    judge_keys,
    judge_latency,
    judge_signed,
    judge_tls,
    no_keys,
)
from backwater_tornado.options import Endpoint
from backwater_tornado.protocol.keys import Key, KeyRing

NOW = 1_800_000_000.0
SECURE = Endpoint.parse("https://dc1.example:8443")
CLEAR = Endpoint.parse("http://dc1.example:8080")
SEEN = Sight(status=204, address="10.0.0.1", resolved=0.001, connected=0.003, tls="TLSv1.3")


def connection(sight: Sight, endpoint: Endpoint = SECURE) -> list[tuple[str, Verdict]]:
    return [(each.check, each.verdict) for each in judge_connection(endpoint, sight, NOW)]


def hint(error: errors.Refused) -> ResponseUnsigned:
    unsigned = ResponseUnsigned("not signed")
    unsigned.hint = error
    return unsigned


# The connection ------------------------------------------------------------------------------------------------------


def test_a_good_way_has_a_line_for_each_hop() -> None:
    ok = Verdict.OK
    assert connection(SEEN) == [("DNS", ok), ("TCP", ok), ("TLS", ok), ("healthz", ok)]


def test_a_proxy_is_a_hop_and_looks_up_the_name() -> None:
    findings = list(judge_connection(SECURE, Sight(status=204, proxy="http://proxy:3128"), NOW))
    assert [each.check for each in findings] == ["DNS", "proxy", "TCP", "TLS", "healthz"]
    assert "it looks up dc1.example" in findings[0].message
    assert findings[1].message == "through http://proxy:3128"


@pytest.mark.parametrize("hop", ["DNS", "TCP", "TLS", "healthz"])
def test_the_hop_that_failed_is_the_last_and_says_what_to_do(hop: str) -> None:
    *before, last = judge_connection(SECURE, Sight(failed=hop, text="what curl said"), NOW)
    assert all(each.verdict is Verdict.OK for each in before)
    assert (last.check, last.verdict, last.message) == (hop, Verdict.FAIL, "what curl said")
    assert last.advice


@pytest.mark.parametrize(
    ("host", "message"),
    [("127.0.0.1", "127.0.0.1 is an address"), ("::1", "::1 is an address"), ("dc1.example", "was found in 1.0 ms")],
)
def test_an_address_is_not_looked_up(host: str, message: str) -> None:
    assert message in next(judge_connection(Endpoint("http", host, 80), SEEN, NOW)).message


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("SSL: wrong version number", "try http://"),
        ("tlsv13 alert certificate required", "--client-cert"),
        ("unable to get local issuer certificate", "--ca-file"),
    ],
)
def test_advice_on_tls_fits_what_went_wrong(text: str, advice: str) -> None:
    *_, last = judge_connection(SECURE, Sight(failed="TLS", text=text), NOW)
    assert advice in last.advice


def test_hanging_up_after_the_handshake_may_be_about_a_certificate() -> None:
    *_, last = judge_connection(SECURE, Sight(failed="healthz", text="reset", tls="TLSv1.3"), NOW)
    assert "--client-cert" in last.advice


def test_a_certificate_that_ends_soon_is_worth_a_word() -> None:
    def judged(expires: str) -> Finding:
        return judge_tls(SECURE, Sight(tls="TLSv1.3", certificate={"Expire date": expires}), NOW)

    assert judged("Jan 25 08:00:00 2027 GMT").verdict is Verdict.WARN
    assert judged("Jan 25 08:00:00 2028 GMT") == Finding(
        "TLS", Verdict.OK, "TLSv1.3, the certificate is valid for 375 days"
    )
    assert judged("of no known form").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("host", "verdict"),
    [("localhost", Verdict.OK), ("127.0.0.9", Verdict.OK), ("::1", Verdict.OK), ("10.0.0.1", Verdict.WARN)],
)
def test_plain_http_is_for_this_machine(host: str, verdict: Verdict) -> None:
    assert judge_tls(Endpoint("http", host, 80), SEEN, NOW).verdict is verdict


@pytest.mark.parametrize(
    ("status", "verdict", "text"),
    [
        (204, Verdict.OK, "serving"),
        (200, Verdict.OK, "serving"),
        (503, Verdict.WARN, "shutting down"),
        (404, Verdict.WARN, "404"),
    ],
)
def test_what_healthz_answers(status: int, verdict: Verdict, text: str) -> None:
    found = judge_health(Sight(status=status))
    assert found.verdict is verdict
    assert text in found.message


# Keys and calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("not_after", "verdict"),
    [(None, Verdict.OK), (NOW + SOON + 1, Verdict.OK), (NOW + 1, Verdict.WARN), (1, Verdict.FAIL)],
)
def test_a_key_that_ends_soon_is_worth_a_word(not_after: float | None, verdict: Verdict) -> None:
    key = Key(b"sixteen bytes or more", "mine", not_after=not_after)
    found = judge_keys(KeyRing.of(key), NOW)
    assert found.verdict is verdict
    assert "mine" in found.message


def test_clocks_that_differ_are_told_with_their_direction() -> None:
    assert judge_clock(0.0).verdict is Verdict.OK
    assert judge_clock(60.0).message == "the server's is 60 s ahead of ours"
    assert judge_clock(-60.0).message == "the server's is 60 s behind ours"
    assert judge_clock(-60.0).verdict is Verdict.WARN


@pytest.mark.parametrize("outcome", [errors.UnknownModule(), errors.NotInScope()])
def test_a_signed_refusal_of_the_module_is_what_is_hoped_for(outcome: CallFailed) -> None:
    found = judge_signed(outcome, "mine")
    assert found.verdict is Verdict.OK
    assert "mine" in found.message


@pytest.mark.parametrize(
    ("outcome", "advice"),
    [
        (hint(errors.UnknownKey()), "append it to its file"),
        (errors.UnknownKey(), "append it to its file"),
        (hint(errors.KeyNotValid()), "not_before and not_after"),
        (hint(errors.SignatureInvalid()), "another secret under the same id"),
        (errors.WrongAuthority(), "`authorities`"),
        (errors.SignatureStale(), "NTP"),
        (errors.SignatureFromFuture(), "NTP"),
        (ResponseUnsigned(), "something else answered"),
        (errors.ResponseAltered(), "a proxy changes the answers"),
        (errors.NotExposed(), "see the server's log"),
        (errors.OutcomeUnknown(), "see the server's log"),
    ],
)
def test_each_failure_of_a_signed_call_has_its_advice(outcome: CallFailed, advice: str) -> None:
    found = judge_signed(outcome, "mine")
    assert found.verdict is Verdict.FAIL
    assert advice in found.advice


def test_a_busy_server_is_no_failure() -> None:
    assert judge_signed(errors.Draining(), "mine").verdict is Verdict.WARN


def test_slow_calls_are_worth_a_word() -> None:
    found = judge_latency([0.001, 0.002, 0.009])
    assert found == Finding("latency", Verdict.OK, "2.0 ms a call; 1.0 ms to 9.0 ms over 3")
    assert judge_latency([2.0]).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("outcome", "verdict", "text"),
    [
        (errors.UnknownModule(), Verdict.OK, "2 MiB arrived in 5.0 ms"),
        (hint(errors.BodyTooLarge("so much")), Verdict.WARN, "does not take 2 MiB: so much"),
        (ResponseUnsigned("it claims status 413"), Verdict.FAIL, "a proxy does not take 2 MiB"),
        (errors.OutcomeUnknown("reset"), Verdict.FAIL, "2 MiB did not arrive: reset"),
    ],
)
def test_what_became_of_a_large_body(outcome: CallFailed, verdict: Verdict, text: str) -> None:
    found = judge_body(outcome, 2 << 20, 0.005)
    assert found.verdict is verdict
    assert text in found.message


def test_without_keys_nothing_is_said_of_signatures() -> None:
    assert no_keys().verdict is Verdict.WARN
