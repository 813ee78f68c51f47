"""Finds the runnable pieces of README and examples, and runs them as a reader would.

In the README, a section is what stands under one `## ` heading. Its pieces share one empty folder and one Python
namespace, in the order in which they stand:

- a ```python block runs; `await` may stand at its top level; one whose first line is `# name.py` is saved under that
  name instead, for the blocks behind it to import or serve; so is any other block whose first line is `# name.ext`;
- in a ```console block each line behind `$ ` runs in bash, all in one shell; if output stands below a command, the
  command must print that, where `...` matches anything;
- a ```bash or ```sh block runs whole;
- a port that is written 809x or 8888 is another one, which is free, in the whole section;
- a block behind `<!-- not run: reason -->` is left alone, and so is every other kind of block.

An example is a script that ends with a comment block `# Output:`, and must print just that, `...` matching anything.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

SHELLS = {"console", "bash", "sh"}

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_FILE_NAME = re.compile(r"# (?P<name>[\w./-]+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: its line in the document, and what to do with it."""

    language: str
    text: str
    line: int
    not_run: str | None = None

    @property
    def file_name(self) -> str | None:
        """The name under which to save it, if it is a file and nothing to run."""
        match = _FILE_NAME.match(self.text)
        return match["name"] if match and self.language not in SHELLS else None

    @property
    def runs(self) -> bool:
        """Whether there is anything to do."""
        return self.not_run is None and (self.language in {"python", *SHELLS} or self.file_name is not None)


def sections(document: str) -> dict[str, list[Block]]:
    """The blocks that run, by the heading of their section; sections without any are left out."""
    found: dict[str, list[Block]] = {}
    starts = [*_headings(document), (len(document), "")]
    for (start, heading), (end, _) in itertools.pairwise(starts):
        blocks = [block for block in _blocks(document, start, end) if block.runs]
        if blocks:
            found[heading] = blocks
    return found


def _headings(document: str) -> list[tuple[int, str]]:
    fenced = [match.span() for match in _BLOCK.finditer(document)]
    headings = [
        (match.start(), match["title"])
        for match in re.finditer(r"^## (?P<title>.+)$", document, re.MULTILINE)
        if not any(start <= match.start() < end for start, end in fenced)
    ]
    return [(0, "top"), *headings]


def _blocks(document: str, start: int, end: int) -> list[Block]:
    return [
        Block(
            match["language"],
            re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            document.count("\n", 0, match.start("language")) + 1,
            match["reason"],
        )
        for match in _BLOCK.finditer(document, start, end)
    ]


def commands(console: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that stands below it."""
    found: list[tuple[str, str]] = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and found[-1][1] == "" and (found[-1][0].endswith("\\") or line.startswith("> ")):
            found[-1] = (f"{found[-1][0]}\n{line.removeprefix('> ')}", "")
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        elif line.strip():
            raise ValueError(f"a console block begins with a command behind '$ ', not with {line!r}")
    return found


def expected_output(script: str) -> str | None:
    """What an example says at its end that it prints, or None."""
    _, mark, tail = script.rpartition("\n# Output:\n")
    lines = tail.rstrip("\n").split("\n")
    if not mark or not all(line.startswith("#") for line in lines):
        return None
    return "".join(f"{line.removeprefix('#').removeprefix(' ')}\n" for line in lines)


def matches(expected: str, printed: str) -> bool:
    """Whether that was printed; `...` stands for anything, also for several lines; ends of lines do not count."""
    tidy = [re.sub(r"[ \t]+$", "", text.strip("\n"), flags=re.MULTILINE) for text in (expected, printed)]
    pattern = ".*".join(map(re.escape, tidy[0].split("...")))
    return re.fullmatch(pattern, tidy[1], re.DOTALL) is not None
