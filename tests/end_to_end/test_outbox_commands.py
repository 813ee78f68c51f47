"""The commands for an outbox, as processes against a broker that serves."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import Queue
from backwater_tornado.outbox.parcels import Parcel, make_parcels
from backwater_tornado.outbox.sqlite_store import SqliteOutbox
from backwater_tornado.outbox.stores import open_outbox
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.tasks import asks
from backwater_tornado.tasks.signatures import signature
from backwater_tornado.tasks.workflow import Context, plan_canvas
from backwater_tornado.testing import RunningBroker, running_broker
from tests.end_to_end.processes import Serving, run
from tests.postgres import schema

# Real processes: once, on the source tree.
pytestmark = pytest.mark.slow

KEY = backwater.Key(b"a secret of who forwards", "all")
AT = 1_700_000_000.0


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with running_broker(secret=KEY) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, broker: RunningBroker) -> Path:
    (tmp_path / "site.key").write_text(format_key(KEY))
    (tmp_path / "site.key").chmod(0o600)
    (tmp_path / "backwater.toml").write_text(
        f'broker = "{broker.url}"\nsecret_file = "site.key"\nproxy = ""\noutbox = "o.db"\n'
    )
    return tmp_path


def parcels(*ids: str, queue: str = "default") -> list[Parcel]:
    context = Context(now=AT, new_id=str)
    return make_parcels([plan_canvas(signature("m.f", queue=queue, task_id=each), context) for each in ids], AT)


def put(folder: Path, *ids: str, queue: str = "default") -> None:
    box = SqliteOutbox(folder / "o.db")
    box.put(parcels(*ids, queue=queue))
    box.close()


def told(folder: Path, *words: str) -> tuple[int, str, str]:
    done = run(folder, "outbox", *words)
    return done.returncode, done.stdout, done.stderr


def ready(broker: RunningBroker) -> int:
    with backwater.App(broker.url, KEY, default=False, proxy="") as app:
        return sum(each.ready for each in app.ask(asks.stats()))


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_what_waits_is_shown_and_listed(folder: Path) -> None:
    put(folder, "one", "two")
    put(folder, "three", queue="reports")
    code, out, err = told(folder, "status")
    assert (code, err) == (0, "")
    assert lines(out)[:4] == [
        "waiting 3",
        'queues {"default":2,"reports":1}',
        "oldest 2023-11-14T22:13:20+00:00",
        "refused 0",
    ]
    assert json.loads(told(folder, "status", "--json")[1])["forwarded"] is False
    code, out, err = told(folder, "list", "--limit", "2")
    assert (code, err) == (0, "")
    assert [line.split()[:4] for line in out.splitlines()] == [
        ["id", "task", "queues", "messages"],
        ["one", "m.f", "default", "1"],
        ["two", "m.f", "default", "1"],
    ]
    assert told(folder, "list", "--refused") == (0, "", "none was refused\n")


def test_flushing_forwards_all_and_keeps_what_is_refused(folder: Path, broker: RunningBroker) -> None:
    with backwater.App(broker.url, KEY, default=False, proxy="") as app:
        app.ask(asks.declare(queues=[Queue("full", max_length=0)]))
    put(folder, "one", "two")
    put(folder, "three", queue="full")
    assert told(folder, "flush", "--json")[:2] == (0, '{"forwarded": 2, "refused": 1}\n')
    assert ready(broker) == 2
    (row,) = json.loads(told(folder, "list", "--refused", "--json")[1])
    assert (row["id"], row["task"], row["reason"]) == ("three", "m.f", "queue_full")
    assert told(folder, "flush")[:2] == (0, "forwarded: 0\nrefused: 0\n")
    assert told(folder, "drop", "--refused")[:2] == (0, "dropped: 1\n")
    assert told(folder, "list", "--refused", "--json")[1] == "[]\n"


def test_a_broker_that_is_down_is_given_up_in_time(folder: Path) -> None:
    put(folder, "one")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    code, out, err = told(folder, "flush", "--broker", url, "--for", "0.1")
    assert (code, out) == (5, "")
    assert err.endswith("not all that is in the outbox was accepted in time; give it more time with --for\n")
    assert told(folder, "drop", "one", "none", "--json")[:2] == (0, '{"dropped": 1}\n')
    assert told(folder, "list") == (0, "", "nothing waits\n")


def test_forwarding_goes_on_until_it_is_told_to_end(folder: Path, broker: RunningBroker) -> None:
    put(folder, "one")
    with Serving(folder, "--outbox", f"sqlite://{folder}/o.db", command="forward", listens=False) as first:
        first.wait_for(f"forwarding {folder}/o.db to {broker.url}")
        assert told(folder, "flush")[0] == 0  # by the one that runs
        assert json.loads(told(folder, "status", "--json")[1])["forwarded"] is True
        with Serving(folder, command="forward", listens=False) as second:
            second.wait_for("another forwards this outbox")
            first.signal(signal.SIGTERM)
            assert first.ended() == 0
            put(folder, "two")
            assert told(folder, "flush")[0] == 0
            second.signal(signal.SIGINT)
            assert second.ended() == 0
    assert ready(broker) == 2


def test_an_outbox_in_postgresql_is_looked_into_and_forwarded(
    folder: Path, broker: RunningBroker, postgres: str
) -> None:
    with schema(postgres, told(folder, "schema", "--dialect", "postgresql")[1]) as url:
        store = open_outbox(url)
        store.put(parcels("one", "two"))
        store.close()
        assert json.loads(told(folder, "status", "--outbox", url, "--json")[1])["waiting"] == 2
        with Serving(folder, "--outbox", url, command="forward", listens=False) as forwarding:
            forwarding.wait_for("forwarding postgresql://")
            assert told(folder, "flush", "--outbox", url)[0] == 0
            forwarding.signal(signal.SIGTERM)
            assert forwarding.ended() == 0
    assert ready(broker) == 2


def test_what_it_lacks_is_told(folder: Path) -> None:
    assert told(folder, "status") == (2, "", f"backwater: there is no outbox '{folder}/o.db'\n")
    assert not (folder / "o.db").exists()
    put(folder, "one")
    assert told(folder, "drop")[0] == 2
    assert told(folder, "drop", "one", "--refused")[0] == 2
    (folder / "backwater.toml").write_text("")
    code, _, err = told(folder, "status")
    assert code == 2
    assert "no outbox was named" in err
    assert told(folder, "status", "--outbox", "sqlite://host/x")[0] == 2


def test_the_tables_for_a_database_of_ones_own_are_printed(folder: Path, broker: RunningBroker) -> None:
    code, out, err = told(folder, "schema")
    assert (code, err) == (0, "")
    db = sqlite3.connect(folder / "app.db")
    db.executescript(out)
    with backwater.App(broker.url, KEY, default=False) as app, db:
        app.outbox_in(db).send(signature("m.f"))
    db.close()
    assert told(folder, "flush", "--outbox", "app.db")[:2] == (0, "forwarded: 1\nrefused: 0\n")
    assert ready(broker) == 1
