"""Bad input over HTTP: whoever caused it is told what was wrong, nothing is lost, and the broker goes on."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import backwater_tornado as backwater
from backwater_tornado.broker.values import (
    Batch,
    Message,
    Poll,
    Publication,
    Published,
    PublishState,
    Queue,
    Settlement,
    SettleState,
    pack,
)
from backwater_tornado.protocol.keys import format_key
from backwater_tornado.testing import RunningBroker, running_broker
from tests.end_to_end.processes import run

ALL = backwater.Key(b"a secret of who may do all", "all")
OTHER = backwater.Key(b"a secret of somebody else", "other")
BOUND = backwater.Key(b"a secret of who may do less", "bound", scopes=backwater.Scopes(("*",), ("jobs",), ("jobs",)))
RING = backwater.KeyRing([ALL, OTHER, BOUND])
LONG = "n" * 256
BEYOND = 2**63
KIB = 1024


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[RunningBroker]:
    store = {"memory": "memory://", "sqlite": f"sqlite:{tmp_path}/broker.db"}[request.param]
    limits = {"max_encoded_args_size": 64 * KIB, "max_encoded_result_size": 64 * KIB}
    with running_broker(store, RING, clock=clock, **limits) as running:
        yield running


@pytest.fixture
def caller(broker: RunningBroker) -> Iterator[backwater.Client]:
    """One who has received a message, and has another one waiting."""
    with connect(broker, ALL) as caller:
        verb(caller, "declare", [], [Queue("jobs")], [])
        verb(caller, "open_session", "w")
        assert publish(caller, "held", "waiting") == [PublishState.ACCEPTED] * 2
        assert receive(caller, "w", 1) == ["held"]
        yield caller


def connect(broker: RunningBroker, key: backwater.Key) -> backwater.Client:
    return backwater.Client(broker.url, key, proxy="", timeout=40)


def verb(caller: backwater.Client, name: str, *args: object, returns: Any = None) -> Any:
    return caller.with_options(returns=returns, idempotent=True).call("broker", name, *args)


def publish(caller: backwater.Client, *names: str) -> list[PublishState]:
    jobs = [Publication(Message(each, b"body"), "jobs") for each in names]
    return [each.state for each in verb(caller, "publish", jobs, returns=list[Published])]


def receive(caller: backwater.Client, session: str, credit: int = 10, confirmed: int = 0) -> list[str]:
    poll = Poll((("jobs", credit),), credit, confirmed)
    return [each.message.id for each in verb(caller, "receive", session, poll, returns=Batch).deliveries]


def check_unharmed(caller: backwater.Client) -> None:
    """What was there is there, and the broker goes on."""
    (stats,) = verb(caller, "stats")
    assert (stats["ready"], stats["leased"], stats.get("dead", 0)) == (1, 1, 0)
    (held,) = verb(caller, "leased")
    assert receive(caller, "w", 1, held["token"]) == ["waiting"]
    assert verb(caller, "settle", "w", [Settlement(held["token"])], returns=list[SettleState]) == [SettleState.DONE]


def message(**fields: Any) -> list[dict[str, Any]]:
    """A publication, but for these fields of its message."""
    return [{"message": {"id": "bad", "body": b"", **fields}, "routing_key": "jobs"}]


def publication(**fields: Any) -> list[dict[str, Any]]:
    return [{"message": {"id": "bad", "body": b""}, "routing_key": "jobs", **fields}]


def queue(**fields: Any) -> tuple[Any, ...]:
    return [], [{"name": "jobs", **fields}], []


def poll(**fields: Any) -> dict[str, Any]:
    return {"wants": [["jobs", 1]], "credit": 1, **fields}


#: Verb, arguments, and the field that is named.
MALFORMED: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "a priority below 0": ("publish", (message(priority=-1),), "priority"),
    "a priority above all": ("publish", (message(priority=256),), "priority"),
    "an id that is too long": ("publish", (message(id=LONG),), "id"),
    "an id that is a number": ("publish", (message(id=5),), "id"),
    "no id": ("publish", ([{"message": {"body": b""}, "routing_key": "jobs"}],), "id"),
    "a body that is a list": ("publish", (message(body=[]),), "body"),
    "a moment that is no number": ("publish", (message(not_before=math.nan),), "not_before"),
    "a moment that is not finite": ("publish", (message(expires=math.inf),), "expires"),
    "a result for ever": ("publish", (message(keep_result=math.inf),), "keep_result"),
    "a unique key that is too long": ("publish", (message(unique=LONG),), "unique"),
    "joins that are no list": ("publish", (message(joins="j"),), "joins"),
    "a routing key that is too long": ("publish", (publication(routing_key=LONG),), "routing_key"),
    "a delay below 0": ("publish", (publication(delay=-1.0),), "delay"),
    "a lifetime that is no number": ("publish", (publication(lifetime=math.nan),), "lifetime"),
    "a join of fewer than none": ("publish", ([], [{"id": "j", "size": -1, "then": []}]), "size"),
    "packed, and wrong": ("publish", (pack(message(priority=-1)),), "priority"),
    "a queue with a line break": ("declare", queue(name="a\nb"), "name"),
    "a queue with a line break at its end": ("declare", queue(name="a\n"), "name"),
    "a queue without a name": ("declare", queue(name=""), "name"),
    "a queue with a long name": ("declare", queue(name=LONG), "name"),
    "a rate of 0": ("declare", queue(rate=0), "rate"),
    "a rate that is no number": ("declare", queue(rate=math.nan), "rate"),
    "a length below 0": ("declare", queue(max_length=-1), "max_length"),
    "deliveries beyond all": ("declare", queue(max_deliveries=BEYOND), "max_deliveries"),
    "an expiry below 0": ("declare", queue(expires=-5), "expires"),
    "an overflow that nobody knows": ("declare", queue(overflow="explode"), "overflow"),
    "an exchange that nobody knows": ("declare", ([{"name": "e", "kind": "ring"}], [], []), "kind"),
    "an exchange without a name": ("declare", ([{"name": ""}], [], []), "name"),
    "a credit below 0": ("receive", ("w", poll(credit=-1)), "credit"),
    "a credit beyond all": ("receive", ("w", poll(credit=BEYOND)), "credit"),
    "a want below 0": ("receive", ("w", poll(wants=[["jobs", -1]])), "wants"),
    "a confirmation beyond all": ("receive", ("w", poll(confirmed=BEYOND)), "confirmed"),
    "a token beyond all": ("receive", ("w", poll(held=[BEYOND])), "held"),
    "a wait that is no number": ("receive", ("w", poll(), math.nan), "wait"),
    "a wait below 0": ("receive", ("w", poll(), -1), "wait"),
    "a session that is too long": ("receive", (LONG, poll()), "session"),
    "settling beyond all": ("settle", ("w", [{"token": BEYOND}]), "token"),
    "settling with a verdict that nobody knows": ("settle", ("w", [{"token": 1, "verdict": "burn"}]), "verdict"),
    "settling with a delay that is no number": ("settle", ("w", [{"token": 1, "delay": math.nan}]), "delay"),
    "a session without an end": ("open_session", ("v", math.inf), "ttl"),
    "a session without a life": ("open_session", ("v", 0), "ttl"),
    "a session of less than that": ("open_session", ("v", -30), "ttl"),
    "ids that are no list": ("cancel", ("held", {"state": "REVOKED"}), "ids"),
    "an id of a result that is too long": ("results", ([LONG],), "ids"),
    "a dead letter beyond all": ("replay", ([BEYOND],), "numbers"),
    "a page below 0": ("dead_letters", (None, 0, -1), "limit"),
    "an entry due at no moment": ("plan", ({"name": "n", "due": math.nan, "publication": publication()[0]},), "due"),
}


@pytest.mark.parametrize("case", list(MALFORMED))
def test_what_is_malformed_is_refused_by_its_name_and_changes_nothing(caller: backwater.Client, case: str) -> None:
    name, args, field = MALFORMED[case]
    with pytest.raises((backwater.InvalidArguments, backwater.MalformedBatch)) as refused:
        verb(caller, name, *args)
    assert field in str(refused.value)
    check_unharmed(caller)


ODD: dict[str, Callable[[backwater.Client], Any]] = {
    "a huge credit": lambda caller: verb(caller, "receive", "w", poll(credit=BEYOND - 1, wants=[])),
    "the same queue over and over": lambda caller: verb(caller, "receive", "w", poll(wants=[["jobs", 0]] * 5000)),
    "a queue that is not there": lambda caller: verb(caller, "receive", "w", poll(wants=[["none", 5]])),
    "tokens that never were": lambda caller: verb(
        caller, "settle", "w", [{"token": each} for each in range(10**6, 10**6 + 999)]
    ),
    "ids that never were": lambda caller: verb(
        caller, "cancel", [f"none {each}" for each in range(999)], {"state": "REVOKED"}
    ),
    "results of ids that never were": lambda caller: verb(caller, "results", ["none"] * 999),
    "dead letters that never were": lambda caller: verb(caller, "drop", [5, 5, BEYOND - 1]),
    "nothing at all": lambda caller: verb(caller, "publish", []),
    "a message that has expired": lambda caller: verb(caller, "publish", publication(routing_key="none", delay=1e11)),
    "a queue named by a routing key with a line break": lambda caller: verb(
        caller, "publish", publication(routing_key="a\nb"), None, True
    ),
    "a queue named by no routing key": lambda caller: verb(caller, "publish", publication(routing_key=""), None, True),
}


@pytest.mark.parametrize("case", list(ODD))
def test_what_is_odd_is_taken_and_changes_nothing(caller: backwater.Client, case: str) -> None:
    ODD[case](caller)
    assert [each["queue"]["name"] for each in verb(caller, "stats")] == ["jobs"]
    check_unharmed(caller)


def test_a_queue_outside_the_scope_of_a_key_is_out_of_reach(broker: RunningBroker, caller: backwater.Client) -> None:
    verb(caller, "declare", [{"name": "events"}], [Queue("secret")], [])
    attempts: list[tuple[Any, ...]] = [
        ("publish", publication(routing_key="secret")),
        ("publish", pack([Publication(Message("a", b""), "secret")])),
        ("publish", publication(exchange="events")),
        ("receive", "v", poll(wants=[["jobs", 1], ["secret", 1]])),
        ("declare", [], [Queue("secret")], []),
        ("declare", [], [], [{"exchange": "events", "queue": "jobs"}]),
        ("delete", [], ["secret"], []),
        ("purge", "secret"),
        ("pause", ["jobs", "secret"]),
        ("stats", ["secret"]),
        ("dead_letters", None),
        ("dead_letters", "secret"),
    ]
    with connect(broker, BOUND) as bound:
        for attempt in attempts:
            with pytest.raises(backwater.QueueNotInScope, match="the key may not"):
                verb(bound, *attempt)
        assert [each["queue"]["name"] for each in verb(bound, "stats")] == ["jobs"]
    verb(caller, "delete", [], ["secret"], [])
    check_unharmed(caller)


def test_the_session_of_another_key_is_out_of_reach(broker: RunningBroker, caller: backwater.Client) -> None:
    (held,) = verb(caller, "leased")
    with connect(broker, BOUND) as other:
        for attempt in (("receive", "w", poll()), ("settle", "w", [{"token": held["token"]}])):
            with pytest.raises(backwater.SessionGone):
                verb(other, *attempt)
        verb(other, "open_session", "w")  # of the same name, and another one
        assert verb(other, "settle", "w", [{"token": held["token"]}]) == ["stale"]
        verb(other, "close_session", "w")
        assert verb(other, "leased") == []
    check_unharmed(caller)


def test_a_message_that_is_too_large_is_refused_and_one_that_fits_comes_back(caller: backwater.Client) -> None:
    def large(size: int) -> list[Publication]:
        return [Publication(Message("large", bytes(range(256)) * (size // 256)), "jobs")]

    with pytest.raises(backwater.BodyTooLarge):
        verb(caller, "publish", large(80 * KIB))
    with pytest.raises(backwater.MessageTooLarge, match="33024 bytes; 32768 at most"):
        verb(caller, "publish", large(32 * KIB + 256))
    check_unharmed(caller)
    verb(caller, "publish", large(32 * KIB))
    (waiting,) = (each for each in verb(caller, "leased") if each["id"] == "waiting")
    assert receive(caller, "w", 1, waiting["token"]) == ["large"]


def test_more_than_fits_into_an_answer_comes_in_several(caller: backwater.Client) -> None:
    check_unharmed(caller)
    for number in range(9):
        job = Message(f"{number}", bytes(range(256)) * (12 * KIB // 256), content_type="application/octet-stream")
        verb(caller, "publish", [Publication(job, "jobs")])
    verb(caller, "open_session", "v")
    seen: list[str] = []
    confirmed = 0
    while len(seen) < 9:
        batch = verb(caller, "receive", "v", Poll((("jobs", 9),), 9, confirmed), returns=Batch)
        assert 1 <= len(batch.deliveries) <= 2
        seen += [each.message.id for each in batch.deliveries]
        confirmed = batch.number
    assert seen == [str(number) for number in range(9)]


# The clock -----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_ahead_ends_sessions_and_loses_nothing(caller: backwater.Client, clock: Clock) -> None:
    (held,) = verb(caller, "leased")
    clock.now += 10 * 86_400
    while verb(caller, "stats")[0]["ready"] != 2:  # the sweep comes within a second
        pass
    with pytest.raises(backwater.SessionGone):
        verb(caller, "settle", "w", [{"token": held["token"]}])
    verb(caller, "open_session", "w")
    assert verb(caller, "settle", "w", [{"token": held["token"]}]) == ["stale"]
    assert receive(caller, "w") == ["held", "waiting"]


def test_a_clock_that_is_set_back_loses_nothing(caller: backwater.Client, clock: Clock) -> None:
    assert verb(caller, "publish", publication(delay=60))[0]["state"] == "accepted"
    clock.now -= 10 * 86_400
    check_unharmed(caller)
    assert publish(caller, "held", "new") == [PublishState.DUPLICATE, PublishState.ACCEPTED]
    assert verb(caller, "stats")[0]["delayed"] == 1
    assert [each["session"] for each in verb(caller, "sessions")] == ["w"]


# The file ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["not a database", "cut short", "newer", "another program's"])
def test_a_file_that_cannot_be_used_is_said_in_one_line_and_left_as_it_is(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "broker.db"
    (tmp_path / "site.key").write_text(format_key(ALL))
    (tmp_path / "site.key").chmod(0o600)
    with running_broker(f"sqlite:{path}", RING) as running, connect(running, ALL) as caller:
        verb(caller, "declare", [], [Queue("jobs")], [])
        for number in range(50):
            verb(caller, "publish", [Publication(Message(f"{number}", bytes(4000)), "jobs")])
    complaint = _harm(path, harm)
    before = path.read_bytes()
    done = run(tmp_path, "broker", "--store", "sqlite:broker.db", "--secret-file", "site.key", "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert path.read_bytes() == before


def _harm(path: Path, harm: str) -> str:
    """Do it; gives what is said of it."""
    if harm == "not a database":
        path.write_bytes(b"# a text\n" * 100)
        return "file is not a database"
    if harm == "cut short":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        return "database disk image is malformed; restore it from a backup"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 999" if harm == "newer" else "PRAGMA application_id = 5")
    db.close()
    return "newer version of this package" if harm == "newer" else "is not a store of a broker"
