"""What a doctor's observations mean: each a line with what to do about it.

Rule: pure. Whoever looked (`doctor`) hands over what was seen and the time; what is judged is returned.
"""

from __future__ import annotations

import re
import ssl
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .errors import (
    BackwaterError,
    BodyTooLarge,
    CallFailed,
    KeyNotValid,
    NotInScope,
    Refused,
    ResponseUnsigned,
    SignatureFromFuture,
    SignatureInvalid,
    SignatureStale,
    UnknownKey,
    UnknownModule,
    Unverified,
    WrongAuthority,
)
from .options import Endpoint
from .protocol.keys import KeyRing

#: Certificates and keys that end sooner than this are worth a word, seconds.
SOON = 21 * 86400
#: Calls that take longer than this are, too, seconds.
SLOW = 1.0


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    verdict: Verdict
    message: str
    advice: str = ""


def _ok(check: str, message: str) -> Finding:
    return Finding(check, Verdict.OK, message)


def _warn(check: str, message: str, advice: str) -> Finding:
    return Finding(check, Verdict.WARN, message, advice)


def _fail(check: str, message: str, advice: str) -> Finding:
    return Finding(check, Verdict.FAIL, message, advice)


# The connection ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sight:
    """What was seen on the way to `/healthz`; times are seconds since the start, 0 for what was not reached."""

    #: Where it ended: a name of `HOPS`, or None; and why.
    failed: str | None = None
    text: str = ""
    status: int = 0
    proxy: str = ""
    address: str = ""
    resolved: float = 0.0
    connected: float = 0.0
    secured: float = 0.0
    tls: str = ""
    #: Proxies that name themselves in the answer.
    via: str = ""
    certificate: Mapping[str, str] = field(default_factory=dict)


#: The way, in order.
HOPS = ("DNS", "proxy", "TCP", "TLS", "healthz")


_FAILURES = {
    "DNS": "check the name; is this machine's resolver reachable?",
    "proxy": "check --proxy, or HTTPS_PROXY and NO_PROXY; --proxy '' goes without",
    "TCP": "is the server running, is the port right, does a firewall let it through?",
}


def judge_connection(endpoint: Endpoint, sight: Sight, now: float) -> Iterator[Finding]:
    """DNS, proxy, TCP, TLS and healthz, up to the one that failed."""
    for hop in HOPS:
        if hop == "proxy" and not sight.proxy:
            continue
        if hop == sight.failed:
            yield _judge_failure(hop, sight)
            return
        if hop == "DNS":
            yield _judge_dns(endpoint, sight)
        elif hop == "proxy":
            yield _ok(hop, f"through {sight.proxy}")
        elif hop == "TCP":
            yield _ok(hop, f"connected to {sight.address} in {_ms(sight.connected - sight.resolved)}")
        elif hop == "TLS":
            yield judge_tls(endpoint, sight, now)
        else:
            yield judge_health(sight)


def _judge_dns(endpoint: Endpoint, sight: Sight) -> Finding:
    if sight.proxy:
        return _ok("DNS", f"the name of the proxy was found in {_ms(sight.resolved)}; it looks up {endpoint.host}")
    if not re.search("[a-z]", endpoint.host.lower()) or ":" in endpoint.host:
        return _ok("DNS", f"{endpoint.host} is an address")
    return _ok("DNS", f"{endpoint.host} was found in {_ms(sight.resolved)}")


def _judge_failure(hop: str, sight: Sight) -> Finding:
    if hop == "TLS":
        if "wrong version" in sight.text or "packet length" in sight.text:
            return _fail(hop, sight.text, "the port speaks plain HTTP: try http://")
        if "certificate required" in sight.text or "alert" in sight.text:
            return _fail(hop, sight.text, "the server asks for a certificate of yours: --client-cert and --client-key")
        return _fail(
            hop, sight.text, "name the authority of the server's certificate with --ca-file; is the host name right?"
        )
    if hop == "healthz" and sight.tls:
        # With TLS 1.3 a client's certificate is asked for after the handshake, and may be missed by hanging up.
        return _fail(hop, sight.text, "if the server asks for a certificate of yours: --client-cert and --client-key")
    if hop == "healthz":
        return _fail(hop, sight.text, "something else listens there, or it speaks TLS: try https://")
    return _fail(hop, sight.text, _FAILURES[hop])


def judge_tls(endpoint: Endpoint, sight: Sight, now: float) -> Finding:
    """Version, and how long the certificate is still valid."""
    if endpoint.scheme != "https":
        if endpoint.host in ("localhost", "::1") or endpoint.host.startswith("127."):
            return _ok("TLS", "none, on this machine")
        return _warn("TLS", "none: calls are signed, and anyone on the way can read them", "use https://")
    until = sight.certificate.get("Expire date", "")
    try:
        left = ssl.cert_time_to_seconds(until) - now
    except ValueError:
        return _ok("TLS", f"{sight.tls}, the certificate was accepted")
    days = f"{left / 86400:.0f} days"
    if left < SOON:
        return _warn("TLS", f"{sight.tls}, the certificate ends in {days}, on {until}", "renew it")
    return _ok("TLS", f"{sight.tls}, the certificate is valid for {days}")


def judge_health(sight: Sight) -> Finding:
    """What `/healthz` answered."""
    if sight.status in (200, 204):
        return _ok("healthz", "the server is serving")
    if sight.status == 503:
        return _warn(
            "healthz", "503: it is shutting down, or a proxy has no server", "try again; is the server running?"
        )
    advice = (
        "nothing to do where the service is mounted in an application of yours, or a proxy passes on /backwater/ only"
    )
    return _warn("healthz", f"answered {sight.status}", advice)


def _ms(seconds: float) -> str:
    return f"{max(seconds, 0.0) * 1000:.1f} ms"


# Keys and calls ------------------------------------------------------------------------------------------------------


def judge_keys(keys: KeyRing, now: float) -> Finding:
    """The key that will sign, and whether it ends soon."""
    try:
        key = keys.signing_key(now)
    except BackwaterError as error:
        return _fail("keys", str(error), "give a file with a key that is valid: `backwater keygen` makes one")
    if key.not_after is not None and key.not_after - now < SOON:
        days = (key.not_after - now) / 86400
        return _warn("keys", f"{key.id} signs, and ends in {days:.0f} days", "append a new key, here and at the server")
    return _ok("keys", f"{key.id} signs; the ring has {len(keys.ids)}")


def no_keys() -> Finding:
    """Nothing could be signed."""
    return _warn("signature", "no keys were given: nothing signed was tried", "give --secret-file")


def judge_clock(offset: float) -> Finding:
    """Seconds that the server's clock is ahead of ours."""
    if not offset:
        return _ok("clock", "the same as the server's, within 5 s")
    way = "ahead of" if offset > 0 else "behind"
    advice = "set both by NTP; calls work, as clients allow for it"
    return _warn("clock", f"the server's is {abs(offset):.0f} s {way} ours", advice)


#: What a failed signed call means: the first class that fits.
_MEANINGS: Sequence[tuple[type[CallFailed], str]] = (
    (UnknownKey, "the server does not have this key: append it to its file and send it SIGHUP"),
    (KeyNotValid, "see not_before and not_after of the key, in the server's file and here"),
    (
        SignatureInvalid,
        "another secret under the same id; or a proxy changes Host, path or headers: it must pass them on as they are",
    ),
    (WrongAuthority, "call it by one of its names, or add this one to its `authorities`; does a proxy change Host?"),
    (SignatureStale, "set the clocks of both machines by NTP"),
    (SignatureFromFuture, "set the clocks of both machines by NTP"),
    (
        ResponseUnsigned,
        "something else answered: is this URL that of a backwater server, does a proxy pass /backwater/ on?",
    ),
    (Unverified, "a proxy changes the answers: it must pass bodies and headers on as they are"),
    (Refused, "see the server's log"),
)


def judge_signed(outcome: CallFailed, key: str) -> Finding:
    """What came back for a signed call to a module that does not exist."""
    if isinstance(outcome, UnknownModule | NotInScope):
        return _ok("signature", f"{key} was accepted, and the answer is signed by it")
    if isinstance(outcome, Refused) and outcome.status == 503:
        return _warn(
            "signature", f"{key} was accepted, and {outcome.detail}", "the server is busy or shutting down: try again"
        )
    meant = _meant(outcome)
    advice = next((advice for kind, advice in _MEANINGS if isinstance(meant, kind)), "see the server's log")
    return _fail("signature", f"{meant.code}: {meant.detail}", advice)


def _meant(outcome: CallFailed) -> CallFailed:
    """What an unsigned refusal claims to be: good enough for advice, as people decide what to do with it."""
    hint = outcome.hint if isinstance(outcome, ResponseUnsigned) else None
    return outcome if hint is None else hint


def judge_latency(times: Sequence[float]) -> Finding:
    """How long calls took on a connection that was open."""
    middle = statistics.median(times)
    message = f"{_ms(middle)} a call; {_ms(min(times))} to {_ms(max(times))} over {len(times)}"
    if middle > SLOW:
        return _warn("latency", message, "give calls a longer recv_timeout, and send many at once with gather")
    return _ok("latency", message)


def judge_body(outcome: CallFailed, size: int, seconds: float) -> Finding:
    """Whether a large body arrives."""
    shown = f"{size / (1 << 20):.3g} MiB"
    if isinstance(outcome, UnknownModule | NotInScope):
        return _ok("body", f"{shown} arrived in {_ms(seconds)}")
    meant = _meant(outcome)
    if isinstance(meant, BodyTooLarge):  # unsigned: sizes are looked at before keys
        return _warn(
            "body",
            f"the server does not take {shown}: {meant.detail}",
            "raise its max_encoded_args_size if you need more",
        )
    if isinstance(outcome, ResponseUnsigned) and "413" in outcome.detail:
        return _fail("body", f"a proxy does not take {shown}", "raise its limit: nginx calls it client_max_body_size")
    return _fail("body", f"{shown} did not arrive: {outcome.detail}", "a proxy or the link cuts large bodies")
