"""Every example prints what it says it prints, and every block of the README runs."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import Block, commands, expected_output, matches, sections

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))
SECONDS = 50


def run(command: list[str], folder: Path, *, path: str = "") -> tuple[int, str, str]:
    """Exit code, output and errors; whatever the program has started ends with it."""
    bin_folder = str(Path(sys.executable).parent)  # where `backwater` and `python` are the ones under test
    env = {**os.environ, "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", "")]), "PYTHONPATH": path}
    env["PYTHONUNBUFFERED"] = "1"
    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
        # Files and not pipes: a server left in the background would hold a pipe open.
        program = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            program.wait(SECONDS)
        except subprocess.TimeoutExpired:
            stderr.write(f"\nstill running after {SECONDS} s\n")
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of the group is left
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        return program.returncode, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def test_there_is_something_to_run() -> None:
    assert "demo.py" in [example.name for example in EXAMPLES]
    assert sections(README.read_text())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_it_says(example: Path, tmp_path: Path) -> None:
    expected = expected_output(example.read_text())
    assert expected is not None, f"{example.name} must end with a comment block '# Output:'"
    code, printed, errors = run([sys.executable, str(example)], tmp_path)
    assert code == 0, printed + errors
    assert matches(expected, printed), f"{example.name} printed\n{printed}\ninstead of\n{expected}\n{errors}"


@pytest.mark.parametrize("heading", sections(README.read_text()) if README.exists() else [])
def test_a_section_of_the_readme_runs(heading: str, tmp_path: Path) -> None:
    # The project's folder holds the runner, and in a run against the wheel no package that could be imported instead.
    command = [sys.executable, "-m", "tests.run_section", str(README), heading]
    code, printed, errors = run(command, tmp_path, path=str(PROJECT))
    assert code == 0, printed + errors


DOCUMENT = """\
# Title

```console
$ echo one
one
```

## First

```python
# tasks.py
x = 1
## not a heading
```
<!-- not run: needs a network -->
```python
import nothing
```

1. Step:

   ```python
   import asyncio
   import tasks

   await asyncio.sleep(0)
   y = tasks.x
   ```

```json
{"left": "alone"}
```

## Second

```bash
cd /
z=2
```
```python
assert "y" not in globals()
port = 8090  # another one, which is free
assert port != 809 * 10
```
```python
assert port == 8090
```
```console
$ pwd; echo $z
/
...
$ cat <<END
> a
> END
a
```
"""


def test_the_blocks_of_a_document_are_found_by_section() -> None:
    found = sections(DOCUMENT)
    assert list(found) == ["top", "First", "Second"]
    assert [(block.language, block.file_name, block.line) for block in found["First"]] == [
        ("python", "tasks.py", 10),
        ("python", None, 22),
    ]
    assert found["First"][1].text.startswith("import asyncio\nimport tasks\n\nawait")
    assert not Block("python", "x", 1, not_run="reason").runs


def test_the_commands_of_a_console_block_come_with_their_output() -> None:
    assert commands("$ a \\\n  b\n1\n2\n$ c\n") == [("a \\\n  b", "1\n2\n"), ("c", "")]
    with pytest.raises(ValueError, match="not with 'a'"):
        commands("a\n")


@pytest.mark.parametrize("heading", ["top", "First", "Second"])
def test_a_documents_sections_run(heading: str, tmp_path: Path) -> None:
    (tmp_path / "document.md").write_text(DOCUMENT)
    code, printed, errors = run(
        [sys.executable, "-m", "tests.run_section", "document.md", heading], tmp_path, path=str(PROJECT)
    )
    assert code == 0, printed + errors


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("```console\n$ echo one\ntwo\n```\n", "instead of\ntwo"),
        ("```console\n$ false\n```\n", "exit code 1: false"),
        ("```console\n$ exit 3\n```\n", "exit code 3: exit 3"),
        ("```python\nassert 1 == 2\n```\n", 'File "README.md", line 2'),
        ("```python\nawait nothing\n```\n", "NameError"),
    ],
)
def test_a_section_that_fails_says_where(block: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "document.md").write_text(block)
    code, _, errors = run(
        [sys.executable, "-m", "tests.run_section", "document.md", "top"], tmp_path, path=str(PROJECT)
    )
    assert code == 1
    assert complaint in errors


def test_what_a_section_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "held")
    reading = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "document.md").write_text("```console\n$ exec 3>held; sleep 600 &\n```\n")
    code, _, errors = run(
        [sys.executable, "-m", "tests.run_section", "document.md", "top"], tmp_path, path=str(PROJECT)
    )
    assert code == 0, errors
    ended, _, _ = select.select([reading], [], [], 10)  # the pipe's end is seen when its last holder has gone
    os.close(reading)
    assert ended


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("print(1)\n\n# Output:\n# 1\n#\n#  two\n", "1\n\n two\n"),
        ("print(1)\n", None),
        ("# Output:\n# 1\nprint(2)\n", None),
    ],
)
def test_the_expected_output_stands_at_the_end_of_an_example(script: str, expected: str | None) -> None:
    assert expected_output(script) == expected


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\nb\n", "a  \nb\n\n", True),
        ("a ... c", "a b\nb c", True),
        ("a...", "a", True),
        ("a.c", "abc", False),
        ("a", "a\nb", False),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
    ],
)
def test_expected_output_may_leave_parts_open(expected: str, printed: str, same: bool) -> None:
    assert matches(expected, printed) is same
