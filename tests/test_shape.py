"""The budgets of a readable module, held against the package's syntax trees."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.test_layers import sources

MODULE_LINES = 300  # more than this is worth a warning
MODULE_LINES_HARD = 500
FUNCTION_LINES_P95 = 40  # docstring included
FUNCTION_LINES_HARD = 60
PARAMETERS_HARD = 7  # self and cls not counted, *args and **kwargs one each
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "base", "misc"}


@dataclass(frozen=True)
class Function:
    """One function or method as it stands in a module."""

    where: str
    lines: int
    parameters: int
    unannotated: tuple[str, ...]


def functions_of(module: str, text: str) -> Iterator[Function]:
    """Every function of a module, nested ones and methods too."""
    tree = ast.parse(text)
    methods = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for child in node.body
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_static(child)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield _function(module, node, is_method=id(node) in methods)


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(name, ast.Name) and name.id == "staticmethod" for name in node.decorator_list)


def _function(module: str, node: ast.FunctionDef | ast.AsyncFunctionDef, *, is_method: bool) -> Function:
    given = node.args
    parameters = [*given.posonlyargs, *given.args][1 if is_method else 0 :] + given.kwonlyargs
    parameters += [extra for extra in (given.vararg, given.kwarg) if extra is not None]
    unannotated = [parameter.arg for parameter in parameters if parameter.annotation is None]
    if node.returns is None:
        unannotated.append("return")
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return Function(f"{module}:{node.lineno} {node.name}", lines, len(parameters), tuple(unannotated))


def over_budget(texts: Mapping[str, str]) -> list[str]:
    """All that is beyond a hard limit."""
    found = []
    for module, text in texts.items():
        if BANNED_NAMES & set(module.split(".")):
            found.append(f"{module}: a module is named for what it is about")
        if (lines := len(text.splitlines())) > MODULE_LINES_HARD:
            found.append(f"{module}: {lines} lines, at most {MODULE_LINES_HARD}")
        for function in functions_of(module, text):
            if function.lines > FUNCTION_LINES_HARD:
                found.append(f"{function.where}: {function.lines} lines, at most {FUNCTION_LINES_HARD}")
            if function.parameters > PARAMETERS_HARD:
                found.append(f"{function.where}: {function.parameters} parameters, at most {PARAMETERS_HARD}")
            if function.unannotated:
                found.append(f"{function.where}: not annotated: {', '.join(function.unannotated)}")
    return found


def test_nothing_is_over_its_budget() -> None:
    assert over_budget(sources()) == []


def test_most_functions_fit_on_a_screen() -> None:
    lengths = sorted(
        (function.lines, function.where) for name, text in sources().items() for function in functions_of(name, text)
    )
    length, where = lengths[int(len(lengths) * 0.95)]
    assert length <= FUNCTION_LINES_P95, f"the 95th percentile is {length} lines, at {where}"


@pytest.mark.filterwarnings("default")
def test_long_modules_are_pointed_out() -> None:
    lengths = {name: len(text.splitlines()) for name, text in sources().items()}
    growing = [f"{name} ({lines})" for name, lines in lengths.items() if lines > MODULE_LINES]
    if growing:
        warnings.warn(f"modules of more than {MODULE_LINES} lines: {', '.join(growing)}", stacklevel=1)


LONG_FUNCTION = "def f() -> None:\n" + "    pass\n" * FUNCTION_LINES_HARD


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("protocol.utils", "", "named for what it is about"),
        ("long", "x = 1\n" * (MODULE_LINES_HARD + 1), "501 lines"),
        ("m", LONG_FUNCTION, "61 lines"),
        ("m", "def f(a: int, b: int, c: int, d: int, *e: int, f: int, g: int, **h: int) -> None: ...", "8 parameters"),
        ("m", "def f(a) -> None: ...", "not annotated: a"),
        ("m", "def f(*a, **b) -> None: ...", "not annotated: a, b"),
        ("m", "async def f(): ...", "not annotated: return"),
        ("m", "def f() -> None:\n    def g(x: int): ...", "m:2 g: not annotated: return"),
        ("m", "class C:\n    @staticmethod\n    def f(a) -> None: ...", "not annotated: a"),
    ],
)
def test_a_planted_excess_is_caught(module: str, text: str, complaint: str) -> None:
    found = over_budget({module: text})
    assert len(found) == 1
    assert complaint in found[0]


def test_self_and_cls_need_no_annotation_and_are_not_counted() -> None:
    seven = ", ".join(f"{name}: int" for name in "abcdefg")
    assert over_budget({"m": f"class C:\n    def f(self, {seven}) -> None: ..."}) == []
