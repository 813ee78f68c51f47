"""Runs tests and tells what of some files they have not covered: `python -m tests.covered FILE[,FILE] PYTEST_ARG...`.

Exit code 0: the tests pass, and every line and branch of the files was run.
"""

from __future__ import annotations

import sys

import coverage
import pytest


def main(files: str, *args: str) -> int:
    """Gives the exit code."""
    measured = coverage.Coverage(data_file=None, branch=True, include=files.split(","))
    measured.start()
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *args])
    measured.stop()
    whole = measured.report(show_missing=True) == 100
    return int(code) or int(not whole)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
