"""Why a call does not arrive: looks at the way to a server, hop by hop.

The connection is looked at with curl, set up by the client's own code, so that what is seen here is what a client gets.
Then calls are signed for a module that does not exist: the refusal must come back signed, which shows the key, the
signature in both directions and the clock, and runs nothing on the server.

Rule: looks and asks; what is seen is judged in `findings`. A hop that fails ends the way.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pycurl

from .curl import EasyTransport
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
from .options import ClientOptions, Endpoint
from .protocol.calling import Attempt, Outgoing, decode_problem
from .protocol.keys import Key, KeyRing
from .session import Session
from .transfers import CERTIFICATE_CODES, configure

#: No server has it.
MODULE = "backwater-doctor"
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
        tls=tls[1] if tls else "",
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
    yield from judge_connection(endpoint, look(endpoint, patient.session.options), asked.clock())
    if asked.keys is None:
        yield no_keys()
        return
    yield judge_keys(asked.keys, asked.clock())
    outcome, _ = patient.call()
    if isinstance(outcome, SignatureStale | SignatureFromFuture):
        outcome, _ = patient.call()  # the refusal told the server's time
    yield judge_signed(outcome, asked.keys.signing_key(asked.clock()).id)
    yield judge_clock(patient.target.offset)
    if asked.calls > 0:
        yield judge_latency([patient.call()[1] for _ in range(asked.calls)])
    if asked.body_size > 0:
        outcome, seconds = patient.call(os.urandom(asked.body_size))
        yield judge_body(outcome, asked.body_size, seconds)
