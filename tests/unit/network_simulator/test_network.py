"""A bad network with any protocol over it: a server that echoes, and sockets."""

from __future__ import annotations

import gc
import socket
import socketserver
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.testing import BadNetwork, Conditions, Counts, Side, Stalls

#: Seconds; reached only when something is broken.
PATIENCE = 10.0
#: Seconds in which nothing comes, where nothing should.
SILENCE = 0.05


class Echo(socketserver.BaseRequestHandler):
    """Gives back what comes, and ends when it ends; says in the server how each connection ended."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, EchoServer)
        server.opened.release()
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
            how = "FIN"
        except ConnectionError:
            how = "RST"
        server.ends.append(how)
        server.ended.release()


class EchoServer(socketserver.ThreadingTCPServer):
    """Counts connections by semaphores, so that a test can wait."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.opened = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.ends: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def network(server: EchoServer) -> Iterator[BadNetwork]:
    with BadNetwork("127.0.0.1", server.port) as running:
        yield running


def connect(network: BadNetwork) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), PATIENCE)


def receive(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = sock.recv(size - len(got))
        if not piece:
            raise EOFError(f"{len(got)} of {size} bytes came")
        got += piece
    return got


def ask(sock: socket.socket, data: bytes = b"hello") -> bytes:
    sock.sendall(data)
    return receive(sock, len(data))


def is_silent(sock: socket.socket) -> bool:
    sock.settimeout(SILENCE)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE)
    return False


def how_it_ends(sock: socket.socket) -> str:
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        return "RST"
    return "FIN"


def test_bytes_go_both_ways_and_are_counted(network: BadNetwork) -> None:
    with connect(network) as one, connect(network) as other:
        assert ask(one, b"hello") == b"hello"
        assert ask(other, b"and you") == b"and you"
        assert network.counts() == Counts(up=12, down=12, connections=2, open=2)


def test_a_lot_goes_through_while_both_sides_wait_for_each_other(network: BadNetwork) -> None:
    sent = bytes(range(256)) * 40_000
    with connect(network) as sock:
        sending = threading.Thread(target=sock.sendall, args=(sent,))
        sending.start()
        assert receive(sock, len(sent)) == sent
        sending.join()


def test_an_end_travels_and_leaves_the_other_direction_open(server: EchoServer, network: BadNetwork) -> None:
    with connect(network) as sock:
        sock.sendall(b"last words")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 10) == b"last words"
        assert how_it_ends(sock) == "FIN"
    assert server.ended.acquire(timeout=PATIENCE)
    assert server.ends == ["FIN"]


def test_a_reset_travels(server: EchoServer, network: BadNetwork) -> None:
    with connect(network) as sock:
        assert ask(sock) == b"hello"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert server.ended.acquire(timeout=PATIENCE)
    assert server.ends == ["RST"]


def test_a_server_that_is_not_there_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    with (
        BadNetwork("127.0.0.1", free) as network,
        pytest.raises(ConnectionResetError),  # of one or the other
        connect(network) as sock,
    ):
        sock.recv(1)


def test_a_connection_that_is_over_is_forgotten(server: EchoServer, network: BadNetwork) -> None:
    with connect(network) as sock:
        assert ask(sock) == b"hello"
        assert network.counts().open == 1
    assert server.ended.acquire(timeout=PATIENCE)
    with connect(network) as last:  # whatever comes after it, comes after it has been forgotten
        assert ask(last) == b"hello"
        until = time.monotonic() + PATIENCE
        while network.counts().open > 1:
            assert time.monotonic() < until


# Conditions


def test_a_delay_is_waited_each_way_and_once_more_for_the_handshake(server: EchoServer) -> None:
    with BadNetwork("127.0.0.1", server.port, delay=0.05) as network:
        begun = time.monotonic()
        with connect(network) as sock:
            assert ask(sock) == b"hello"
            assert time.monotonic() - begun >= 0.2
            begun = time.monotonic()
            assert ask(sock) == b"hello"
            assert time.monotonic() - begun >= 0.1


def test_what_is_delayed_travels_side_by_side(server: EchoServer) -> None:
    with BadNetwork("127.0.0.1", server.port, delay=0.05) as network, connect(network) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.monotonic()
        for number in range(200):
            sock.sendall(b"%03d" % number)
        assert receive(sock, 600) == b"".join(b"%03d" % number for number in range(200))
        assert time.monotonic() - begun < 100 * 0.1  # one after the other, it would be twice as much


def test_an_end_is_delayed_like_bytes(server: EchoServer) -> None:
    with BadNetwork("127.0.0.1", server.port, delay=0.05) as network, connect(network) as sock:
        begun = time.monotonic()
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 5) == b"hello"
        assert how_it_ends(sock) == "FIN"
        assert time.monotonic() - begun >= 0.2


def test_bandwidth_is_shared_by_all_connections(server: EchoServer) -> None:
    with BadNetwork("127.0.0.1", server.port, bandwidth=1e6) as network:
        begun = time.monotonic()
        with connect(network) as one, connect(network) as other:
            for sock in (one, other):
                sock.sendall(b"x" * 50_000)
            for sock in (one, other):
                receive(sock, 50_000)
        assert time.monotonic() - begun >= 0.1


def test_bytes_drip(server: EchoServer) -> None:
    with BadNetwork("127.0.0.1", server.port, drip=0.01) as network, connect(network) as sock:
        begun = time.monotonic()
        sock.sendall(b"0123456789")
        assert sock.recv(10) == b"0"
        assert receive(sock, 9) == b"123456789"
        assert time.monotonic() - begun >= 0.09


def test_stalls_hold_up_what_follows(server: EchoServer) -> None:
    with BadNetwork("127.0.0.1", server.port, stalls=Stalls(1.0, 0.05)) as network, connect(network) as sock:
        begun = time.monotonic()
        assert ask(sock) == b"hello"
        assert time.monotonic() - begun >= 0.1
        network.change(stalls=Stalls(0.0, PATIENCE))
        assert ask(sock) == b"hello"


def test_a_share_of_stalls_is_the_same_from_the_same_seed(server: EchoServer) -> None:
    def stalled(seed: int) -> list[bool]:
        with BadNetwork("127.0.0.1", server.port, stalls=Stalls(0.5, 0.02, seed)) as network, connect(network) as sock:
            times = []
            for _ in range(12):
                begun = time.monotonic()
                ask(sock)
                times.append(time.monotonic() - begun >= 0.02)
            return times

    one = stalled(1)
    assert True in one
    assert any(stalled(seed) != one for seed in (2, 3))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Conditions(delay=-1),
        lambda: Conditions(bandwidth=0),
        lambda: Conditions(drip=0),
        lambda: Stalls(1.5),
        lambda: Stalls(0.5, -1),
        lambda: BadNetwork("127.0.0.1", 1, delay=-1),
    ],
)
def test_impossible_conditions_are_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(InvalidOption):
        wrong()


def test_conditions_can_be_changed_while_it_runs(network: BadNetwork) -> None:
    with connect(network) as sock:
        assert ask(sock) == b"hello"
        network.change(delay=0.05)
        begun = time.monotonic()
        assert ask(sock) == b"hello"
        assert time.monotonic() - begun >= 0.1


# What is done to connections


@pytest.mark.parametrize(("reset", "how"), [(False, "FIN"), (True, "RST")])
def test_all_connections_can_be_cut_and_new_ones_are_taken(
    server: EchoServer, network: BadNetwork, reset: bool, how: str
) -> None:
    with connect(network) as one, connect(network) as other:
        assert ask(one) == ask(other) == b"hello"
        network.cut_all(reset=reset)
        assert how_it_ends(one) == how_it_ends(other) == how
        for _ in range(2):
            assert server.ended.acquire(timeout=PATIENCE)
        assert server.ends == [how, how]
    with connect(network) as again:
        assert ask(again) == b"hello"


def test_connections_can_be_cut_again_and_again_until_healed(network: BadNetwork) -> None:
    network.cut_every(PATIENCE)
    network.cut_every(0.01)
    for _ in range(3):
        with connect(network) as sock:
            assert how_it_ends(sock) == "FIN"
    network.heal()
    with connect(network) as sock:
        assert is_silent(sock)
        assert ask(sock) == b"hello"


def test_a_stalled_network_loses_nothing(network: BadNetwork) -> None:
    with connect(network) as old:
        assert ask(old) == b"hello"
        network.stall()
        old.sendall(b"later")
        with connect(network) as new:
            new.sendall(b"later")
            assert is_silent(old)
            network.heal()
            assert receive(old, 5) == receive(new, 5) == b"later"


def test_a_blackhole_swallows_all_and_lets_go_of_nothing_but_the_idle(server: EchoServer, network: BadNetwork) -> None:
    with connect(network) as idle, connect(network) as old:
        assert ask(idle) == ask(old) == b"hello"
        network.blackhole()
        old.sendall(b"lost")
        with connect(network) as new:
            new.sendall(b"lost")
            assert is_silent(old)
            assert is_silent(new)
            network.heal()
            old.sendall(b"too late")
            assert is_silent(old)  # nothing of before comes, and no end either: it is half-open for ever
            assert is_silent(new)
            assert ask(idle) == b"hello"
        for _ in range(2):
            assert server.opened.acquire(timeout=PATIENCE)
        with connect(network) as later:
            assert ask(later) == b"hello"
            assert server.opened.acquire(timeout=PATIENCE)
    assert not server.opened.acquire(blocking=False)  # it has never heard of the one that was new then


def test_a_blackhole_swallows_ends(server: EchoServer, network: BadNetwork) -> None:
    with connect(network) as sock:
        assert ask(sock) == b"hello"
        network.blackhole()
    assert not server.ended.acquire(timeout=SILENCE)
    network.heal()
    network.cut_all()
    assert server.ended.acquire(timeout=PATIENCE)


def test_a_side_that_is_forgotten_ends_and_the_other_hears_nothing(server: EchoServer, network: BadNetwork) -> None:
    with connect(network) as sock:
        assert ask(sock) == b"hello"
        network.forget(Side.SERVER)
        assert server.ended.acquire(timeout=PATIENCE)
        sock.sendall(b"anybody?")
        assert is_silent(sock)
    with connect(network) as sock:
        assert ask(sock) == b"hello"
        network.forget(Side.CLIENT)
        assert how_it_ends(sock) == "FIN"
        assert not server.ended.acquire(timeout=SILENCE)


# The simulator itself


def test_it_leaves_no_socket_open_whenever_it_ends(server: EchoServer) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for delay in (0.0, 60.0) * 20:
            with BadNetwork("127.0.0.1", server.port, delay=delay) as network:
                sock = connect(network)
            sock.close()
        gc.collect()
    assert [str(each.message) for each in caught] == []


def test_the_server_may_be_another_by_and_by(server: EchoServer) -> None:
    with BadNetwork("127.0.0.1", 1) as network:
        assert network.upstream == ("127.0.0.1", 1)
        assert network.url == f"http://127.0.0.1:{network.port}"
        network.upstream = ("localhost", server.port)
        with closing(connect(network)) as sock:
            assert ask(sock) == b"hello"
