from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from backwater_tornado.errors import ConfigurationError, InvalidOption
from backwater_tornado.spool_commands import spool_group
from backwater_tornado.worker.spool import About, Kept, Spool

AT = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(Spool(tmp_path / "spool.db")) as spool:
        spool.exchange([Kept("s", token, About(AT, f"id{token}", "t.add", "q"), b"12345") for token in (1, 2)], ())
        spool.exchange((), (), [About(AT, "gone", "t.add", "q")])
    return tmp_path / "spool.db"


def told(*words: str | Path) -> str:
    done = CliRunner(env={"BACKWATER_SPOOL": ""}).invoke(
        spool_group, [str(each) for each in words], catch_exceptions=False, standalone_mode=False
    )
    assert done.return_value == 0
    return done.output


def test_what_waits_and_what_was_superseded_is_counted(path: Path) -> None:
    found = json.loads(told("status", "--spool", path, "--json"))
    assert found == {"waiting": 2, "oldest": found["oldest"], "bytes": 10, "superseded": 1}
    assert found["oldest"].startswith("2023-11-14T")
    with closing(Spool(path)) as spool:  # which a worker has
        spool.exchange((), [1, 2])
        assert json.loads(told("status", "--spool", path, "--json"))["oldest"] == ""


def test_it_is_listed(path: Path) -> None:
    assert [row["id"] for row in json.loads(told("list", "--spool", path, "--json"))] == ["id1", "id2"]
    assert [row["id"] for row in json.loads(told("list", "--spool", path, "--json", "--limit", "1"))] == ["id1"]
    (row,) = json.loads(told("list", "--superseded", "--spool", path, "--json"))
    assert (row["id"], row["task"], row["queue"]) == ("gone", "t.add", "q")
    assert "t.add" in told("list", "--spool", path)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        told("status", "--spool", tmp_path / "none.db")
    with pytest.raises(InvalidOption, match="give --spool FILE"):
        told("list")
