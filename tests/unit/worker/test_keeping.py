"""What a worker does with outcomes that its broker does not take, over its end and the next one's beginning."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backwater_tornado.broker.values import Poll, Session, Settlement, Verdict
from backwater_tornado.errors import StorageFailed
from backwater_tornado.tasks.outcomes import succeeded
from backwater_tornado.worker import keeping
from backwater_tornado.worker.jobs import End, Ending
from backwater_tornado.worker.keeping import Keeping
from backwater_tornado.worker.spool import About, Spool, read_status, read_superseded, read_waiting
from tests.unit.worker.bench import Bench, HandPool, working


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "AFTER", 0.01)


def by_hand() -> HandPool:
    return HandPool(by_hand=True)


async def until_status(path: Path, waiting: int, superseded: int = 0) -> None:
    while read_status(path)[::3] != (waiting, superseded):  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0)


async def until_said(caplog: pytest.LogCaptureFixture, words: str) -> None:
    while words not in caplog.text:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0)


async def kill(bench: Bench) -> None:
    """The worker is gone, at once, and nobody has said goodbye."""
    assert bench.task is not None
    bench.task.cancel()
    bench.worker._bequeathed = True
    await asyncio.gather(bench.task, return_exceptions=True)
    bench.pool.running.clear()


def start_another(bench: Bench) -> None:
    bench.worker = bench.make_worker()
    bench.start()


async def ended_while_cut(bench: Bench, path: Path, *ids: str) -> None:
    """These have run, and the broker does not know."""
    for name in ids:
        await bench.send("add", 1, id=name)
    await bench.pool.until_begun(*ids)
    bench.link.down = True
    for name in ids:
        bench.pool.end(name)
    await until_status(path, len(ids))


def test_on_a_link_that_is_up_nothing_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "AFTER", 1000.0)

    async def test(bench: Bench) -> None:
        assert bench.worker.keeping is not None
        bench.worker.keeping.spool.exchange = None  # type: ignore[method-assign, assignment]  # which fails if called
        assert [await bench.value(await bench.send("add", number)) for number in range(50)] == list(range(50))
        assert bench.worker.keeping._fresh == {}

    working(test, spool=path)


def test_what_a_killed_worker_has_done_is_told_by_the_next_and_runs_once(path: Path) -> None:
    async def test(bench: Bench) -> None:
        await ended_while_cut(bench, path, "a", "b")
        before = bench.worker.consumer.session
        await kill(bench)
        assert [about.label for about in read_waiting(path, 9)] == ["t.add[a]", "t.add[b]"]
        bench.link.down = False
        start_another(bench)
        assert bench.worker.former is not None
        assert bench.worker.former.left == 2
        assert [await bench.value(name) for name in "ab"] == [1, 1]
        await until_status(path, 0)
        assert bench.pool.begun == ["a", "b"]
        await bench.link.until("receive")
        assert bench.worker.former.left == 0
        assert await bench.counts() == (0, 0, 0, 0)
        assert bench.worker.consumer.session != before
        assert not bench.worker.health().reasons

    working(test, by_hand, spool=path)


def test_so_it_is_when_the_session_is_gone_by_then(path: Path) -> None:
    async def test(bench: Bench) -> None:
        await ended_while_cut(bench, path, "a", "b")
        await kill(bench)
        bench.lose_session()
        assert (await bench.counts())[0] == 2
        bench.link.down = False
        bench.link.faults["settle"] = ["after"]
        start_another(bench)
        assert [await bench.value(name) for name in "ab"] == [1, 1]
        await until_status(path, 0)
        assert bench.pool.begun == ["a", "b"]

    working(test, by_hand, spool=path)


def test_what_another_worker_was_given_is_superseded_and_told_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        await ended_while_cut(bench, path, "a", "b")
        await kill(bench)
        bench.lose_session()
        await bench.broker.open_session("other", 1000.0)
        batch = await bench.broker.receive("other", Poll((("default", 1),), 1))
        bench.link.down = False
        start_another(bench)
        assert await bench.value("b") == 1
        await until_status(path, 0, 1)
        assert await bench.broker.results(["a"]) == [None]
        assert [about[1:] for about in read_superseded(path, 9)] == [("a", "t.add", "default")]
        assert bench.worker.desk.counts["superseded"] == 1
        assert "t.add[a], run by a former process, is superseded" in caplog.text
        await until_said(caplog, "how 1 tasks of a former process ended; 1 more were superseded")
        assert not isinstance(batch, bytes)
        await bench.broker.settle("other", [Settlement(batch.deliveries[0].token, outcome=succeeded(2))])
        assert await bench.value("a") == 2

    working(test, by_hand, spool=path, events=True)


def test_what_is_superseded_while_the_worker_lives_is_listed_too(path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.pool.deaf = True
        await bench.send("add", 1, id="a")
        await bench.send("add", 1, id="b")
        await bench.pool.until_begun("a", "b")
        bench.lose_session()
        await bench.take()
        bench.pool.end("a")  # before that is known
        await bench.pool.until_stopped("b")
        bench.pool.end("b")
        await until_status(path, 0, 2)
        assert {about.id for about in read_superseded(path, 9)} == {"a", "b"}
        assert bench.worker.desk.counts["superseded"] == 2

    working(test, by_hand, spool=path)


def test_the_session_of_a_former_process_is_closed_so_that_the_rest_goes_back(path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="b")
        await bench.pool.until_begun("b")
        await ended_while_cut(bench, path, "a")
        await kill(bench)
        bench.pool.begun.clear()
        bench.link.down = False
        start_another(bench)
        await bench.pool.until_begun("b")
        assert bench.pool.begun == ["b"]
        bench.pool.end("b")
        assert await bench.value("b") == 1

    working(test, by_hand, spool=path)


def test_a_session_that_is_anothers_by_now_has_superseded_all(path: Path) -> None:
    async def test(bench: Bench) -> None:
        await ended_while_cut(bench, path, "a")
        await kill(bench)
        name = bench.worker.consumer.session
        bench.lose_session()
        bench.store.open_session(Session(f"\n{name}", "another", 1000.0), bench.clock.now)
        bench.link.down = False
        start_another(bench)
        await until_status(path, 0, 1)

    working(test, by_hand, spool=path)


def test_a_worker_that_is_stopped_leaves_what_it_could_not_tell(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backwater_tornado.worker.worker.LAST_WORDS", 0.01)
    monkeypatch.setattr(keeping, "AFTER", 1000.0)

    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        ask = bench.link.ask

        async def swallow(asked: Any) -> Any:
            return await (asyncio.Event().wait() if asked.verb == "settle" else ask(asked))

        bench.link.ask = swallow  # type: ignore[method-assign, assignment]
        bench.pool.end("a")
        await bench.stop()
        assert "the next worker with this spool tells it" in caplog.text
        assert "will run again" not in caplog.text
        assert bench.link.count("close_session") == 0  # or it would be given to others
        assert read_status(path).waiting == 1
        bench.link.ask = ask  # type: ignore[method-assign]
        start_another(bench)
        assert await bench.value("a") == 1
        while not bench.link.count("close_session"):
            await bench.link.until("close_session")
        await bench.stop()
        assert bench.link.count("close_session") == 2
        assert read_status(path).waiting == 0

    working(test, by_hand, spool=path)


def test_what_was_kept_and_is_accepted_leaves_the_spool(path: Path) -> None:
    async def test(bench: Bench) -> None:
        await ended_while_cut(bench, path, "a")
        bench.link.down = False
        assert await bench.value("a") == 1
        await until_status(path, 0)

    working(test, by_hand, spool=path)


def test_a_spool_that_is_full_holds_back_more_tasks_until_the_broker_knows(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        worker = bench.worker
        assert worker.keeping is not None
        worker.keeping.spool._limit = 10
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        bench.link.faults["settle"] = ["before"] * 10_000
        bench.pool.end("a")
        while not worker.keeping.trouble:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        assert any(reason.endswith("no more tasks are taken: the spool is full") for reason in worker.health().reasons)
        assert worker.desk.room() == 0
        while bench.link.polls()[-1].credit:
            await bench.link.until("receive")
        await bench.send("add", 2, id="b")
        bench.link.faults["settle"].clear()
        await bench.pool.until_begun("b")
        assert worker.keeping.trouble == ""
        assert worker.desk.room() > 0
        assert caplog.text.count("1 outcomes are not kept, and no more tasks are taken: the spool is full") >= 1

    working(test, by_hand, spool=path)


def test_an_outcome_that_is_accepted_while_it_is_written_does_not_stay(path: Path) -> None:
    async def main() -> None:
        kept = Keeping(Spool(path), lambda: "s", list)
        kept.add(Settlement(1), "a", "t", "q")
        kept.add(Settlement(2), "b", "t", "q")
        writing = asyncio.ensure_future(kept.flush())
        await asyncio.sleep(0)
        kept.forget(1)
        assert await writing == 1
        kept.forget(2)
        await kept.close()

    asyncio.run(main())
    assert read_status(path).waiting == 0


def test_a_disk_that_fails_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PAUSE", 0.001)

    async def main() -> None:
        spool = Spool(path)
        exchange, fails = spool.exchange, [True, True, False]
        turns: list[str] = []

        def failing(*args: Any) -> list[int]:
            if fails.pop(0):
                raise StorageFailed("the disk is full")
            return exchange(*args)

        spool.exchange = failing  # type: ignore[method-assign]
        kept = Keeping(spool, lambda: "s", lambda: turns.append(kept.trouble))
        kept.add(Settlement(1), "a", "t", "q")
        kept.supersede(About(0.0, "b", "t", "q"))
        async with asyncio.timeout(20):
            running = asyncio.ensure_future(kept.run())
            while fails:
                assert kept.trouble in ("", "the disk is full")
                await asyncio.sleep(0)
            while not kept._numbers:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
            assert turns == ["the disk is full", ""]
            running.cancel()
        spool.exchange = exchange  # type: ignore[method-assign]
        await kept.close()

    asyncio.run(main())
    assert read_status(path)[::3] == (1, 1)


def test_a_disk_that_fails_is_left_alone_for_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "PAUSE", 1000.0)
    tried = []

    async def main() -> None:
        spool = Spool(path)

        def fail(*args: Any) -> list[int]:
            tried.append(args)
            raise StorageFailed("the disk is full")

        spool.exchange = fail  # type: ignore[method-assign]
        kept = Keeping(spool, lambda: "s", list)
        kept.add(Settlement(1), "a", "t", "q")
        async with asyncio.timeout(20):
            running = asyncio.ensure_future(kept.run())
            while not kept.trouble:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
            for _ in range(1000):
                await asyncio.sleep(0)
            running.cancel()
        assert len(tried) == 1
        await kept.close()

    asyncio.run(main())


def test_what_is_not_due_is_not_written(path: Path) -> None:
    async def main() -> None:
        kept = Keeping(Spool(path), lambda: "s", list)
        kept.add(Settlement(1), "a", "t", "q")
        kept._fresh[1] = kept._fresh[1]._replace(due=float("inf"))
        kept.supersede(About(0.0, "b", "t", "q"))
        async with asyncio.timeout(20):
            running = asyncio.ensure_future(kept.run())
            await until_status(path, 0, 1)
            running.cancel()
        kept.forget(1)
        await kept.close()

    asyncio.run(main())


def test_a_spool_that_cannot_be_read_holds_up_no_worker(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        await ended_while_cut(bench, path, "a")
        await kill(bench)
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE outcomes SET settlement = x'c1'")
            db.commit()
        bench.lose_session()
        bench.link.down = False
        bench.pool.begun.clear()
        start_another(bench)
        await bench.pool.until_begun("a")
        assert "1 outcomes of a former process stay in the spool, unread" in caplog.text
        assert read_status(path).waiting == 1

    working(test, by_hand, spool=path)


def test_a_retry_is_kept_as_one_and_what_is_large_too(path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.send("large", 3 << 20, id="b")
        await bench.pool.until_begun("a", "b")
        bench.link.down = True
        bench.pool.end("a", Ending(End.RETRY, delay=1000.0))
        bench.pool.end("b")
        await until_status(path, 2)
        await kill(bench)
        bench.lose_session()
        bench.link.down = False
        start_another(bench)
        assert len(await bench.value("b")) == 3 << 20
        await bench.until_counts(0, 1, 0, 0)

    working(test, by_hand, spool=path)


def test_what_has_not_begun_goes_back_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwater_tornado.worker.worker.LAST_WORDS", 0.01)

    async def test(bench: Bench) -> None:
        for name in "ab":
            await bench.send("add", 1, id=name)
        await bench.pool.until_begun("a")
        bench.link.down = True
        bench.worker.stop()
        while not bench.worker.desk.closing:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        bench.pool.end("a")
        assert bench.task is not None
        await bench.task
        bench.lose_session()
        bench.link.down = False
        start_another(bench)
        assert await bench.value("a") == 1
        await bench.pool.until_begun("b")
        assert bench.pool.job("b").deliveries == 1

    working(test, lambda: HandPool(1, by_hand=True), spool=path)


def test_what_goes_on_is_not_kept(path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.send("add", 1, id="a")
        await bench.pool.until_begun("a")
        assert bench.worker.keeping is not None
        bench.worker.desk.settle(Settlement(bench.pool.job("a").token, Verdict.KEEP, succeeded(1)))
        assert bench.worker.keeping._fresh == {}

    working(test, by_hand, spool=path)
