"""Settings as frozen values, checked when they are made.

Every field says its unit and default; the *why* of each default is in the README. A secret never appears in a repr.
Rule: no defaults from the environment (only `cli` reads it), no globals.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .errors import InvalidEndpoint, InvalidOption

MIB = 1 << 20
#: What a client may speak.
WIRES = ("backwater", "erlang")
CLEAR_PORT = 8080
TLS_PORT = 8443
#: Where a broker that is told nothing keeps its messages: a file in the current directory.
DEFAULT_STORE = "sqlite:backwater.db"

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server's address: `scheme://host:port/base`."""

    scheme: str
    host: str
    port: int
    base: str = ""
    #: What the signature calls `@authority`: host and port as the Host header has them.
    authority: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise InvalidEndpoint(f"port {self.port} is not between 1 and 65535")
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        authority = host.lower() if self.port == default else f"{host.lower()}:{self.port}"
        object.__setattr__(self, "authority", authority)

    @property
    def url(self) -> str:
        """The URL without a trailing slash."""
        return f"{self.scheme}://{self.authority}{self.base}"

    @classmethod
    def parse(cls, value: object) -> Endpoint:
        """Read an endpoint in any of the forms the seed knows.

        `"https://host:8443/base"`, `"host"` (HTTP, port 8080), `"host:port"`, `("host", port)`, an `ipaddress`
        object, or an `Endpoint`. A URL without a port means 80 or 443, as everywhere.

        Raises:
            InvalidEndpoint: it has none of these forms, or carries credentials, a query or a fragment.
        """
        if isinstance(value, Endpoint):
            return value
        if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return cls("http", value.compressed, CLEAR_PORT)
        if isinstance(value, tuple) and len(value) == 2:
            return cls._parse_pair(*value)
        if not isinstance(value, str):
            raise InvalidEndpoint(f"an endpoint is a URL, a host or a (host, port) pair, not {type(value).__name__}")
        if "://" in value:
            return cls._parse_url(value)
        if value.count(":") > 1 and not value.startswith("["):
            return cls("http", _check_host(value), CLEAR_PORT)
        return cls._parse_url(f"http://{value}", default_port=CLEAR_PORT)

    @classmethod
    def _parse_pair(cls, host: object, port: object) -> Endpoint:
        if isinstance(host, ipaddress.IPv4Address | ipaddress.IPv6Address):
            host = host.compressed
        if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
            raise InvalidEndpoint(f"a (host, port) pair needs a text and a number, not {(host, port)!r}")
        return cls("http", _check_host(host), port)

    @classmethod
    def _parse_url(cls, url: str, default_port: int | None = None) -> Endpoint:
        shown = re.sub(r"//[^/@]*@", "//…@", url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidEndpoint(f"{shown!r} is not a URL: {error}") from error
        if parts.scheme not in ("http", "https"):
            raise InvalidEndpoint(f"{shown!r}: the scheme is http or https, not {parts.scheme!r}")
        if parts.username is not None or parts.password is not None:
            raise InvalidEndpoint(f"{shown!r}: an endpoint carries no user and no password; the key signs")
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise InvalidEndpoint(f"{shown!r}: an endpoint has no query and no fragment")
        base = parts.path.rstrip("/")
        if not _PATH.fullmatch(base):
            raise InvalidEndpoint(f"{shown!r}: the path {parts.path!r} has characters that need percent-encoding")
        if port is None:
            port = default_port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, _check_host(parts.hostname or ""), port, base)


def _check_host(host: str) -> str:
    try:
        return ipaddress.ip_address(host).compressed
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode("ascii") if not host.isascii() else host
    except UnicodeError as error:
        raise InvalidEndpoint(f"{host!r} is not a host name: {error}") from error
    # No top-level domain is a number: it is a port in the wrong place, or an IPv4 address written badly.
    if not _HOST.fullmatch(name) or len(name) > 253 or name.rstrip(".").rpartition(".")[2].isdigit():
        raise InvalidEndpoint(f"{host!r} is not a host name and not an IP address")
    return name


#: Numbers that stand for "as it is elsewhere" when they are None.
_MAY_BE_NONE = frozenset({"timeout"})


def _check(options: object, *, positive: Sequence[str] = (), natural: Sequence[str] = ()) -> None:
    for name in (*positive, *natural):
        value = getattr(options, name)
        if value is None and name in _MAY_BE_NONE:
            continue
        lowest = "above 0" if name in positive else "0 or more"
        wrong = not isinstance(value, int | float) or isinstance(value, bool) or value < 0 or not value < float("inf")
        if wrong or (name in positive and value == 0):
            raise InvalidOption(f"{name} is a number {lowest}, not {value!r}")


O = TypeVar("O")  # noqa: E741 - an options class


def make_options(kind: type[O], given: Mapping[str, Any]) -> O:
    """Build an options value from keyword arguments; an unknown name says which ones there are."""
    known = {each.name for each in fields(kind) if each.init}  # type: ignore[arg-type]
    unknown = sorted(set(given) - known)
    if unknown:
        raise InvalidOption(f"unknown option {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    return kind(**given)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one message may be: bytes, unless a name says otherwise."""

    #: Bodies from this size on are compressed, where that makes them smaller.
    compression_threshold: int = 300
    #: zstd level of what we send.
    compression_level: int = 4
    #: Encoded arguments of one request, after decompression.
    max_encoded_args_size: int = 8 * MIB
    #: Encoded result of one call, after decompression.
    max_encoded_result_size: int = 8 * MIB
    #: Accept and send pickle (arbitrary code of the peer's choice); both ends must switch it on.
    decode_unsafe_terms: bool = False

    def __post_init__(self) -> None:
        _check(
            self,
            positive=("max_encoded_args_size", "max_encoded_result_size"),
            natural=("compression_threshold",),
        )
        if self.compression_level not in range(1, 20):
            raise InvalidOption(f"compression_level is between 1 and 19, not {self.compression_level!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerOptions:
    """How a server serves; seconds, bytes and counts."""

    limits: Limits = field(default_factory=Limits)
    #: Greatest difference between the caller's clock and ours, seconds.
    clock_tolerance: float = 300.0
    #: Names that requests may be signed for (`host` or `host:port`); empty: any.
    authorities: tuple[str, ...] = ()
    #: Send a function's traceback with its exception.
    return_exception_stacktraces: bool = True
    #: Threads for plain functions.
    threads: int = 32
    #: Calls accepted and not yet answered; beyond, callers are told to come back.
    max_pending_calls: int = 10_000
    #: Calls in one request.
    max_calls_per_request: int = 10_000
    #: Longest time for one call, seconds, whatever the caller asks for.
    max_time_limit: float = 3600.0
    #: One line in the log `backwater.access` for each request.
    access_log: bool = False

    def __post_init__(self) -> None:
        _check(
            self,
            positive=("threads", "max_pending_calls", "max_calls_per_request", "max_time_limit"),
            natural=("clock_tolerance",),
        )
        object.__setattr__(self, "authorities", tuple(name.lower() for name in self.authorities))


@dataclass(frozen=True, kw_only=True, slots=True)
class ErlangTerms:
    """How Erlang's terms are read and written (version 1 of the wire)."""

    #: Take atoms that nobody has named. They are plain values here and cost nothing that lasts.
    decode_unsafe_terms: bool = True
    #: Without `decode_unsafe_terms`: the atoms that are taken; of a server also the names of what is exposed.
    atoms: Iterable[str] = ()
    #: The atom that is None: `undefined`, or `nil` for Elixir.
    none: str = "undefined"

    def __post_init__(self) -> None:
        if self.none not in ("undefined", "nil"):
            raise InvalidOption(f"none is 'undefined' or 'nil', not {self.none!r}")
        if isinstance(self.atoms, str | bytes) or not isinstance(self.atoms, Iterable):
            raise InvalidOption(f"atoms is a list of names, not {self.atoms!r}")
        object.__setattr__(self, "atoms", frozenset(self.atoms))

    def known_atoms(self, names: Iterable[str]) -> frozenset[str] | None:
        """The atoms that are taken, with these names; None: any."""
        return None if self.decode_unsafe_terms else frozenset({*self.atoms, *names})


@dataclass(frozen=True, kw_only=True, slots=True)
class ErlangOptions(ErlangTerms):
    """How a server answers nodes of Erlang's backwater (version 1 of the wire)."""

    #: Their secret, or several; None: the server's own keys.
    secret: Any = field(default=None, repr=False)
    #: What they may call, as `Exposure.of` takes it; None: what everybody may.
    exposed: Any = None
    #: The very same message again within this time gets the answer it got and runs nothing, seconds; 0: it runs again.
    replay_window: float = 60.0

    def __post_init__(self) -> None:
        # With slots the class is made anew, and a bare super() would speak of the old one.
        ErlangTerms.__post_init__(self)
        _check(self, natural=("replay_window",))


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenerOptions:
    """How a server of our own listens; seconds, bytes and counts."""

    #: The address to listen on; None: all of them.
    address: str | None = None
    #: Connections at once; beyond, callers are told to come back.
    max_connections: int = 1024
    #: Requests on one connection before it is closed.
    max_keepalive: int = 200
    #: From the first byte of a request to the end of its headers, seconds.
    header_timeout: float = 10.0
    #: From the end of the headers to the end of the body, and for a peer that takes nothing of its answer, seconds.
    body_timeout: float = 60.0
    #: A connection without a request is closed after this, seconds.
    idle_timeout: float = 75.0
    #: Request line and headers of one request.
    max_header_size: int = 16 * 1024
    #: Several processes may listen on the port (SO_REUSEPORT).
    reuse_port: bool = False

    def __post_init__(self) -> None:
        _check(
            self,
            positive=("max_connections", "max_keepalive", "header_timeout", "body_timeout", "idle_timeout"),
        )
        _check(self, positive=("max_header_size",))
        if self.max_header_size < 2048:
            raise InvalidOption(f"max_header_size is 2048 or more, not {self.max_header_size!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientOptions:
    """How a client calls; seconds, bytes and counts."""

    limits: Limits = field(default_factory=Limits)
    #: To open a connection, TLS included, seconds.
    connect_timeout: float = 8.0
    #: Silence on a connection after which the call is asked for again on a fresh one, seconds.
    recv_timeout: float = 5.0
    #: For a whole call with its retries, seconds; None: connect_timeout + recv_timeout.
    timeout: float | None = None
    #: Attempts for one call, the first included.
    max_attempts: int = 10
    #: First pause between attempts, seconds; it doubles, and each is drawn between 0 and the bound (full jitter).
    backoff: float = 0.1
    #: Longest pause between attempts, seconds.
    max_backoff: float = 5.0
    #: An endpoint that fails is left alone for so long while there are others; doubled each time that it fails again.
    endpoint_rest: float = 1.0
    #: The longest that it is left alone, seconds.
    max_endpoint_rest: float = 30.0
    #: Raise the remote exception's own class where it is a builtin or registered one.
    rethrow_remote_exceptions: bool = False
    #: Exception classes that a remote exception may be rebuilt as, beside the builtins.
    exceptions: tuple[type[Exception], ...] = ()
    #: Start with a random endpoint for each call, instead of the first one that is up.
    spread: bool = False
    #: `backwater`, or `erlang` for nodes of Erlang's backwater; an endpoint may say so too: `erlang+https://…`.
    wire: str = "backwater"
    #: How terms are read and written, with the wire `erlang`.
    terms: ErlangTerms = field(default_factory=ErlangTerms)
    #: `application/msgpack` or `application/json`; pickle where `decode_unsafe_terms` is on.
    media_type: str = "application/msgpack"
    #: Connections kept for one endpoint, in each pool.
    max_connections: int = 64
    #: A connection is not used beyond this age, seconds.
    max_connection_age: float = 120.0
    #: Calls that arrive while a request is in flight wait this long at most for company, seconds.
    coalesce_delay: float = 0.002
    #: Encoded arguments that travel in one request, bytes; larger ones travel alone.
    coalesce_size: int = 128 * 1024
    #: Calls in one request.
    max_calls_per_request: int = 500
    #: A file of certificates to trust instead of the system's; a pinned CA.
    ca_file: str | None = None
    #: A file with the client's certificate.
    client_cert: str | None = None
    #: A file with the key of the client's certificate.
    client_key: str | None = None
    #: `http://host:port`, `""` for none at all; None: as the environment says (HTTPS_PROXY, NO_PROXY).
    proxy: str | None = None
    #: pycurl options set on every request, by number: `{pycurl.INTERFACE: "eth1"}`.
    curl_options: Mapping[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(
            self,
            positive=("connect_timeout", "recv_timeout", "timeout", "max_attempts", "max_connections"),
            natural=("backoff", "max_backoff", "endpoint_rest", "max_endpoint_rest", "coalesce_delay"),
        )
        _check(self, positive=("max_connection_age", "max_calls_per_request", "coalesce_size"))
        if self.wire not in WIRES:
            raise InvalidOption(f"wire is one of {', '.join(WIRES)}, not {self.wire!r}")
        if not isinstance(self.terms, ErlangTerms):
            raise InvalidOption(f"terms is ErlangTerms(…), not {self.terms!r}")

    @property
    def call_timeout(self) -> float:
        """Seconds for a whole call when the caller names none."""
        return self.connect_timeout + self.recv_timeout if self.timeout is None else self.timeout


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOptions:
    """What one call may have of its own, see `with_options`."""

    #: For the call with its retries, seconds; None: the client's.
    timeout: float | None = None
    #: The function may run more than once: then another endpoint may be asked after a lost answer.
    idempotent: bool = False
    #: The type to convert the result to: a dataclass, a `msgspec.Struct`, `dict[str, Decimal]`, …
    returns: Any = None
    #: W3C trace context to send; None: that of the call being served, if any.
    traceparent: str | None = None
    #: The function may wait so long before it answers, seconds, as a long poll does. Where something on the way ends
    #: such calls too soon, again and again, `AsyncClient.patience` and `Client.patience` learn of it.
    waits: float = 0.0

    def __post_init__(self) -> None:
        _check(self, positive=("timeout",), natural=("waits",))
