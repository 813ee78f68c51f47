"""The one command: `python -m tests` checks format, lint, types and behaviour, on the source and on the built wheel.

Every step is printed with its time; the first one to fail ends the run. The last line adds up all runs of pytest, and
a failed step that is not a run of pytest counts as one failure, so that "0 failed" always means that all is well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests import environments

PROJECT = Path(__file__).resolve().parents[1]

#: What `--fast` runs: all that needs no server and no process of its own.
FAST_TESTS = ("tests/unit", "tests/test_layers.py", "tests/test_shape.py")

#: All that runs in one process, more or less; the rest, with servers and processes of its own, runs beside it. With the
#: bombs the halves take about as long.
INNER_TESTS = (
    *("tests/unit", "tests/contracts", "tests/properties", "tests/vectors"),
    *("tests/faults/test_bombs_codec.py", "tests/faults/test_bombs_terms.py"),
    *("tests/test_layers.py", "tests/test_own_coverage.py", "tests/test_shape.py"),
)

#: What the wheel is tried with on the Python that has run all tests on the source.
EDGE_TESTS = ("tests/test_exports.py", "tests/end_to_end/test_app.py", "tests/end_to_end/test_server.py")

#: What another Python has little say in, tried once on the source: bytes that are given, long searches among them, and
#: whole programs, made of what is tried by itself on each Python.
SAME_EVERYWHERE = (
    *("tests/vectors", "tests/properties", "tests/erlang", "tests/end_to_end", "tests/faults"),
    "tests/test_examples.py",
)

#: What a Python between that one and the newest is tried with: what breaks there mostly breaks on the newest, too.
BETWEEN = ("tests/unit", "tests/contracts/test_store.py", "tests/contracts/test_client.py")

#: The tail of the report is read by `.ci/run`, which repeats it after make's own last words.
SUMMARY_FILE = PROJECT / "build" / "tests-summary.txt"


class StepFailed(Exception):
    """A step went wrong; the message names it."""


@dataclass
class Totals:
    """Tests added up over all runs of pytest."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, report: Path) -> None:
        """Adds the counts of one run from the JUnit file it wrote."""
        if not report.exists():  # pytest itself did not start
            return
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):  # noqa: S314 - written by our own pytest
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            self.failed += failed
            self.skipped += skipped
            self.passed += max(0, int(suite.get("tests", 0)) - failed - skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def went_well(*commands: Sequence[str], quiet: bool = False, env: Mapping[str, str] | None = None) -> bool:
    """Runs commands one after the other up to the first that fails; a quiet one speaks only when it fails."""
    for command in commands:
        done = subprocess.run(
            command, cwd=PROJECT, check=False, stdin=subprocess.DEVNULL, env=env, capture_output=quiet, text=True
        )
        if done.returncode != 0:
            print(f"{done.stdout or ''}{done.stderr or ''}exit code {done.returncode}: {' '.join(command)}")
            return False
    return True


@dataclass(frozen=True)
class Step:
    """One named check; `work` returns whether it went well."""

    name: str
    work: Callable[[], bool]

    def run(self) -> None:
        """Runs it, prints how long it took, raises StepFailed if it did not go well."""
        print(f"\n── {self.name}", flush=True)
        begun = time.monotonic()
        well = self.work()
        print(f"── {self.name}: {'ok' if well else 'FAILED'}, {time.monotonic() - begun:.1f} s", flush=True)
        if not well:
            raise StepFailed(self.name)


class Run:
    """What this run was asked for, the folder that it fills, and what it counts."""

    def __init__(self, scratch: Path, pytest_args: Sequence[str]) -> None:
        self.totals = Totals()
        self._scratch = scratch
        self._pytest_args = pytest_args
        self._preparation: environments.Preparation | None = None
        self._lock = threading.Lock()

    def pytest(self, python: str, *args: str) -> bool:
        """One run of pytest on the source, its counts added to the totals."""
        report = self._scratch / "report.xml"
        done = subprocess.run(self._command(python, report, args), cwd=PROJECT, check=False, stdin=subprocess.DEVNULL)
        with self._lock:
            return self._count(report, done.returncode)

    def try_source(self) -> bool:
        """Runs all tests on the source, in two halves side by side; with arguments of the caller's in one."""
        if self._pytest_args:
            return self.pytest(sys.executable)
        others = [f"--ignore={path}" for path in INNER_TESTS]
        with ThreadPoolExecutor(max_workers=1) as pool:
            inner = pool.submit(self._beside, sys.executable, "inner", INNER_TESTS)
            outer = self.pytest(sys.executable, "tests", *others)  # this one shows its progress
            return inner.result() and outer

    def _beside(
        self, python: str, name: str, args: Sequence[str], place: Path = PROJECT, env: Mapping[str, str] | None = None
    ) -> bool:
        """A run of pytest beside another: what it prints is shown when it has ended."""
        report = self._scratch / f"report-{name}.xml"
        begun = time.monotonic()
        done = subprocess.run(
            self._command(python, report, args),
            cwd=place, check=False, stdin=subprocess.DEVNULL, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        with self._lock:
            print(f"\n{done.stdout}{name}: {time.monotonic() - begun:.1f} s", flush=True)
            return self._count(report, done.returncode)

    def _command(self, python: str, report: Path, args: Sequence[str]) -> list[str]:
        return [python, "-m", "pytest", "-q", f"--junitxml={report}", *args, *self._pytest_args]

    def _count(self, report: Path, code: int) -> bool:
        self.totals.add(report)
        nothing_chosen = code == 5 and bool(self._pytest_args)
        return code == 0 or nothing_chosen

    def build(self, pythons: Mapping[str, str]) -> bool:
        """Builds archive and wheel, and begins to install the wheel for those Pythons."""
        dist = self._scratch / "dist"
        if not went_well(environments.build_command(PROJECT, dist), quiet=True):
            return False
        (wheel,) = dist.glob("*.whl")
        self._preparation = environments.Preparation(wheel, self._scratch, pythons)
        return True

    def try_wheels(self, versions: Sequence[str]) -> bool:
        """Runs the tests against the installed wheel under these Pythons, two at a time."""
        assert self._preparation, "the wheel is built first"
        if not all(self._preparation.wait_for(version) for version in versions):
            return False
        with ThreadPoolExecutor(max_workers=2) as pool:
            return all(list(pool.map(self._try_wheel, versions)))

    def _try_wheel(self, version: str) -> bool:
        """The tests under one Python, the slow ones left out; what they print is shown when they have ended."""
        folder = self._scratch / version
        installed = str(environments.interpreter(folder))
        place = environments.copy_tests(PROJECT, folder)
        env = environments.clean_environment()
        origin = "import sys, backwater_tornado as b; sys.exit(not b.__file__.startswith(sys.prefix) and b.__file__)"
        others = tuple(f"--ignore={path}" for path in SAME_EVERYWHERE)
        chosen = {environments.VERSIONS[-1]: others, environments.OWN_VERSION: EDGE_TESTS}.get(version, BETWEEN)
        if not went_well([installed, "-P", "-c", origin], env=env):
            return False
        return self._beside(installed, f"Python {version}", ["-m", "not slow", *chosen], place, env)

    def end(self) -> None:
        """Stops what runs beside the steps."""
        if self._preparation:
            self._preparation.end()


def steps(run: Run, *, fast: bool, matrix: bool) -> list[Step]:
    """What to do, in order: the cheapest first."""
    own = sys.executable
    chosen = [
        Step("format", lambda: went_well([own, "-m", "ruff", "format", "--check", "."])),
        Step("lint", lambda: went_well([own, "-m", "ruff", "check", "--quiet", "."])),
        Step("types", lambda: went_well([own, "-m", "mypy"])),
    ]
    if fast:
        return [*chosen, Step("unit tests", lambda: run.pytest(own, "-m", "not slow", *FAST_TESTS))]
    pythons = environments.find_pythons() if matrix else {environments.OWN_VERSION: own}
    return [
        *chosen,
        Step("build", lambda: run.build(pythons)),
        Step("tests on the source", run.try_source),
        Step(f"tests on the wheel, Python {', '.join(pythons)}", lambda: run.try_wheels(list(pythons))),
    ]


def main(argv: Sequence[str]) -> int:
    """Runs what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fast", action="store_true", help="format, lint, types and unit tests only")
    parser.add_argument("--no-matrix", action="store_true", help="try the wheel on this Python only")
    parser.add_argument("pytest_args", nargs="*", metavar="-- PYTEST_ARG", help="given to every run of pytest")
    asked = parser.parse_args(argv)
    begun = time.monotonic()
    # Hundreds of processes are begun, and each would compile the package anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    failure = None
    with tempfile.TemporaryDirectory(prefix="backwater-tests-") as scratch:
        run = Run(Path(scratch), asked.pytest_args)
        try:
            for step in steps(run, fast=asked.fast, matrix=not asked.no_matrix):
                step.run()
        except StepFailed as failed:
            failure = str(failed)
            run.totals.failed = max(1, run.totals.failed)
        finally:
            run.end()
    print(f"\n{f'FAILED at: {failure}' if failure else 'all is well'}, {time.monotonic() - begun:.0f} s in all")
    SUMMARY_FILE.parent.mkdir(exist_ok=True)
    SUMMARY_FILE.write_text(f"{run.totals}\n")
    print(run.totals, flush=True)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
