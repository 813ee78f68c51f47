"""What is the SQLite store's own; what it has in common with every store is in `tests/contracts`."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backwater_tornado.broker import sqlite_file, sqlite_rows
from backwater_tornado.broker.sqlite_file import migrate
from backwater_tornado.broker.sqlite_schema import MIGRATIONS
from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.values import (
    Binding,
    Effects,
    Entry,
    Exchange,
    Join,
    Message,
    Outcome,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    Session,
    Settlement,
    Verdict,
)
from backwater_tornado.errors import ConfigurationError, StorageFailed, UnknownQueue

NOW = 1_000_000.0
OK = Outcome("SUCCESS", b"3")
PROJECT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        store.declare([Queue("q")], NOW)
        store.open_session(Session("s", "me"), NOW)
        yield store


def publication(id: str, queue: str = "q", body: bytes = b"x", **message: object) -> Publication:
    return Publication(Message(id, body, **message), queue)  # type: ignore[arg-type]


def poll(store: SqliteStore, credit: int = 100, confirmed: int = 0) -> list[str]:
    batch, _ = store.receive("s", Poll((("q", credit),), credit, confirmed), NOW)
    return [delivery.message.id for delivery in batch.deliveries]


# The schema


def test_a_file_of_the_first_version_is_opened(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        migrate(db, 1, MIGRATIONS[0])
    with closing(SqliteStore(path)) as store:
        store.declare([Queue("q")], NOW)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(ConfigurationError, match="newer version"):
        SqliteStore(path)


def busy(store: SqliteStore) -> None:
    """A little of everything that a store does."""
    join = Join("j", 1, (publication("then"),), expires=NOW + 5)
    exchange = [Exchange("x", "fanout"), Queue("r", max_length=5, overflow="drop_head", expires=9.0, message_ttl=9.0)]
    store.declare([*exchange, Binding("x", "q"), Binding("x", "r")], NOW)
    each = [publication(str(number), unique=f"u{number}", keep_result=9.0, joins=("j",)) for number in range(70)]
    store.publish([*each, publication("late", not_before=NOW + 1), publication("old", expires=NOW + 1)], NOW, [join])
    store.publish([Publication(Message(f"f{number}", b"x"), "", "x") for number in range(7)], NOW)
    store.declare([Queue("later", max_length=1, overflow="drop_head")], NOW)
    store.publish([publication(f"later{number}", "later", not_before=NOW + 9) for number in range(3)], NOW)
    store.purge("later", NOW)
    for verdict in Verdict:
        batch, _ = store.receive("s", Poll((("q", 10), ("r", 1)), 10, 10**9, ()), NOW)
        settlements = [Settlement(it.token, verdict, OK, replacement=it.message) for it in batch.deliveries[:-1]]
        store.settle("s", settlements, NOW)
        store.settle("s", settlements, NOW)
    store.cancel(["0", "69", "late", "unknown"], OK, NOW)
    store.replay([letter.number for letter in store.dead_letters(None, 0, 5)], NOW)
    store.drop([letter.number for letter in store.dead_letters("q", 0, 5)], NOW)
    store.cancel(["10", "20"], OK, NOW)
    store.results(["1", "2"], NOW)
    store.forget_results(["1", "2"], NOW)
    store.plan(Entry("e", NOW, publication("planned")), None, NOW, publication("planned"))
    store.schedule()
    store.unplan("e")
    store.next_due(NOW)
    store.stats(None, NOW)
    store.stats(["q"], NOW)
    store.leased("s")
    store.sweep(NOW + 2)
    store.purge("r", NOW)
    store.delete([Queue("r"), Exchange("x")], NOW)
    store.close_session("s", NOW)
    store.sweep(NOW + 10**6)


#: Tables that grow with the work.
LARGE = {"copies", "messages", "results", "settled", "uniques", "members", "dead", "c", "m", "d"}


def test_no_statement_walks_through_a_table_that_grows(store: SqliteStore, path: Path) -> None:
    statements: set[str] = set()
    for db in (store._file._connect(), store._file._reader):
        assert db is not None
        db.set_trace_callback(statements.add)
    busy(store)
    walks = []
    with closing(sqlite3.connect(path)) as db:
        for statement in sorted(statements):
            if not statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
                continue
            for *_, step in db.execute(f"EXPLAIN QUERY PLAN {statement.replace('-Inf', '-9e999')}"):
                words = step.split()
                if words[0] == "SCAN" and words[1] in LARGE:
                    walks.append((step, statement))
                if "TEMP B-TREE" in step and "entries" not in statement:  # of which there are few
                    walks.append((step, statement))
    assert walks == []
    assert len(statements) > 100


# Ids


def test_ids_that_are_shortened_to_the_same_are_told_apart(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "shorten", lambda name: 7)
    ids = [str(number) for number in range(5)]
    assert {it.state for it in store.publish([publication(name) for name in ids], NOW)[0]} == {PublishState.ACCEPTED}
    assert {it.state for it in store.publish([publication(name) for name in ids], NOW)[0]} == {PublishState.DUPLICATE}
    assert store.publish([publication("3", body=b"y"), publication("new")], NOW)[0] == [
        Published(PublishState.REFUSED, reason="id_of_another_message"),
        Published(PublishState.ACCEPTED, ("q",)),
    ]
    store.cancel(["1", "2"], OK, NOW)
    assert poll(store) == ["0", "3", "4", "new"]


def test_ids_that_begin_with_their_time_stand_in_its_order(store: SqliteStore, path: Path) -> None:
    ids = [
        f"{1_700_000_000_000 + it:012x}{hashlib.blake2b(bytes([it]), digest_size=10).hexdigest()}" for it in range(50)
    ]
    others = ["g" * 32, "0" * 31, "0" * 33]
    store.publish([publication(name) for name in reversed(ids + others)], NOW)
    with closing(sqlite3.connect(path)) as db:
        found = [name for (name,) in db.execute("SELECT id FROM messages ORDER BY short") if name not in others]
    assert found == ids
    assert {it.state for it in store.publish([publication(name) for name in ids + others], NOW)[0]} == {
        PublishState.DUPLICATE
    }


def test_a_place_is_not_given_away_again_while_its_message_is_known(store: SqliteStore, path: Path) -> None:
    store.publish([publication("1")], NOW)
    batch, _ = store.receive("s", Poll((("q", 1),), 1), NOW)
    store.settle("s", [Settlement(batch.deliveries[0].token)], NOW)
    store.close()
    with closing(SqliteStore(path)) as again:
        again.publish([publication("2")], NOW)
        found, _ = again.publish([publication("1"), publication("2")], NOW)
        assert [it.state for it in found] == [PublishState.DUPLICATE] * 2


# Transactions


@pytest.mark.parametrize("count", [49, 50, 51, 120])
def test_however_many_come_together_all_are_there_in_their_order(store: SqliteStore, count: int) -> None:
    ids = [str(number) for number in range(count)]
    published, _ = store.publish([publication(each, body=each.encode()) for each in ids], NOW)
    assert {each.state for each in published} == {PublishState.ACCEPTED}
    batch, _ = store.receive("s", Poll((("q", 200),), 200), NOW)
    assert [(each.message.id, each.message.body.decode()) for each in batch.deliveries] == list(
        zip(ids, ids, strict=True)
    )


def test_operations_of_a_transaction_see_each_other_and_one_that_fails_is_left_out(store: SqliteStore) -> None:
    with store.transaction():
        store.publish([publication("1")], NOW)
        with pytest.raises(UnknownQueue):
            store.declare([Exchange("x"), Binding("x", "nowhere")], NOW)
        with pytest.raises(UnknownQueue):
            store.purge("nowhere", NOW)
        assert poll(store, 1) == ["1"]
        assert [stats.leased for stats in store.stats(["q"], NOW)] == [1]
    assert [stats.leased for stats in store.stats(["q"], NOW)] == [1]
    assert store.exchanges() == []


def test_what_was_declared_in_a_transaction_that_failed_is_not_there(store: SqliteStore) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.declare([Queue("new"), Exchange("x"), Binding("x", "new")], NOW)
        assert store.publish([publication("1", "new")], NOW)[0] == [Published(PublishState.ACCEPTED, ("new",))]
        raise ZeroDivisionError
    assert store.publish([publication("1", "new")], NOW)[0] == [Published(PublishState.UNROUTED)]
    assert store.bindings() == []


def test_a_failed_operation_takes_back_what_it_had_declared(store: SqliteStore) -> None:
    db = store._file._connect()
    db.execute("CREATE TRIGGER no BEFORE INSERT ON queues WHEN new.name = 'bad' BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(StorageFailed, match="no"):
        store.declare([Queue("good"), Queue("bad")], NOW)
    assert store.publish([publication("1", "good")], NOW)[0] == [Published(PublishState.UNROUTED)]


def test_any_thread_may_use_it(store: SqliteStore) -> None:
    def work(name: int) -> None:
        for number in range(20):
            store.publish([publication(f"{name}-{number}")], NOW)
            store.stats(None, NOW)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(poll(store, 1000)) == 80


# What waits for the disk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each sync to the disk."""
    syncs: list[int] = []
    sync = sqlite_file._sync

    def note(fd: int) -> None:
        syncs.append(fd)
        sync(fd)

    monkeypatch.setattr(sqlite_file, "_sync", note)
    return syncs


def take(store: SqliteStore, *queues: str, credit: int = 1) -> Callable[[], object]:
    return lambda: store.receive("s", Poll(tuple((name, credit) for name in queues), credit, 10**12), NOW)


def end(store: SqliteStore, verdict: Verdict, outcome: Outcome | None = None, *then: Publication) -> Callable[[], None]:
    """Take a message from `t`, and settle it."""
    batch, _ = store.receive("s", Poll((("t", 1),), 1, 10**12), NOW)
    (delivery,) = batch.deliveries
    return lambda: store.settle("s", [Settlement(delivery.token, verdict, outcome, then=then)], NOW) and None


def brief(store: SqliteStore) -> Callable[[], object]:
    """Let a queue expire."""
    store.declare([Queue("brief", expires=20.0)], NOW)
    return lambda: store.sweep(NOW + 20)


#: What is done to a store with a transient queue `t` (and a durable `q`), whose session has polled for both; whether it
#: waits for the disk.
DONE: list[tuple[str, Callable[[SqliteStore], Callable[[], object]], bool]] = [
    ("publish", lambda store: lambda: store.publish([publication("new", "t")], NOW), False),
    ("publish a durable one", lambda store: lambda: store.publish([publication("new")], NOW), True),
    ("publish to both", lambda store: lambda: store.publish([Publication(Message("new", b""), "", "x")], NOW), True),
    ("join", lambda store: lambda: store.publish([], NOW, [Join("k", 1, ())]), True),
    ("publish what is cancelled", lambda store: lambda: store.publish([publication("stopped", "t")], NOW), True),
    ("receive", lambda store: take(store, "t"), False),
    ("receive nothing", lambda store: take(store, "empty"), False),
    ("receive from both", lambda store: take(store, "t", "q"), False),
    ("receive a durable one", lambda store: take(store, "q", "t"), False),
    ("receive for the first time", lambda store: take(store, "new"), True),
    ("progress", lambda store: end(store, Verdict.KEEP), False),
    ("ack", lambda store: end(store, Verdict.ACK, OK), False),
    ("requeue", lambda store: end(store, Verdict.REQUEUE), False),
    ("reject", lambda store: end(store, Verdict.REJECT), False),
    ("answer", lambda store: end(store, Verdict.ACK, None, publication("new", "t")), False),
    ("answer durably", lambda store: end(store, Verdict.ACK, None, publication("new")), True),
    ("answer to nobody", lambda store: end(store, Verdict.ACK, None, publication("new", "nowhere")), True),
    ("let one expire", lambda store: lambda: store.sweep(NOW + 5), False),
    ("let a session expire", lambda store: lambda: store.sweep(NOW + 50), True),
    ("let a queue expire", brief, True),
    ("cancel", lambda store: lambda: store.cancel(["1"], OK, NOW), True),
]


@pytest.mark.parametrize(("does", "durable"), [pytest.param(*rest, id=name) for name, *rest in DONE])
def test_what_concerns_transient_queues_only_waits_for_no_disk(
    store: SqliteStore, synced: list[int], does: Callable[[SqliteStore], Callable[[], object]], durable: bool
) -> None:
    limits = {"t": {"transient": True}, "empty": {}, "new": {}}
    store.declare([Queue(name, **limit) for name, limit in limits.items()], NOW)  # type: ignore[arg-type]
    store.declare([Exchange("x", "fanout"), Binding("x", "t"), Binding("x", "q")], NOW)
    store.publish([publication("0"), publication("1", "t"), publication("2", "t", expires=NOW + 5)], NOW)
    store.cancel(["stopped"], OK, NOW)
    store.receive("s", Poll((("t", 0), ("q", 0), ("empty", 0)), 0), NOW)
    act = does(store)
    synced.clear()
    act()
    assert bool(synced) is durable


@pytest.mark.parametrize("message", [{"keep_result": 9.0}, {"joins": ("j",)}])
def test_what_is_known_of_a_transient_message_afterwards_is_durable(
    store: SqliteStore, synced: list[int], message: dict[str, object]
) -> None:
    store.declare([Queue("t", transient=True)], NOW)
    store.receive("s", Poll((("t", 0),), 0), NOW)
    synced.clear()
    store.publish([publication("1", "t", **message)], NOW)
    settle = end(store, Verdict.ACK, OK)
    assert synced == []
    settle()
    assert synced


def test_an_idle_store_writes_nothing(store: SqliteStore, path: Path) -> None:
    store.declare([Queue("limited", rate=1.0)], NOW)
    store.publish([publication(str(number), "limited", keep_result=9.0) for number in range(3)], NOW)
    batch, _ = store.receive("s", Poll((("limited", 3),), 3), NOW)
    store.settle("s", [Settlement(batch.deliveries[0].token, outcome=OK)], NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")  # so that nobody else gets the lock
        assert store.sweep(NOW + 0.5) == Effects()
        with store.transaction():
            assert store.sweep(NOW + 0.8) == Effects()
            store.next_due(NOW)
        shell.execute("ROLLBACK")
    assert store.sweep(NOW + 1) == Effects(queues=frozenset({"limited"}))


# A full disk


def test_a_full_store_refuses_what_does_not_fit_and_works_again(store: SqliteStore) -> None:
    store.publish([publication("1")], NOW)
    db = store._file._connect()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StorageFailed, match="full"):
        store.publish([publication("2"), publication("large", body=b"x" * 100_000)], NOW)
    assert poll(store) == ["1"]
    store.settle("s", [Settlement(token) for _, token, _ in store.leased("s")], NOW)
    db.execute("PRAGMA max_page_count = 100000")
    published, _ = store.publish([publication("2"), publication("large", body=b"x" * 100_000)], NOW)
    assert [it.state for it in published] == [PublishState.ACCEPTED] * 2
    assert poll(store, confirmed=10**12) == ["2", "large"]


#: The kernel itself refuses to let any file grow; then it lets it.
NO_ROOM = """
import resource, sys
from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.values import *
from backwater_tornado.errors import StorageFailed
store = SqliteStore(sys.argv[1])
store.declare([Queue("q")], 1.0)
accepted, refused = [], 0
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
def publish(number):
    global refused
    try:
        store.publish([Publication(Message(f"{number}-{part}", b"x" * 2000), "q") for part in range(20)], 1.0)
        accepted.append(number)
    except StorageFailed:
        refused += 1
for number in range(60):
    publish(number)
assert accepted and refused, (accepted, refused)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for number in range(60):
    if number not in accepted:
        before = len(accepted)
        publish(number)
        assert len(accepted) == before + 1, number
store.open_session(Session("s", "me"), 1.0)
batch, _ = store.receive("s", Poll((("q", 10_000),), 10_000), 1.0)
assert [it.message.id for it in batch.deliveries] == [f"{a}-{part}" for a in accepted for part in range(20)]
print(len(accepted), refused)
"""


def test_when_no_file_can_grow_nothing_is_lost_and_it_works_again_when_they_can(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, path], cwd=PROJECT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "60"
