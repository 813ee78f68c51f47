"""What bytes go through: the ends of TCP connections, and the paths between them, which may be slow, narrow or dead.

A `Sink` takes bytes. An `End` is a socket: what is written goes out, what comes in is written to the next sink. A
`Path` is one direction of one connection: what is written comes out later, or never. Whoever is full says so, and calls
`room` when it is not any more; so nothing is read faster than it can be passed on.

Rule: bytes leave a path in the order in which they came, and the end of a stream travels like bytes.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from .conditions import Conditions

#: What may be on its way in one direction of one connection: without a limit of bandwidth, and in front of one; bytes.
WINDOW, BUFFER = 16 * 1024 * 1024, 64 * 1024
#: What goes over a narrow link in one piece: what it carries in that time, seconds, and at least one packet, bytes.
GRAIN, PACKET = 0.01, 1460


def _nobody() -> None:
    """Nobody waits for room."""


class Sink(Protocol):
    """Takes bytes.

    Attributes:
        full: the next bytes should wait; they are taken all the same.
        room: called when it is no longer full.
    """

    full: bool
    room: Callable[[], None]

    def write(self, data: bytes) -> None:
        """Take these; after the end they are ignored."""
        ...

    def end(self, *, reset: bool = False) -> None:
        """Nothing more comes; with `reset`, what came may be thrown away."""
        ...


class End(asyncio.Protocol):
    """One end of a TCP connection, and a `Sink`: full until it is connected.

    Args:
        lost: called when the connection is over.

    Attributes:
        onward: gets what comes in; to be set before it is connected.
    """

    onward: Sink

    def __init__(self, lost: Callable[[End], None]) -> None:
        self.full = True
        self.room: Callable[[], None] = _nobody
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._is_over = False
        self._has_ended = False
        self._has_heard_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._is_over:  # it was cut while it was being made
            transport.abort()
            return
        # asyncio does so by itself only for sockets that know the number of their protocol: accepted ones do not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.onward.room = transport.resume_reading
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self.onward.write(data)
        if self.onward.full and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The other direction stays open, until it ends too."""
        self._has_heard_end = True
        self.onward.end()
        return not self._has_ended

    def connection_lost(self, exc: Exception | None) -> None:
        """Over, whatever it was."""
        self._is_over = True
        self.onward.room = _nobody
        self.onward.end(reset=exc is not None)
        self._lost(self)

    def pause_writing(self) -> None:
        """What was written waits to be sent."""
        self.full = True

    def resume_writing(self) -> None:
        """It does not any more."""
        self.full = False
        self.room()

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        if self._transport is not None and not self._is_over:
            self._transport.write(data)

    def end(self, *, reset: bool = False) -> None:
        """See `Sink`."""
        if reset:
            self.abort(reset=True)
        elif self._transport is not None and not self._is_over:
            self._has_ended = True
            if self._has_heard_end:
                self._transport.close()
            else:
                self._transport.write_eof()

    def abort(self, *, reset: bool = False) -> None:
        """End at once; what was written and is not yet sent is lost. With `reset`, by a TCP reset."""
        self._is_over = True
        if self._transport is None:
            return
        if reset and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class Way:
    """One direction of a link, which all its connections share."""

    def __init__(self, conditions: Conditions, seed: str) -> None:
        self.bytes = 0
        #: Bytes are held back, and come later.
        self.is_held = False
        #: Bytes get lost, and with them their connections.
        self.is_dead = False
        self._seed = seed
        self._free_at = 0.0
        self.set(conditions)

    def set(self, conditions: Conditions) -> None:
        """Conditions for what is written from now on."""
        self.conditions = conditions
        stalls, narrow = conditions.stalls, conditions.bandwidth
        self._dice = random.Random(f"{self._seed}{stalls.seed if stalls else 0}")  # noqa: S311 - to be repeated
        self.is_clear = conditions == Conditions()
        self.window = WINDOW if narrow is None else int(narrow * conditions.delay) + BUFFER
        self._grain = None if narrow is None else max(PACKET, int(narrow * GRAIN))
        if conditions.drip is not None:
            self._grain = 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What travels as one."""
        size = self._grain or len(data)
        return (data[begin : begin + size] for begin in range(0, len(data), size))

    def leave(self, size: int, now: float) -> float:
        """When so many bytes, which come now, have left this end."""
        if self.conditions.bandwidth is None:
            return now
        self._free_at = max(now, self._free_at) + size / self.conditions.bandwidth
        return self._free_at

    def held_up(self) -> float:
        """For how long the next piece is held up, seconds."""
        stalls = self.conditions.stalls
        return stalls.seconds if stalls is not None and self._dice.random() < stalls.share else 0.0


class Fate:
    """What the two paths of a connection share.

    Attributes:
        is_lost: bytes of it got lost, so that nothing can ever come of it again.
        opens: when its handshake is over, by the loop's clock.
    """

    def __init__(self, opens: float, *, is_lost: bool) -> None:
        self.opens = opens
        self.is_lost = is_lost


class Path:
    """One direction of one connection, and a `Sink`."""

    def __init__(self, way: Way, fate: Fate, target: Sink) -> None:
        self.full = False
        self.room: Callable[[], None] = _nobody
        self._way, self._fate, self._target = way, fate, target
        #: When it comes out, and what; None is the end, by a reset or not.
        self._travelling: deque[tuple[float, bytes | None, bool]] = deque()
        self._size = 0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        target.room = self.let_out

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        way = self._way
        way.bytes += len(data)
        if self._is_lost():
            return
        if way.is_clear and not (self._travelling or self._target.full or way.is_held):
            self._target.write(data)
            return
        drip = way.conditions.drip or 0.0
        for piece in way.pieces(data):
            # A new connection's first bytes wait until their handshake would be over.
            due = way.leave(len(piece), max(self._loop.time(), self._fate.opens)) + way.conditions.delay
            self._last_due = max(due + way.held_up(), self._last_due + drip)
            self._travelling.append((self._last_due, piece, False))
        self._size += len(data)
        self.let_out()

    def end(self, *, reset: bool = False) -> None:
        """See `Sink`."""
        if self._is_lost():
            return
        due = max(self._loop.time(), self._fate.opens) + self._way.conditions.delay
        self._last_due = max(due, self._last_due)
        self._travelling.append((self._last_due, None, reset))
        self.let_out()

    def let_out(self) -> None:
        """Pass on what is due, and set one timer for the rest."""
        now = self._loop.time()
        while self._travelling and not (self._target.full or self._way.is_held):
            due, data, reset = self._travelling[0]
            if due > now:
                break
            self._travelling.popleft()
            if data is None:
                self._target.end(reset=reset)
            else:
                self._size -= len(data)
                self._target.write(data)
        self._set_timer()
        was_full, self.full = self.full, self._size > (self._way.window if not self.full else self._way.window // 2)
        if was_full and not self.full:
            self.room()

    def _set_timer(self) -> None:
        if self._timer is not None and (not self._travelling or self._timer.when() != self._travelling[0][0]):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and self._travelling and not (self._target.full or self._way.is_held):
            self._timer = self._loop.call_at(self._travelling[0][0], self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.let_out()

    def _is_lost(self) -> bool:
        self._fate.is_lost = self._fate.is_lost or self._way.is_dead
        return self._fate.is_lost
