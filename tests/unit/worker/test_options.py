from __future__ import annotations

from typing import Any

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.worker.options import WorkerOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"queues": ()},
        {"queues": ("a", "")},
        {"prefetch": 0},
        {"grace": -1.0},
        {"watch": float("inf")},
        {"wait": 30.0, "ttl": 30.0},
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        WorkerOptions(**wrong)


def test_what_can_be_is_taken() -> None:
    assert WorkerOptions(prefetch=1, grace=0.0).queues == ("default",)
