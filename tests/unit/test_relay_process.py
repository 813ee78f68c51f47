from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backwater_tornado.cli import main
from backwater_tornado.errors import InvalidOption
from backwater_tornado.relay_process import RelayPlan, read_queues

HERE, THERE = "http://127.0.0.1:1", "http://127.0.0.1:2"


def plan(**more: Any) -> RelayPlan:
    ends = {"near": HERE, "far": THERE, "near_keys": None, "far_keys": None}
    return RelayPlan(**{**ends, "queues": {"a": "b"}, **more})


def test_a_queue_may_have_another_name_there() -> None:
    assert read_queues(["a", "b=c", "d,e=f", ""]) == {"a": "a", "b": "c", "d": "d", "e": "f"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"queues": {}}, "no queue was named"),
        ({"far": HERE}, "one broker"),
        ({"back": {"b": "c"}}, "the queue b would go to and fro"),
        ({"back": {"c": "a"}}, "the queue a would go to and fro"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        plan(**more)


def test_queues_may_go_both_ways() -> None:
    assert plan(back={"c": "d"}).back == {"c": "d"}
    assert plan(queues={}, back={"c": "d"}).queues == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", THERE, "--queue", "q"], "give --from URL, or BACKWATER_FROM"),
        (["--from", HERE, "--queue", "q"], "give --to URL, or BACKWATER_TO"),
        (["--from", HERE, "--to", THERE], "no queue was named"),
        (["--from", HERE, "--to", THERE, "--queue", "q"], "no keys"),
        (["--from", HERE, "--to", THERE, "--queue", "q", "--prefetch", "0"], "prefetch"),
        (["--from", HERE, "--to", THERE, "--queue", "q", "--from-secret-file", "none.key"], "none.key"),
    ],
)
def test_a_command_that_makes_no_sense_says_so(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["relay", *words]) == 2
    assert said in capsys.readouterr().err
