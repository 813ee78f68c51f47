"""Why a call does not arrive: looks at the way to a server, hop by hop.

The connection is looked at with curl, set up by the client's own code, so that what is seen here is what a client gets.
Then calls are signed for a module that does not exist: the refusal must come back signed, which shows the key, the
signature in both directions and the clock, and runs nothing on the server. Some more of these measure the link.

Rule: looks and asks; what is seen is judged in `findings`. A hop that fails ends the way.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pycurl

from .app import RECV_TIMEOUT
from .curl import EasyTransport, Spent
from .errors import CallFailed, SignatureFromFuture, SignatureStale
from .findings import (
    Finding,
    Sight,
    Verdict,
    judge_body,
    judge_clock,
    judge_connection,
    judge_keys,
    judge_latency,
    judge_signed,
    no_keys,
)
from .link_findings import Company, Habits, Link, judge_company, judge_habits, judge_link
from .options import ClientOptions, Endpoint
from .protocol.calling import Attempt, Outgoing, decode_problem
from .protocol.keys import Key, KeyRing
from .session import Session
from .transfers import CERTIFICATE_CODES, configure
from .worker.consumer import WAIT
from .worker.pace import MOST

#: No server has it.
MODULE = "backwater-doctor"
#: Calls in one request, and characters in the names of modules whose refusals are to fill the link.
MANY, LONG = 500, 200
_PROXY_FAILED = 97  # CURLE_PROXY, which pycurl has no name for


def look(endpoint: Endpoint, options: ClientOptions) -> Sight:
    """Ask for `/healthz` as a client would."""
    said: list[bytes] = []
    handle = pycurl.Curl()
    configure(handle, options)
    handle.setopt(pycurl.HTTPGET, 1)
    handle.setopt(pycurl.URL, f"{endpoint.url}/healthz")
    handle.setopt(pycurl.TIMEOUT_MS, int(options.call_timeout * 1000))
    handle.setopt(pycurl.OPT_CERTINFO, 1)
    handle.setopt(pycurl.VERBOSE, 1)
    handle.setopt(pycurl.DEBUGFUNCTION, lambda kind, line: said.append(line) if kind == pycurl.INFOTYPE_TEXT else None)
    handle.setopt(pycurl.WRITEFUNCTION, lambda _data: None)
    handle.setopt(pycurl.HEADERFUNCTION, said.append)
    code, text = 0, ""
    try:
        handle.perform()
    except pycurl.error as error:
        code, text = error.args
    try:
        return _sight(handle, options, b"".join(said).decode("utf-8", "replace"), code, text)
    finally:
        handle.close()


def _sight(handle: pycurl.Curl, options: ClientOptions, said: str, code: int, text: str) -> Sight:
    """What the handle knows after its request; `said` is curl's running commentary."""
    from_environment = re.search(r"Uses proxy env variable \S+ == '([^']*)'", said)
    proxy = options.proxy or (from_environment[1] if from_environment else "")
    tls = re.search(r"SSL connection using ([^\s/]+)", said)
    via = re.search(r"^via:[ \t]*([^\r\n]+)", said, re.IGNORECASE | re.MULTILINE)
    chain = handle.getinfo(pycurl.INFO_CERTINFO) if tls else []
    connected, secured = handle.getinfo(pycurl.CONNECT_TIME), handle.getinfo(pycurl.APPCONNECT_TIME)
    if not code:
        failed = None
    elif handle.getinfo(pycurl.EFFECTIVE_URL).startswith("https:") and connected and not secured:
        failed = failed_hop(code, text, "TLS")
    else:
        failed = failed_hop(code, text, "healthz" if connected else "proxy" if proxy else "TCP")
    return Sight(
        failed=failed,
        text=text,
        status=handle.getinfo(pycurl.RESPONSE_CODE),
        proxy=re.sub(r"[^/@]*@", "…@", proxy),
        address=handle.getinfo(pycurl.PRIMARY_IP),
        resolved=handle.getinfo(pycurl.NAMELOOKUP_TIME),
        connected=connected,
        secured=secured,
        tls=tls[1] if tls else "",
        via=via[1][:100] if via else "",
        certificate=dict(pair for pair in chain[0] if len(pair) == 2) if chain else {},
    )


def failed_hop(code: int, text: str, reached: str) -> str:
    """The hop that curl's error speaks of; one that speaks of none happened at the one that was `reached`."""
    if code in (pycurl.E_COULDNT_RESOLVE_PROXY, _PROXY_FAILED) or "CONNECT" in text:
        return "proxy"
    if code == pycurl.E_COULDNT_RESOLVE_HOST:
        return "DNS"
    if code in CERTIFICATE_CODES or code == pycurl.E_SSL_CONNECT_ERROR or "certificate" in text:
        return "TLS"
    return reached


class Patient:
    """The server as a client sees it."""

    def __init__(self, url: str, keys: KeyRing | None, options: dict[str, Any]) -> None:
        # Without a key nothing is signed; the session wants one all the same.
        self.session = Session(url, keys or Key(os.urandom(32)), dict(options))
        self.target = self.session.targets[0]
        self._transport = EasyTransport(self.session.options)

    def call(self, *arguments: object) -> tuple[CallFailed, float]:
        """One signed call that must be refused, without retries; what came of it, and the seconds it took."""
        session = self.session
        timeout = session.options.call_timeout
        encoded = session.sealer.encode_arguments(arguments, {})
        began = time.monotonic()
        call = Outgoing(session.stream.begin(), MODULE, "check", encoded, began + timeout)
        try:
            sealed = session.seal([Attempt(call, self.target, fresh=False)])
            response, _ = self._transport.send(sealed.request, timeout, fresh=False)
            outcome = decode_problem(session.open(sealed, self.target, response))
        except CallFailed as error:
            outcome = error
        finally:
            session.stream.settle(call.number)
        return outcome, time.monotonic() - began

    def call_many(self, given: Sequence[tuple[str, Sequence[object]]]) -> Spent | None:
        """As `call`, many in one request, each a module and arguments; what it cost, None when it was not answered."""
        session = self.session
        encode, begin = session.sealer.encode_arguments, session.stream.begin
        deadline = time.monotonic() + session.options.call_timeout
        calls = [Outgoing(begin(), module, "check", encode(args, {}), deadline) for module, args in given]
        try:
            sealed = session.seal([Attempt(call, self.target, fresh=False) for call in calls])
            response, _ = self._transport.send(sealed.request, session.options.call_timeout, fresh=False)
        except CallFailed:
            return None
        finally:
            for call in calls:
                session.stream.settle(call.number)
        return self._transport.spent() if response.status == 200 else None

    def spent(self) -> Spent:
        """What the last call cost."""
        return self._transport.spent()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


@dataclass(frozen=True)
class Examination:
    """What to examine: the server, with which keys and options of a client, and how much to send."""

    url: str
    keys: KeyRing | None = None
    options: dict[str, Any] = field(default_factory=dict)
    calls: int = 5
    body_size: int = 2 << 20
    clock: Callable[[], float] = time.time


def examine(asked: Examination) -> Iterator[Finding]:
    """All findings, each as soon as it is known.

    Raises:
        ConfigurationError: the URL or an option is wrong.
    """
    patient = Patient(asked.url, asked.keys, asked.options)
    try:
        for finding in _examine_all(patient, asked):
            yield finding
            if finding.verdict is Verdict.FAIL:
                return
    finally:
        patient.close()


def _examine_all(patient: Patient, asked: Examination) -> Iterator[Finding]:
    endpoint = patient.target.endpoint
    sight = look(endpoint, patient.session.options)
    yield from judge_connection(endpoint, sight, asked.clock())
    if asked.keys is None:
        yield no_keys()
        return
    yield judge_keys(asked.keys, asked.clock())
    outcome, _ = patient.call()
    if isinstance(outcome, SignatureStale | SignatureFromFuture):
        outcome, _ = patient.call()  # the refusal told the server's time
    yield judge_signed(outcome, asked.keys.signing_key(asked.clock()).id)
    yield judge_clock(patient.target.offset)
    times = [patient.call()[1] for _ in range(asked.calls)]
    if times:
        yield judge_latency(times)
    up: float | None = None
    if asked.body_size > 0:
        outcome, seconds = patient.call(os.urandom(asked.body_size))
        yield judge_body(outcome, asked.body_size, seconds)
        up = asked.body_size / seconds
    if times:
        yield from _examine_link(patient, sight, min(times), up)


def _examine_link(patient: Patient, sight: Sight, round_trip: float, up: float | None) -> Iterator[Finding]:
    """How long and how wide the way is, and what that means."""
    patient.call(*_small())
    alone = patient.spent()
    together = patient.call_many([(MODULE, _small()) for _ in range(MANY)])
    filled = patient.call_many([(f"{MODULE}-{os.urandom(LONG // 2).hex()}", ()) for _ in range(MANY)])
    down = None if filled is None else filled.received / max(filled.answering, 1e-6)
    connecting, secured = sight.connected - sight.resolved, max(0.0, sight.secured - sight.connected)
    link = Link(round_trip, connecting, secured, up, down, sight.via)
    yield judge_link(link)
    if together is not None:
        yield judge_company(Company(alone.sent + alone.received, together.sent + together.received, MANY))
    yield from judge_habits(link, Habits(WAIT, RECV_TIMEOUT, MOST))


def _small() -> tuple[object, ...]:
    """The arguments of a small task, as no two are alike."""
    number = int.from_bytes(os.urandom(3), "big")
    names = f"order-{number}", f"customer-{number % 997}", f"{number % 9}@mail.example"
    return *names, number % 100, number / 100, "EUR", "2026-05-14T09:30:00Z", "standard", {"city": "Basel"}, ["a", "b"]
