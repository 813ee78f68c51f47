"""What of some modules their own tests do not cover: `python -m tests.covered FILE=TESTS[,TESTS]... [PYTEST_ARG]...`.

All tests run once, in one process, which is many times faster than a process for each; a module is judged by what ran
when it was imported and while its own tests ran. Tables name what is left over. Exit code 0: nothing, and tests pass.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

PACKAGE = "backwater_tornado"
CACHED = type(functools.lru_cache(len))


class Contexts:
    """A plugin of pytest's that notes which file of tests something was run by."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured
        self._last = Path()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around each test, with what is set up and torn down for it."""
        if item.path != self._last:
            clear_caches()
            self._last = item.path
        self._measured.switch_context(str(item.path.relative_to(item.config.rootpath)))
        try:
            return (yield)
        finally:
            self._measured.switch_context("")


def clear_caches() -> None:
    """Forget what functions remember: it would not be run again, and so not be counted for whose tests come later."""
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        for value in vars(sys.modules[name]).values():
            if isinstance(value, CACHED):
                value.cache_clear()


def main(*args: str) -> int:
    """Gives the exit code."""
    own = {file: tests.split(",") for file, between, tests in (arg.partition("=") for arg in args) if between}
    measured = coverage.Coverage(data_file=None, branch=True, include=list(own))
    measured.start()
    chosen = dict.fromkeys(file for tests in own.values() for file in tests)
    others = [arg for arg in args if "=" not in arg]
    code = int(pytest.main(["-q", "-p", "no:cacheprovider", *chosen, *others], plugins=[Contexts(measured)]))
    measured.stop()
    for file, tests in own.items():
        table = io.StringIO()
        contexts = ["^$", *(f"^{test}$" for test in tests)]
        if measured.report(include=[file], contexts=contexts, show_missing=True, file=table) < 100:
            print(f"\n{file} is not covered by {' and '.join(tests)} alone:\n{table.getvalue()}")
            code = code or 1
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
