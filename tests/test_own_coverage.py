"""Each module that only decides is covered wholly, every branch, by its own test file alone.

So a test file says all that its module does, and a module without one is a failure.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import backwater_tornado
from tests.test_layers import sources

PROJECT = Path(__file__).parents[1]
PACKAGE = Path(backwater_tornado.__file__).parent

#: Beside everything in protocol/ and tasks/; edit this when a module comes that decides and does no I/O.
ALSO = (
    "arguments",
    "context",
    "driving",
    "errors",
    "exposure",
    "link_findings",
    "marks",
    "options",
    "results",
    "broker.alarms",
    "broker.portions",
    "broker.routing",
    "broker.traffic",
    "outbox.amounts",
    "outbox.flows",
    "outbox.parcels",
    "outbox.rules",
    "outbox.seat",
    "outbox.sqlite_rows",
    "outbox.within",
    "relay.cargo",
    "worker.execution",
    "worker.frames",
    "worker.interrupts",
)

#: The reference of a contract is tested by that contract's suite, run on it alone.
CONTRACT = "tests/contracts/test_store.py,tests/contracts/test_store_ends.py"
REFERENCE = [module for module in sources() if module.startswith("broker.memory_")]


def has_code(text: str) -> bool:
    """Whether there is anything to cover beyond a docstring, imports and `__all__`."""
    return any(
        not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign) for node in ast.parse(text).body
    )


MODULES = [
    name
    for name, text in sources().items()
    if (name in ALSO or name.split(".")[0] in ("protocol", "tasks")) and has_code(text)
]


def source_of(module: str) -> Path:
    """The file of a module."""
    source = PACKAGE.joinpath(*module.split("."))
    return source / "__init__.py" if source.is_dir() else source.with_suffix(".py")


def own_tests(module: str) -> str:
    """The file of a module's own tests."""
    *folders, name = module.split(".")
    return Path("tests", "unit", *folders, f"test_{name}.py").as_posix()


def check_covered(tests: Mapping[str, str], *chosen: str) -> None:
    """Fail if one of these modules has a line or a branch that its own tests leave out."""
    pairs = [f"{source_of(module)}={own}" for module, own in tests.items()]
    command = [sys.executable, "-m", "tests.covered", *pairs, *chosen]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_tests_of_its_own(module: str) -> None:
    assert (PROJECT / own_tests(module)).exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_modules_are_covered_each_by_its_own_tests_alone() -> None:
    check_covered({module: own_tests(module) for module in MODULES})


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_reference_of_a_contract_is_covered_by_the_contract_alone() -> None:
    assert REFERENCE
    check_covered(dict.fromkeys(REFERENCE, CONTRACT), "-k", "memory")
