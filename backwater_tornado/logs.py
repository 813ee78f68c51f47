"""How a command writes its log: lines for people, or JSON for what collects them.

Rule: only commands use it; a library leaves logging to its user.
"""

from __future__ import annotations

import json
import logging

from .errors import InvalidOption

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: What a line is said to be about, where it is about a task.
_ABOUT = ("task", "task_id")


class JsonFormatter(logging.Formatter):
    """A JSON object for each line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in _ABOUT if hasattr(record, name)},
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def start_logging(level: str, *, as_json: bool = False) -> None:
    """Write to standard error from this level on; raises `InvalidOption`."""
    if level.lower() not in ("debug", "info", "warning", "error"):
        raise InvalidOption(f"log_level is debug, info, warning or error, not {level!r}")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
