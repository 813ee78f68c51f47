from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.errors import ConfigurationError
from backwater_tornado.worker import spool as spools
from backwater_tornado.worker.spool import (
    MOST_BYTES,
    REMEMBERED,
    About,
    Kept,
    Spool,
    Status,
    read_status,
    read_superseded,
    read_waiting,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    with closing(Spool(path, 100)) as spool:
        yield spool


def kept(token: int, size: int = 10, session: str = "s") -> Kept:
    return Kept(session, token, About(float(token), f"id{token}", "t.add", "q"), b"x" * size)


def tokens(spool: Spool, session: str = "s", after: int = 0) -> list[int]:
    return [each.token for each in spool.portion(session, after)]


def test_outcomes_come_back_as_they_were_and_in_their_order(spool: Spool, path: Path) -> None:
    one, two, other = kept(5), kept(3, 20), kept(4, session="another")
    assert spool.exchange([one, two, other], ()) == [1, 2, 3]
    spool.close()
    with closing(Spool(path)) as again:
        assert again.sessions() == {"s": [5, 3], "another": [4]}
        assert again.portion("s", 0) == [one._replace(number=1), two._replace(number=2)]
        assert again.portion("s", 1) == [two._replace(number=2)]
        assert again.portion("s", 2) == []


def test_no_more_is_kept_than_there_is_room_for(spool: Spool, path: Path) -> None:
    assert spool.exchange([kept(1, 60), kept(2, 50), kept(3, 10)], ()) == [1]
    assert spool.exchange([kept(2, 50)], ()) == []
    assert spool.exchange([kept(2, 50)], [1, 99]) == [2]
    spool.close()
    with closing(Spool(path, 100)) as again:  # which knows what is there
        assert again.exchange([kept(3, 60)], ()) == []
        assert again.exchange([kept(3, 50)], ()) == [3]
        assert tokens(again) == [2, 3]


def test_a_portion_is_bounded_in_number_and_in_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MOST", 3)
    with closing(Spool(path)) as spool:
        sizes = [10, 10, 10, 10, 2 * MOST_BYTES, MOST_BYTES // 2, MOST_BYTES // 2, 1]
        spool.exchange([kept(token, size) for token, size in enumerate(sizes)], ())
        portions = []
        while portion := spool.portion("s", portions[-1][-1] + 1 if portions else 0):
            portions.append([each.token for each in portion])
        assert portions == [[0, 1, 2], [3], [4], [5, 6], [7]]


def test_anybody_may_look_while_a_worker_has_it(spool: Spool, path: Path) -> None:
    assert read_status(path) == Status(0, None, 0, 0)
    spool.exchange([kept(7), kept(5, 20)], ())
    about = [About(1.0, "a", "t.add", "q"), About(2.0, "b", "", "q")]
    spool.exchange((), (), about)
    assert read_status(path) == Status(2, 5.0, 30, 2)
    assert [each.label for each in read_waiting(path, 10)] == ["t.add[id7]", "t.add[id5]"]
    assert len(read_waiting(path, 1)) == 1
    assert read_superseded(path, 10) == about[::-1]
    assert read_superseded(path, 1) == about[1:]
    assert about[1].label == "?[b]"


def test_of_what_was_superseded_the_last_are_remembered(spool: Spool, path: Path) -> None:
    spool.exchange((), (), [About(0.0, str(number), "t", "q") for number in range(REMEMBERED + 5)])
    assert read_status(path).superseded == REMEMBERED
    assert read_superseded(path, 1)[0].id == str(REMEMBERED + 4)


def test_a_spool_is_one_workers(spool: Spool, path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"spool .* is in use by another worker; stop that one, or name"):
        Spool(path)


def test_a_file_that_is_no_spool_is_refused_by_everybody(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "store.db")):
        pass
    with pytest.raises(ConfigurationError, match="is not a spool of a worker; name another file"):
        Spool(tmp_path / "store.db")
    with pytest.raises(ConfigurationError, match="is not a spool of a worker"):
        read_status(tmp_path / "store.db")
    (tmp_path / "text").write_text("what is written by hand" * 100)
    with pytest.raises(ConfigurationError, match="cannot be opened: file is not a database"):
        Spool(tmp_path / "text")
    with pytest.raises(ConfigurationError, match="cannot be read: file is not a database"):
        read_status(tmp_path / "text")
    with pytest.raises(ConfigurationError, match="cannot be read: unable to open"):
        read_status(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_spool_of_a_newer_version_is_left_as_it_is(spool: Spool, path: Path) -> None:
    spool.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="made by a newer version"):
        Spool(path)
