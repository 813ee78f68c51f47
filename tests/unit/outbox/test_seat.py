"""The seat of a forwarder: one at a time, whoever it is; and the bell."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from backwater_tornado.errors import ConfigurationError
from backwater_tornado.outbox.seat import Seat, make_seat, ring


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_seat(tmp_path / "o.db")
    return tmp_path / "o.db"


def has_rung(seat: Seat) -> bool:
    return bool(select.select([seat.fd], [], [], 0)[0])


def test_one_at_a_time_has_it(path: Path) -> None:
    make_seat(path)  # again, by another process
    one, other = Seat(path), Seat(path)
    assert one.take()
    assert not other.take()
    assert other.fd < 0
    one.leave()
    assert other.take()
    other.leave()
    other.leave()


def test_it_is_closed_to_others(path: Path) -> None:
    assert (path.parent / "o.db-forwarder").stat().st_mode & 0o777 == 0o600


def test_without_its_pipe_it_cannot_be_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="o.db-forwarder.* cannot be used: No such file"):
        Seat(tmp_path / "o.db").take()


def test_whoever_has_it_hears_the_bell(path: Path) -> None:
    seat = Seat(path)
    assert seat.take()
    assert not has_rung(seat)
    ring(path)
    ring(path)
    assert has_rung(seat)
    seat.hush()
    assert not has_rung(seat)
    seat.hush()
    seat.leave()


def test_ringing_never_waits_and_never_fails(path: Path, tmp_path: Path) -> None:
    ring(path)  # nobody listens
    ring(tmp_path / "nothing.db")
    seat = Seat(path)
    assert seat.take()
    for _ in range(70_000):  # more than the pipe holds
        ring(path)
    seat.hush()
    assert not has_rung(seat)
    seat.leave()


def test_a_child_leaves_it_to_its_parent(path: Path) -> None:
    seat = Seat(path)
    seat.abandon()
    assert seat.take()
    child = os.fork()
    if not child:
        seat.abandon()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not Seat(path).take()
    seat.leave()


def test_a_child_that_lives_on_does_not_keep_it(path: Path) -> None:
    seat = Seat(path)
    assert seat.take()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)  # until the parent closes
        os._exit(0)
    os.close(reading)
    seat.leave()
    assert seat.take()
    seat.leave()
    os.close(writing)
    os.waitpid(child, 0)
