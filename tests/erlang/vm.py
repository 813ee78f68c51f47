"""An Erlang VM for the tests: it speaks "backwater" wire version 1 with nothing but OTP, from the modules beside this.

    with Erlang(folder) as erlang, erlang.serving("[lists]", secret=SECRET) as peer:
        erlang.ask("1 + 1")                                                      # "2"
        erlang.call(peer.url, SECRET, "lists:reverse([1, 2, 3])")                # "{ok,[3,2,1]}"
        erlang.fetch("term_to_binary(A)", A=b"...")                              # bytes

Values come back as Erlang prints them. Whoever waits, waits for an answer or for the end of the VM, and never longer
than `PATIENCE`; the VM ends when its input is closed, so a test run that dies leaves none behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

#: Seconds; reached only when something is broken.
PATIENCE = 40.0
SOURCES = Path(__file__).parent
PACKAGES = ("erlang-base", "erlang-crypto", "erlang-inets", "erlang-public-key", "erlang-ssl")

#: What a peer exposes unless a test says otherwise.
EXPOSED = "[erlang, lists, string, math, peer_functions, peer_terms]"

#: What a variable of an expression may be bound to.
Bindable = bytes | str | int

_CALL = re.compile(r"(?P<module>[^:]+):(?P<function>'(?:[^'\\]|\\.)*'|[^(]+)\((?P<args>.*)\)", re.DOTALL)


class Raised(Exception):
    """The expression raised; says what, as Erlang prints it."""


@dataclass(frozen=True)
class Peer:
    """A server of the VM."""

    erlang: Erlang
    port: int
    url: str

    def stats(self) -> tuple[int, int]:
        """How many connections and how many requests it has had."""
        shown = self.erlang.ask("peer_server:stats(Port)", Port=self.port)
        connections, requests = re.findall(r"\d+", shown)
        return int(connections), int(requests)


class Erlang:
    """A VM for the length of a with-block; what it prints goes to `vm.log` in the folder."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "vm.log"
        self._started: Future[bytes] = Future()
        self._waiting = {0: self._started}
        self._asked = 0
        self._lock = threading.Lock()
        compile_into(folder)
        output, their_output = os.pipe()
        command = ["erl", "-noinput", "-pa", str(folder), "+S", "2:2", "-s", "peer_driver", "main", str(their_output)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("ERL_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[their_output],
                env=env | {"ERL_CRASH_DUMP_SECONDS": "0", "HOME": str(folder)},
            )
        os.close(their_output)
        self._reader = threading.Thread(target=self._read, args=[open(output, "rb")], daemon=True)  # noqa: PTH123, SIM115
        self._reader.start()

    def _read(self, stream: BinaryIO) -> None:
        with stream:
            while len(head := stream.read(4)) == 4:
                content = stream.read(struct.unpack(">I", head)[0])
                number, status = struct.unpack_from(">Ic", content)
                with self._lock:
                    future = self._waiting.pop(number)
                if status == b"o":
                    future.set_result(content[5:])
                else:
                    future.set_exception(Raised(content[5:].decode()))
        with self._lock:
            lost, self._waiting = self._waiting, {}
        for future in lost.values():
            future.set_exception(ConnectionError(f"the Erlang VM has ended; it said:\n{self.said}"))

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def release(self) -> int:
        """Of OTP: 25, say."""
        return int(self.ask("list_to_integer(erlang:system_info(otp_release))"))

    def _begin(self, kind: bytes, expression: str, bindings: dict[str, Bindable]) -> Future[bytes]:
        text = expression.encode()
        future: Future[bytes] = Future()
        with self._lock:
            self._asked += 1
            self._waiting[self._asked] = future
            frame = struct.pack(">IcI", self._asked, kind, len(text)) + text
            frame += b"".join(_binding(name, value) for name, value in bindings.items())
            assert self._process.stdin is not None
            self._process.stdin.write(struct.pack(">I", len(frame)) + frame)
            self._process.stdin.flush()
        return future

    def ask_later(self, expression: str, **bindings: Bindable) -> Future[bytes]:
        """Begin to evaluate in a process of its own; the future has the printed value."""
        return self._begin(b"t", expression, bindings)

    def ask(self, expression: str, **bindings: Bindable) -> str:
        """Evaluate, with variables bound to binaries (bytes, or str as UTF-8) or integers; gives the printed value."""
        return self.ask_later(expression, **bindings).result(PATIENCE).decode()

    def fetch(self, expression: str, **bindings: Bindable) -> bytes:
        """As `ask`, for an expression whose value is a binary."""
        return self._begin(b"b", expression, bindings).result(PATIENCE)

    def call(self, url: str, secret: bytes, target: str, options: str = "#{}", **bindings: Bindable) -> str:
        """Call `module:function(arguments)` over the wire with the client of peer_client.erl."""
        return self.call_later(url, secret, target, options, **bindings).result(PATIENCE).decode()

    def call_later(
        self, url: str, secret: bytes, target: str, options: str = "#{}", **bindings: Bindable
    ) -> Future[bytes]:
        """As `call`; the future has the printed result."""
        match = _CALL.fullmatch(target)
        assert match, f"not module:function(arguments): {target!r}"
        expression = (
            f"peer_client:call(Url, Secret, {match['module']}, {match['function']}, [{match['args']}], {options})"
        )
        return self.ask_later(expression, Url=url, Secret=secret, **bindings)

    @contextlib.contextmanager
    def serving(
        self, exposed: str = EXPOSED, options: str = "#{}", *, secret: bytes, scheme: str = "http", **bindings: str
    ) -> Iterator[Peer]:
        """A server on a free port of 127.0.0.1; `options` as peer_server.erl has them."""
        port = int(self.ask(f"peer_server:start(Secret, {exposed}, {options})", Secret=secret, **bindings))
        try:
            yield Peer(self, port, f"{scheme}://127.0.0.1:{port}")
        finally:
            self.ask("peer_server:stop(Port)", Port=port)

    def __enter__(self) -> Self:
        try:
            self._started.result(PATIENCE)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended before us
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # something is broken: leave nothing behind
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE)


def _binding(name: str, value: Bindable) -> bytes:
    kind = b"i" if isinstance(value, int) else b"b"
    raw = value if isinstance(value, bytes) else str(value).encode()
    return bytes([len(name)]) + name.encode() + struct.pack(">cI", kind, len(raw)) + raw


def missing() -> bool:
    """Whether there is no Erlang here, or not all of it."""
    if shutil.which("erl") is None or shutil.which("erlc") is None:
        return True
    wanted = "[{ok, _} = application:ensure_all_started(Name) || Name <- [crypto, ssl, inets]]"
    probe = ["erl", "-noinput", "-eval", f"try {wanted}, halt(0) catch _:_ -> halt(1) end."]
    done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    return done.returncode != 0


def compile_into(folder: Path) -> None:
    """Compile all modules beside this one; a warning is a failure."""
    sources = sorted(str(path) for path in SOURCES.glob("*.erl"))
    command = ["erlc", "-Wall", "-Werror", "-o", str(folder), *sources]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
