"""Finds the Pythons of this machine, and makes environments that hold a built wheel and nothing of the source tree."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

#: The versions that the package promises to run on; each one found runs the tests against the wheel.
VERSIONS = ("3.11", "3.12", "3.13")

OWN_VERSION = "{}.{}".format(*sys.version_info)

#: What the tests need to see beside the installed wheel.
TEST_FILES = ("tests", "examples", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml")

_PROBE = (
    "import sys, venv; sys.exit(0 if sys.implementation.name == 'cpython'"
    " and '{}.{}'.format(*sys.version_info) == sys.argv[1] else 1)"
)


def find_pythons() -> dict[str, str]:
    """The interpreter for each promised version that is on this machine; the others are named on the terminal."""
    found = {}
    for version in dict.fromkeys([OWN_VERSION, *VERSIONS]):
        if python := find_python(version):
            found[version] = python
        else:
            print(f"Python {version} was not found: the wheel is not tried on it", flush=True)
    return found


def find_python(version: str) -> str | None:
    """The interpreter of one version, "3.12" say: this one, one on PATH, or one of pyenv."""
    if version == OWN_VERSION:
        return sys.executable
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    pyenv = Path.home() / ".pyenv" / "versions"
    candidates = [folder / f"python{version}" for folder in folders]
    candidates += sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
    return next((str(candidate) for candidate in candidates if candidate.exists() and _fits(candidate, version)), None)


def _fits(candidate: Path, version: str) -> bool:
    """Whether it runs at all (pyenv's shims exist for versions that are switched off) and is that CPython."""
    try:
        probe = subprocess.run([candidate, "-c", _PROBE, version], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0


def build_command(project: Path, into: Path) -> list[str]:
    """Builds the source archive, and from that the wheel: a file forgotten in the archive is noticed."""
    return [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(project)]


def interpreter(folder: Path) -> Path:
    """The interpreter of the environment that `install` made in that folder."""
    return folder / "venv" / "bin" / "python"


def install(python: str, wheel: Path, folder: Path) -> None:
    """Makes an environment in a folder and installs the wheel with what the tests need; raises CalledProcessError."""
    own = interpreter(folder)
    for command in (
        [python, "-m", "venv", "--without-pip", str(own.parents[1])],
        [sys.executable, "-m", "pip", "--python", str(own), "install", "-q", f"{wheel}[test]"],
    ):
        subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment())


class Preparation:
    """Makes environments one after the other in a process of its own, while other steps run; ends with its block."""

    def __init__(self, wheel: Path, scratch: Path, pythons: Mapping[str, str]) -> None:
        asked = [f"{version}={python}" for version, python in pythons.items()]
        command = [sys.executable, "-m", "tests.environments", str(wheel), str(scratch), *asked]
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_for(self, version: str) -> bool:
        """Whether the environment for that version is there, once that is known; prints what pip said if not."""
        assert self._process.stdout
        for line in self._process.stdout:
            if line == f"ready {version}\n":
                return True
            self._lines.append(line)
        print("".join(self._lines), end="", flush=True)
        return False

    def end(self) -> None:
        """Stops what is still being made."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def prepare(wheel: str, scratch: str, *asked: str) -> int:
    """The work of a Preparation: prints "ready 3.12" as each environment is done, and stops at the first failure."""
    os.nice(10)  # the tests that run meanwhile come first
    for version, _, python in (entry.partition("=") for entry in asked):
        try:
            install(python, Path(wheel), Path(scratch, version))
        except subprocess.CalledProcessError as failed:
            print(f"{failed.stdout}{failed.stderr}{failed}", flush=True)
            return 1
        print(f"ready {version}", flush=True)
    return 0


def copy_tests(project: Path, folder: Path) -> Path:
    """Copies tests and examples to a place where the source tree cannot be imported; returns that place."""
    place = folder / "project"
    place.mkdir(parents=True)
    for name in TEST_FILES:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif source.exists():
            shutil.copy2(source, place / name)
    return place


def clean_environment() -> dict[str, str]:
    """The environment variables without any that would let another package or tree in."""
    return {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }


if __name__ == "__main__":
    sys.exit(prepare(*sys.argv[1:]))
