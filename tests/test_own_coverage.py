"""Each module that only decides is covered wholly, every branch, by its own test file alone.

So a test file says all that its module does, and a module without one is a failure.
"""

from __future__ import annotations

import ast
import subprocess
import sys
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
    "marks",
    "options",
    "results",
    "broker.alarms",
    "broker.portions",
    "broker.routing",
    "broker.traffic",
    "outbox.flows",
    "outbox.parcels",
    "outbox.rows",
    "outbox.rules",
    "outbox.seat",
    "outbox.within",
    "worker.execution",
    "worker.frames",
    "worker.interrupts",
)

#: The reference of a contract is tested by that contract's suite, run on it alone.
BY_CONTRACT = {
    module: ("tests/contracts/test_store.py", "tests/contracts/test_store_ends.py", "-k", "memory")
    for module in sources()
    if module.startswith("broker.memory_")
}


def has_code(text: str) -> bool:
    """Whether there is anything to cover beyond a docstring, imports and `__all__`."""
    return any(
        not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign) for node in ast.parse(text).body
    )


MODULES = [
    name
    for name, text in sources().items()
    if (name in ALSO or name in BY_CONTRACT or name.split(".")[0] in ("protocol", "tasks")) and has_code(text)
]


def own_tests(module: str) -> tuple[str, ...]:
    """`tests/unit/protocol/test_codec.py` for `protocol.codec`; with what else pytest has to be told."""
    *folders, name = module.split(".")
    return BY_CONTRACT.get(module, (str(Path("tests", "unit", *folders, f"test_{name}.py")),))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_covered_by_its_own_tests_alone(module: str) -> None:
    own = own_tests(module)
    assert (PROJECT / own[0]).exists(), f"{module} has no {own[0]}"
    source = PACKAGE.joinpath(*module.split("."))
    source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    command = [sys.executable, "-m", "tests.covered", str(source), *own]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
