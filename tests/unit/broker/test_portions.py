"""What goes in one answer: batches that are too large go in portions, and nothing is too large to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from backwater_tornado.broker.broker import Broker
from backwater_tornado.broker.memory_store import MemoryStore
from backwater_tornado.broker.performers import Direct, Performer
from backwater_tornado.broker.portions import ALONG, fit_small
from backwater_tornado.broker.stores import open_store
from backwater_tornado.broker.values import (
    Batch,
    Entry,
    Join,
    Message,
    Outcome,
    Poll,
    Publication,
    Queue,
    Result,
    Settlement,
    SettleState,
    Verdict,
)
from backwater_tornado.errors import MessageTooLarge

STORES: dict[str, Callable[[Path], Performer]] = {
    "memory": lambda _: Direct(MemoryStore()),
    "sqlite": lambda path: open_store(f"sqlite:{path}/broker.db"),
}


def sized(name: str, size: int) -> Publication:
    return Publication(Message(name, bytes(size - 1), b"h"), "jobs")


async def poll(broker: Broker, confirmed: int, held: tuple[int, ...]) -> Batch:
    batch = await broker.receive("w", Poll((("jobs", 9),), 9, confirmed, held))
    assert isinstance(batch, Batch)
    return batch


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Performer]:
    return lambda: STORES[request.param](tmp_path)


def test_a_large_batch_comes_in_portions_and_is_repeated_in_them(store: Callable[[], Performer]) -> None:
    async def main() -> None:
        broker = Broker(store(), clock=lambda: 1000.0, largest=100)
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w")
        await broker.publish([sized(str(number), size) for number, size in enumerate((60, 40, 1, 100, 50, 50))])
        seen: list[str] = []
        confirmed, held = 0, ()
        for expected in (["0", "1"], ["2"], ["3"], ["4", "5"]):
            lost = await poll(broker, confirmed, held)
            batch = await poll(broker, confirmed, held)  # the answer to the first was lost
            assert batch == lost
            assert [each.message.id for each in batch.deliveries] == expected
            assert batch.number == batch.deliveries[-1].token
            confirmed, held = batch.number, (*held, *(each.token for each in batch.deliveries))
            seen += expected
        assert (await poll(broker, confirmed, held)).deliveries == ()
        settled = await broker.settle("w", [Settlement(token) for token in held])
        assert settled == [SettleState.DONE] * 6
        (stats,) = await broker.stats()
        assert (stats.ready, stats.leased, stats.delivered) == (0, 0, 6)
        await broker.close()

    asyncio.run(main())


def test_what_was_settled_of_a_portion_does_not_come_again(store: Callable[[], Performer]) -> None:
    async def main() -> None:
        broker = Broker(store(), clock=lambda: 1000.0, largest=100)
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w")
        await broker.publish([sized(name, 60) for name in "abc"])
        first = await poll(broker, 0, ())
        await broker.settle("w", [Settlement(first.number)])
        second = await poll(broker, first.number, ())
        assert [each.message.id for each in second.deliveries] == ["b"]
        third = await poll(broker, second.number, ())  # which says that b is not held
        assert [each.message.id for each in third.deliveries] == ["c"]
        assert [each.message.id for each in (await poll(broker, third.number, (third.number,))).deliveries] == ["b"]
        await broker.close()

    asyncio.run(main())


def test_what_could_not_be_handed_out_is_refused_and_all_that_came_with_it(store: Callable[[], Performer]) -> None:
    async def main() -> None:
        broker = Broker(store(), clock=lambda: 1000.0, largest=100)
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w")
        large, small = sized("large", 101), sized("small", 100)
        join = Join("j", 1, (small,), (large,))
        for publications, joins in (([small, large], []), ([small], [join])):
            with pytest.raises(MessageTooLarge, match="'large' has 101 bytes; 100 at most"):
                await broker.publish(publications, joins)
        with pytest.raises(MessageTooLarge):
            await broker.plan(Entry("nightly", 1.0, large))
        with pytest.raises(MessageTooLarge):
            await broker.plan(Entry("nightly", 1.0, small), None, large)
        assert await broker.schedule() == []
        await broker.publish([small])
        held = (await poll(broker, 0, ())).number
        for settlement in (
            Settlement(held, then=(large,)),
            Settlement(held, Verdict.REQUEUE, replacement=large.message),
        ):
            with pytest.raises(MessageTooLarge):
                await broker.settle("w", [settlement])
        (stats,) = await broker.stats()
        assert (stats.published, stats.leased) == (1, 1)
        await broker.close()

    asyncio.run(main())


def test_what_was_taken_by_a_more_generous_broker_goes_alone(store: Callable[[], Performer]) -> None:
    async def main() -> None:
        performer = store()
        generous = Broker(performer, clock=lambda: 1000.0, largest=200)
        await generous.declare([], [Queue("jobs")], [])
        await generous.open_session("w")
        await generous.publish([sized("large", 200), sized("small", 1)])
        broker = Broker(performer, clock=lambda: 1000.0, largest=100)
        first = await poll(broker, 0, ())
        assert [each.message.id for each in first.deliveries] == ["large"]
        second = await poll(broker, first.number, (first.number,))
        assert [each.message.id for each in second.deliveries] == ["small"]
        await broker.close()

    asyncio.run(main())


def test_a_page_of_dead_letters_fits_as_well(store: Callable[[], Performer]) -> None:
    async def main() -> None:
        broker = Broker(store(), clock=lambda: 1000.0, largest=100)
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w")
        await broker.publish([sized(name, 60) for name in "ab"])
        for _ in "ab":
            batch = await poll(broker, 0, ())
            await broker.settle("w", [Settlement(each.token, Verdict.REJECT) for each in batch.deliveries])
        (first,) = await broker.dead_letters()
        (second,) = await broker.dead_letters(after=first.number)
        assert (first.message.id, second.message.id) == ("a", "b")
        assert len(await broker.dead_letters(brief=True)) == 2
        await broker.close()

    asyncio.run(main())


def test_results_that_do_not_fit_are_had_by_asking_again(store: Callable[[], Performer]) -> None:
    async def main() -> None:
        broker = Broker(store(), clock=lambda: 1000.0, largest=100)
        await broker.declare([], [Queue("jobs")], [])
        await broker.open_session("w")
        names = ["goes on", "b", "large", "d", "e"]
        jobs = [Publication(Message(name, b"", keep_result=60.0), "jobs") for name in names]
        await broker.publish(jobs)
        ends = [
            Settlement(each.token, verdict, outcome=Outcome("done", bytes(size)))
            for each, verdict, size in zip(
                (await poll(broker, 0, ())).deliveries,
                (Verdict.KEEP, *[Verdict.ACK] * 4),
                (90, 60, 200, 30, 10),
                strict=True,
            )
        ]
        await broker.settle("w", ends)
        rounds = []
        missing = ["none", *names]
        while len(missing) > 1:
            found = await broker.results(missing, 40.0 if len(rounds) == 0 else 0.0)
            came = [result.id for result in found if result is not None]
            assert [each for each, result in zip(missing, found, strict=True) if result is not None] == came
            rounds.append(came)
            missing = [each for each in missing if each not in came]
        assert rounds == [["b"], ["large"], ["d", "e"], ["goes on"]]
        await broker.close()

    asyncio.run(main())


def test_what_comes_along_is_final_and_small_together() -> None:
    def result(size: int, *, final: bool = True) -> Result:
        return Result(str(size), Outcome("x", bytes(size)), final, 0.0)

    large, half, small = result(ALONG + 1), result(ALONG // 2 + 1), result(10)
    found = [None, large, half, half, small, result(0, final=False), result(0)]
    assert fit_small(found) == [None, None, half, None, small, None, result(0)]
    assert fit_small([result(ALONG)]) == [result(ALONG)]
