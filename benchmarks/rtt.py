"""What the delaying relay really does: its round trip for one byte and for a megabyte, measured with plain sockets."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import asdict, dataclass

import processes


@dataclass(frozen=True)
class RoundTrip:
    """In seconds. `connect` is a fresh connection with its first byte there and back."""

    byte: float
    megabyte: float
    connect: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


class Echo:
    """A server on a thread that sends everything back."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def close(self) -> None:
        """No more connections."""
        self.listener.close()


def _there_and_back(connection: socket.socket, data: bytes) -> float:
    began = time.perf_counter()
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    received = 0
    while received < len(data):
        received += len(connection.recv(1 << 20))
    sender.join()
    return time.perf_counter() - began


def measure(delay: float, times: int = 7) -> RoundTrip:
    """Medians over some trips through a relay with that delay each way."""
    echo = Echo()
    relay = processes.Link([echo.port], delay)
    try:
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", relay.ports[echo.port])) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _there_and_back(connection, b"x")
            connect = time.perf_counter() - began
            byte = statistics.median(_there_and_back(connection, b"x") for _ in range(times))
            megabyte = statistics.median(_there_and_back(connection, b"x" * (1 << 20)) for _ in range(3))
    finally:
        relay.stop()
        echo.close()
    return RoundTrip(byte, megabyte, connect)
