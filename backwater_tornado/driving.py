"""Two ways of driving one generator: blocking and awaitable.

A verb of the client is written once, as a generator that yields what it needs done (see `protocol.calling`) and is sent
what came of it. A failure is thrown into the generator, so the generator itself says what is safe to repeat.

Rule: nothing here knows what is yielded; `perform` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from .errors import CallFailed

T = TypeVar("T")
Flow = Generator[Any, Any, T]


def drive(flow: Flow[T], perform: Callable[[Any], Any]) -> T:
    """Run a flow to its end in this thread; `perform` does each step and blocks."""
    try:
        step = next(flow)
        while True:
            try:
                result = perform(step)
            except CallFailed as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def drive_async(flow: Flow[T], perform: Callable[[Any], Awaitable[Any]]) -> T:
    """Run a flow to its end on the loop; `perform` does each step and is awaited."""
    try:
        step = next(flow)
        while True:
            try:
                result = await perform(step)
            except CallFailed as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        flow.close()
