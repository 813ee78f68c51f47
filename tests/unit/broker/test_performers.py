"""How a broker asks its store."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.performers import Grouped
from backwater_tornado.broker.sqlite_store import SqliteStore
from backwater_tornado.broker.store import Store
from backwater_tornado.broker.values import Message, Outcome, Poll, Publication, Queue, Settlement, Verdict

PATIENCE = 20


def test_who_asks_for_results_does_not_wait_for_what_is_being_written(tmp_path: Path) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def write(store: Store) -> None:
        writing.set()
        assert go_on.wait(PATIENCE)

    async def main() -> None:
        performer = Grouped(SqliteStore(tmp_path / "broker.db"), quick=-1.0)
        broker = Broker(performer)
        await broker.declare([], [Queue("q")], [])
        await broker.open_session("w")
        await broker.publish([Publication(Message("a", b"", keep_result=60.0), "q")])
        batch = await broker.receive("w", Poll((("q", 1),), 1))
        await broker.settle("w", [Settlement(batch.deliveries[0].token, Verdict.ACK, Outcome("SUCCESS", b"3"))])
        written = asyncio.ensure_future(performer.perform(write))
        await asyncio.to_thread(writing.wait, PATIENCE)
        try:
            async with asyncio.timeout(PATIENCE / 2):
                (found,) = await broker.results(["a"])
            assert found is not None
            assert (found.outcome.body, written.done()) == (b"3", False)
        finally:
            go_on.set()
            await written
            await broker.close()

    asyncio.run(main())
