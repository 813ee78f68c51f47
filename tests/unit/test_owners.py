from __future__ import annotations

import os
from pathlib import Path

import pytest

from backwater_tornado import owners
from backwater_tornado.owners import Owners


def test_an_owner_is_alive_until_it_leaves(tmp_path: Path) -> None:
    one, other = Owners(tmp_path / "o", 1), Owners(tmp_path / "o", 1)
    with one.gate():
        one.join()
    me = one.me
    assert one.alive(me)
    assert other.alive(me)
    one.leave()
    assert one.me == ""
    assert not other.alive(me)
    one.leave()  # once more does no harm


def test_an_owner_knows_that_it_lives_even_if_its_file_was_removed(tmp_path: Path) -> None:
    with (one := Owners(tmp_path, 1)).gate():
        one.join()
    (tmp_path / one.me).unlink()
    assert one.alive(one.me)
    one.leave()


def test_an_owner_nobody_has_heard_of_is_dead(tmp_path: Path) -> None:
    with (one := Owners(tmp_path / "o", 1)).gate():
        assert not one.alive("0123456789abcdef")


def test_two_who_ask_do_not_take_each_other_for_the_owner(tmp_path: Path) -> None:
    asking = Owners(tmp_path, 1)
    (tmp_path / "dead").touch()
    fd = os.open(tmp_path / "dead", os.O_RDONLY)
    owners.fcntl.flock(fd, owners.fcntl.LOCK_SH)  # as the other one does
    assert not asking.alive("dead")
    os.close(fd)


def test_what_the_dead_have_left_is_removed(tmp_path: Path) -> None:
    one, other = Owners(tmp_path, 1), Owners(tmp_path, 1)
    with one.gate():
        (tmp_path / "dead").touch()
        assert not one.anyone_alive()
        one.join()
        (tmp_path / "dead").touch()
        assert other.anyone_alive()
    assert {file.name for file in tmp_path.iterdir()} == {"gate", one.me}
    one.leave()


def test_nobody_else_can_read_the_directory(tmp_path: Path) -> None:
    with (one := Owners(tmp_path / "o", 1)).gate():
        one.join()
    assert (tmp_path / "o").stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "o").iterdir()] == [0o600, 0o600]
    one.leave()


def test_the_gate_tells_the_boot_and_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Owners(tmp_path, 1).gate() as gate:
        assert gate.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert not gate.fits()
        gate.claim()
        assert gate.fits()
    with Owners(tmp_path, 1).gate() as gate:
        assert gate.fits()
    with Owners(tmp_path, 10).gate() as gate:
        assert not gate.fits()
        gate.claim()
    with Owners(tmp_path, 1).gate() as gate:
        assert not gate.fits()
        gate.claim()
        assert gate.fits()
    (tmp_path / "boot").write_text("another boot\n")
    monkeypatch.setattr(owners, "_BOOT_ID", tmp_path / "boot")
    with Owners(tmp_path, 1).gate() as gate:
        assert not gate.fits()


def test_a_system_may_not_name_its_boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_BOOT_ID", tmp_path / "none")
    with Owners(tmp_path, 1).gate() as gate:
        assert gate.boot == ""


def test_the_gate_lets_one_in_at_a_time(tmp_path: Path) -> None:
    with Owners(tmp_path, 1).gate():
        fd = os.open(tmp_path / "gate", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            owners.fcntl.flock(fd, owners.fcntl.LOCK_EX | owners.fcntl.LOCK_NB)
    owners.fcntl.flock(fd, owners.fcntl.LOCK_EX | owners.fcntl.LOCK_NB)
    os.close(fd)


def test_the_gate_is_open_again_even_if_a_child_was_forked_behind_it(tmp_path: Path) -> None:
    inherited = -1
    with Owners(tmp_path, 1).gate() as gate:
        inherited = os.dup(gate._fd)  # what a fork does
    with Owners(tmp_path, 1).gate():
        pass
    os.close(inherited)


def test_forgetting_leaves_the_lock_with_the_other_descriptor(tmp_path: Path) -> None:
    one = Owners(tmp_path, 1)
    with one.gate():
        one.join()
    parent = os.dup(one._fd)  # what a fork does
    me = one.me
    one.forget()
    assert one.me == ""
    assert one.alive(me)
    os.close(parent)
    assert not one.alive(me)
    one.forget()
