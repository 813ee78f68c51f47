"""The store in a file, under a real process that is killed in the middle of its work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.values import Message, Poll, Publication, PublishState, Session, Settlement, SettleState

NOW = 1_000_000.0
EVERYTHING = 1_000_000
PROJECT = Path(__file__).parents[2]

#: Eight callers, whose operations share commits; what was answered is told.
PRELUDE = f"""
import asyncio, os, sys
from backwater_tornado.broker.group_commit import GroupCommit
from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.values import *
NOW = {NOW}
store = SqliteStore(sys.argv[1])
store.declare([Queue("q")], NOW)
def say(text):
    os.write(1, f"{{text}}\\n".encode())
async def main(*work):
    group = GroupCommit(store)
    await asyncio.gather(*[each(group, number) for each in work for number in range(8)])
"""

PUBLISHES = """
async def publish(group, caller):
    for number in range(100_000):
        ids = [f"{caller}-{number}-{part}" for part in range(5)]
        batch = [Publication(Message(id, id.encode() * 20), "q") for id in ids]
        published, _ = await group.run(lambda: store.publish(batch, NOW))
        assert all(it.state is PublishState.ACCEPTED for it in published)
        for id in ids:
            say(id)
asyncio.run(main(publish))
"""

SETTLES = """
batch = [Publication(Message(str(number), b"x", keep_result=9e9), "q") for number in range(20_000)]
store.publish(batch, NOW)
async def work(group, caller):
    session, confirmed = f"s{caller}", 0
    await group.run(lambda: store.open_session(Session(session, "me"), NOW))
    while True:
        got, _ = await group.run(lambda: store.receive(session, Poll((("q", 5),), 5, confirmed), NOW))
        confirmed = got.number
        results = [Outcome("SUCCESS", it.message.id.encode()) for it in got.deliveries]
        settlements = [Settlement(it.token, outcome=its) for it, its in zip(got.deliveries, results)]
        await group.run(lambda: store.settle(session, settlements, NOW))
        for it in got.deliveries:
            say(f'["{session}", {it.token}, "{it.message.id}"]')
asyncio.run(main(work))
"""


@contextmanager
def killed(program: str, path: Path, lines: int) -> Iterator[list[str]]:
    """What a program has said until it was killed, in the middle of more."""
    command = [sys.executable, "-c", PRELUDE + program, path]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    assert process.returncode == -9
    yield [line.strip() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("lines", [1, 700, 3000])
def test_what_was_answered_to_a_publisher_is_there_after_kill_9(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "broker.db"
    with killed(PUBLISHES, path, lines) as answered, closing(SqliteStore(path)) as store:
        assert len(answered) >= lines
        store.open_session(Session("s", "me"), NOW)
        batch, _ = store.receive("s", Poll((("q", EVERYTHING),), EVERYTHING), NOW)
        found = [delivery.message for delivery in batch.deliveries]
        ids = [message.id for message in found]
        assert set(answered) <= set(ids)
        assert len(ids) == len(set(ids))
        assert len(ids) % 5 == 0, "a batch is there as a whole or not at all"
        assert all(message.body == message.id.encode() * 20 for message in found)
        again = [Publication(message, "q") for message in found]
        published, _ = store.publish(again, NOW)
        assert {it.state for it in published} == {PublishState.DUPLICATE}


@pytest.mark.parametrize("lines", [1, 700])
def test_what_was_settled_stays_settled_after_kill_9(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "broker.db"
    with killed(SETTLES, path, lines) as said, closing(SqliteStore(path)) as store:
        answered = [tuple(json.loads(line)) for line in said]
        assert len(answered) >= lines
        # The sessions live on, until a sweep: a settlement that is repeated was done before.
        for session, token, _ in answered[:50]:
            assert store.settle(session, [Settlement(token)], NOW)[0] == [SettleState.DONE]
        results = store.results([name for _, _, name in answered], NOW)
        assert [result and result.outcome.body.decode() for result in results] == [name for _, _, name in answered]
        held = store.leased(None)
        assert len(held) <= 8 * 5
        store.sweep(NOW + 1000)
        store.open_session(Session("s", "me"), NOW)
        batch, _ = store.receive("s", Poll((("q", EVERYTHING),), EVERYTHING), NOW)
        left = {delivery.message.id for delivery in batch.deliveries}
        assert left.isdisjoint(name for _, _, name in answered)
        assert {name for _, _, name in held} <= left, "what was out comes back"
        assert max(token for _, token, _ in answered) < min(delivery.token for delivery in batch.deliveries)
        (stats,) = store.stats(["q"], NOW)
        assert stats.acked + stats.leased == 20_000
        assert stats.leased == len(left)


def test_a_half_published_message_is_never_seen(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    with killed(PUBLISHES, path, 100) as answered, closing(SqliteStore(path)) as store:
        (stats,) = store.stats(["q"], NOW)
        published, _ = store.publish([Publication(Message(name, name.encode() * 20), "q") for name in answered], NOW)
        assert {it.state for it in published} == {PublishState.DUPLICATE}
        assert stats.ready == stats.published >= len(answered)
