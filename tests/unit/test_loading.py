from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backwater_tornado.errors import InvalidExposure
from backwater_tornado.loading import load_exposure, project_files


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def names(*named: str) -> list[str]:
    return [f"{each.module}.{each.name}" for each in load_exposure(named).functions()]


def test_some_functions_of_a_module() -> None:
    assert names("statistics:mean, median") == ["statistics.mean", "statistics.median"]


def test_a_module_of_the_current_directory(folder: Path) -> None:
    (folder / "own_one.py").write_text("def f(): pass")
    assert names("own_one") == ["own_one.f"]
    assert sys.path[0] == str(folder)


def test_a_file_with_what_stands_beside_it(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "own_two.py").write_text("import own_three\ndef f(): pass")
    (folder / "inner" / "own_three.py").write_text("")
    assert names("inner/own_two.py") == ["own_two.f"]
    assert names("inner/own_two.py:f") == ["own_two.f"]


def test_all_is_more_than_what_is_marked(folder: Path) -> None:
    text = "import backwater_tornado as b\n@b.expose\ndef f(): pass\ndef g(): pass"
    (folder / "own_four.py").write_text(text)
    assert names("own_four") == ["own_four.f"]
    assert names("own_four:all") == ["own_four.f", "own_four.g"]


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        (
            "no_such_module",
            "there is no module 'no_such_module': it is neither installed nor 'no_such_module.py' below",
        ),
        ("no_such.module", "nor 'no_such/module.py' below"),
        ("broken", "importing 'broken' raised ZeroDivisionError: division by zero"),
        ("broken.py", r"broken.py' raised ZeroDivisionError"),
        ("lacking", "importing 'lacking' raised ModuleNotFoundError: No module named 'no_such_thing'"),
        ("no/such.py", "is not a file of Python"),
        ("un-named.py", "is not a file of Python"),
        ("statistics.py", "there is another module 'statistics'; rename the file"),
        ("statistics:mean,", "names of functions, with commas between"),
        ("statistics:nope", "there is no 'nope' in the module 'statistics'"),
    ],
)
def test_what_cannot_be_exposed_is_told(folder: Path, named: str, complaint: str) -> None:
    (folder / "broken.py").write_text("1 / 0")
    (folder / "lacking.py").write_text("import no_such_thing")
    (folder / "un-named.py").write_text("")
    (folder / "statistics.py").write_text("")
    with pytest.raises(InvalidExposure, match=complaint):
        load_exposure([named])
    assert "broken" not in sys.modules


def test_nothing_at_all_is_told() -> None:
    with pytest.raises(InvalidExposure, match="name a MODULE"):
        load_exposure([])


def test_files_to_watch_are_the_exposed_ones_and_those_of_the_project(folder: Path) -> None:
    (folder / "own_five.py").write_text("import own_six\ndef f(): pass")
    (folder / "own_six.py").write_text("")
    import statistics

    watched = project_files(load_exposure(["own_five", "statistics:mean", "math:sqrt"]))
    assert load_exposure(["own_five.py"]).functions()[0].module == "own_five"
    assert watched == sorted([str(folder / "own_five.py"), str(folder / "own_six.py"), str(statistics.__file__)])
