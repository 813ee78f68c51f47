"""Queues and dead letters as people and programs read them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from backwater_tornado.broker.values import DeadLetter, Entry, Message, Publication, Queue, QueueRates, QueueStats
from backwater_tornado.protocol.codec import MSGPACK
from backwater_tornado.tables import (
    count_of,
    describe_letter,
    entry_row,
    letter_row,
    queue_row,
    show_letter,
    show_rows,
    span,
)
from backwater_tornado.tasks.messages import TaskHeaders, encode_headers
from backwater_tornado.tasks.schedule import Cron, encode_schedule

STATS = QueueStats(Queue("jobs", paused=True), 3, 2, 1, 4, 90.0, 5, 60, 50, 40)
RATES = QueueRates("jobs", 1.006, 0.5, 0.25, 75.0)


def letter(
    body: bytes = b"text", *, headers: bytes = b"", content_type: str = "text/plain", at: float = 0.0
) -> DeadLetter:
    message = Message("id", body, headers, content_type)
    return DeadLetter(7, "jobs", message, "", "jobs", "rejected", "no good", at, 3)


def test_a_queue_is_a_line_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    idle = QueueStats(Queue("a\x1b[2Jb"))
    show_rows([queue_row(STATS, RATES), queue_row(idle, QueueRates("a"))], as_json=False, empty="")
    assert capsys.readouterr().out.splitlines() == [
        "queue   ready  delayed  leased  dead  oldest   in/s  out/s  done/s  sessions  paused",
        "jobs    3      2        1       4     1.2 min  1.01  0.5    0.25    5         paused",
        "a�[2Jb  0      0        0       0              0.0   0.0    0.0     0",
    ]


def test_a_queue_as_json_has_numbers_and_units_that_a_program_reads(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([queue_row(STATS, RATES)], as_json=True, empty="")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["queue"], row["oldest"], row["in/s"], row["paused"]) == ("jobs", 75.0, 1.01, True)


def test_where_there_is_nothing_that_is_said_beside(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], as_json=False, empty="no queues")
    show_rows([], as_json=True, empty="no queues")
    assert capsys.readouterr() == ("[]\n", "no queues\n")


def test_a_dead_task_is_shown_with_its_arguments() -> None:
    headers = encode_headers(TaskHeaders("tasks.add"))
    found = letter(MSGPACK.encode([[1, "two"], {"x": 3}]), headers=headers, content_type=MSGPACK.media_type)
    assert letter_row(found) == {
        "number": 7,
        "queue": "jobs",
        "id": "id",
        "task": "tasks.add",
        "reason": "rejected",
        "detail": "no good",
        "at": "1970-01-01T00:00:00+00:00",
        "deliveries": 3,
    }
    about = describe_letter(found)
    assert (about["args"], about["kwargs"], about["size"]) == ([1, "two"], {"x": 3}, len(found.message.body))


@pytest.mark.parametrize(
    ("found", "field", "value"),
    [
        (letter("ü".encode()), "body", "ü"),
        (letter(b"\xff\x00"), "body_base64", "/wA="),
        (letter(b"\xc1", content_type=MSGPACK.media_type), "body_base64", "wQ=="),
        (letter(MSGPACK.encode([[math.nan], {}]), content_type=MSGPACK.media_type), "args", "[nan]"),
        (letter(headers=b"\xc1"), "task", ""),
        (letter(at=1e300), "at", "1e+300"),
    ],
)
def test_whatever_a_dead_letter_holds_is_shown_somehow(
    found: DeadLetter, field: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    about = describe_letter(found)
    assert about[field] == value
    show_letter(about, as_json=True)
    assert json.loads(capsys.readouterr().out)[field] == value
    show_letter(about, as_json=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[0] == field]
    assert line.removeprefix(field).strip() == value


def test_a_periodic_task_is_shown_with_its_schedule_in_words() -> None:
    message = Message("clean", b"", encode_headers(TaskHeaders("shop.clean")))
    entry = Entry("clean", 1_700_000_000.0, Publication(message, "jobs"), encode_schedule(Cron("0 5 * * *")))
    assert entry_row(entry) == {
        "name": "clean",
        "task": "shop.clean",
        "schedule": "At 05:00 every day (UTC)",
        "due": "2023-11-14T22:13:20+00:00",
        "to": "jobs",
    }


def test_a_periodic_message_of_anybodys_making_is_shown_as_far_as_it_can_be_read() -> None:
    entry = Entry("clean", 0.0, Publication(Message("clean", b""), "key", "events"), b"of another version")
    row = entry_row(entry)
    assert (row["task"], row["schedule"], row["to"]) == ("", "", "events")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, "0 s"), (59.4, "59 s"), (60.0, "1.0 min"), (5400.0, "1.5 h"), (259_200.0, "3.0 d")]
)
def test_a_span_is_said_in_its_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_one_and_several() -> None:
    assert (count_of(1, "message"), count_of(2, "message")) == ("1 message", "2 messages")
