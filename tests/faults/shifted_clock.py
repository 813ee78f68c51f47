"""A program with a clock that jumps: SIGUSR1 puts it forward by an hour, SIGUSR2 back.

    python tests/faults/shifted_clock.py backwater broker --store memory:// …
    python tests/faults/shifted_clock.py producer.py …

It stands in for a host whose clock is set: `time.time` is replaced before anything else is imported, as others keep the
function. What asks the system itself, such as `datetime.now`, is not shifted.
"""

from __future__ import annotations

import runpy
import signal
import sys
import time

HOUR = 3600.0
_true, _true_ns = time.time, time.time_ns
_shift = 0.0


def _jump(number: int, frame: object) -> None:
    global _shift  # noqa: PLW0603 - there is one clock
    _shift += HOUR if number == signal.SIGUSR1 else -HOUR


def main() -> None:
    """Run the rest of the command line."""
    signal.signal(signal.SIGUSR1, _jump)
    signal.signal(signal.SIGUSR2, _jump)
    time.time = lambda: _true() + _shift
    time.time_ns = lambda: _true_ns() + int(_shift * 1e9)
    sys.argv = sys.argv[1:]
    sys.path[0] = ""  # as `python -m` has it
    if sys.argv[0] == "backwater":
        runpy.run_module("backwater_tornado", run_name="__main__")
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
