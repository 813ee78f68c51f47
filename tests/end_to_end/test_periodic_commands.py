"""The commands for periodic tasks, as processes against a broker that serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Entry, Message, Publication
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.tasks.entries import make_entry
from backwater_tornado.tasks.messages import TaskHeaders, encode_headers
from backwater_tornado.tasks.schedule import Cron, Every, Schedule
from backwater_tornado.testing import running_broker
from tests.end_to_end.processes import run

# Real processes: once, on the source tree.
pytestmark = pytest.mark.slow

KEY = backwater.Key(b"a secret of who may do all", "all")
NOW = 1_700_000_000.0


def entry(name: str, schedule: Schedule) -> Entry:
    message = Message(name, b"", encode_headers(TaskHeaders(f"shop.{name}")))
    return make_entry(name, schedule, Publication(message, "jobs"), NOW)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "site.key").write_text(format_key(KEY))
    (tmp_path / "site.key").chmod(0o600)
    with running_broker(secret=KEY) as broker:
        (tmp_path / "backwater.toml").write_text(f'broker = "{broker.url}"\nsecret_file = "site.key"\nproxy = ""\n')
        with backwater.Client(broker.url, KEY, proxy="") as caller:
            for each in (entry("report", Cron("30 2 * * *", "Europe/Berlin")), entry("clean", Every(300))):
                assert caller.call("broker", "plan", each)
        yield tmp_path


def told(folder: Path, *words: str) -> tuple[int, str, str]:
    done = run(folder, "periodic", *words)
    return done.returncode, done.stdout, done.stderr


def test_periodic_tasks_are_listed_the_next_due_first(folder: Path) -> None:
    code, out, err = told(folder, "list")
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "name task schedule due to",
        "clean shop.clean Every 5 minutes 2023-11-14T22:18:20+00:00 jobs",
        "report shop.report At 02:30 every day (Europe/Berlin) 2023-11-15T01:30:00+00:00 jobs",
    ]
    code, out, err = told(folder, "list", "--json")
    assert (code, err) == (0, "")
    assert [(row["name"], row["schedule"]) for row in json.loads(out)] == [
        ("clean", "Every 5 minutes"),
        ("report", "At 02:30 every day (Europe/Berlin)"),
    ]


def test_what_is_dropped_is_listed_no_more(folder: Path) -> None:
    assert told(folder, "drop", "clean", "report", "--json") == (0, '{"dropped": 2}\n', "")
    assert told(folder, "list") == (0, "", "no periodic tasks\n")


def test_what_is_not_there_is_named_and_all_else_dropped(folder: Path) -> None:
    code, out, err = told(folder, "drop", "none", "clean")
    assert (code, out) == (2, "dropped: 1\n")
    assert err.startswith("backwater: there is no periodic task 'none'")
