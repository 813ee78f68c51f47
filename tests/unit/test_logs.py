from __future__ import annotations

import json
import logging
import sys

import pytest

from backwater_tornado.errors import InvalidOption
from backwater_tornado.logs import JsonFormatter, start_logging


def test_a_line_is_an_object_that_says_what_it_is_about() -> None:
    record = logging.LogRecord("backwater.worker", logging.INFO, "", 0, "%s ended", ("it",), None)
    record.task_id = "7f"
    told = json.loads(JsonFormatter().format(record))
    assert told.pop("at")
    assert told == {"level": "info", "logger": "backwater.worker", "message": "it ended", "task_id": "7f"}


def test_a_traceback_is_one_member() -> None:
    try:
        raise ValueError("as told")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "no", (), sys.exc_info())
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError: as told" in json.loads(text)["traceback"]


def test_a_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidOption, match="log_level"):
        start_logging("loud")
