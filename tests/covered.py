"""Runs tests and tells what of one file they have not covered: `python -m tests.covered FILE PYTEST_ARG...`.

Exit code 0: the tests pass, and every line and branch of the file was run.
"""

from __future__ import annotations

import sys

import coverage
import pytest


def main(file: str, *args: str) -> int:
    """Gives the exit code."""
    measured = coverage.Coverage(data_file=None, branch=True, include=[file])
    measured.start()
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *args])
    measured.stop()
    whole = measured.report(show_missing=True) == 100
    return int(code) or int(not whole)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
