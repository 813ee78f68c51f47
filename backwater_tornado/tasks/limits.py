"""How often a function's tasks may begin: Celery's `rate_limit`, as a rate.

Rule: what a rate holds back, and for all workers together or each by itself, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Seconds in the units behind the slash.
_SECONDS: Final[Mapping[str, float]] = {"s": 1.0, "m": 60.0, "h": 3600.0}


def rate_of(rate_limit: str | float | None) -> float | None:
    """Tasks in a second, of a number of them or a text such as "100/m"; None: no limit, which is also what 0 means.

    It has been checked (`marks`).
    """
    number, _, unit = str(rate_limit or 0).partition("/")
    return float(number) / _SECONDS[unit or "s"] or None
