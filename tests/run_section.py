"""Runs one section of the README in the folder it is started in: `python run_section.py README.md "heading"`.

A process of its own, so that servers and event loops of one section cannot disturb another, and all of it can be
killed as one group.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import secrets
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.documents import SHELLS, Block, commands, matches, sections

#: What a document listens on.
PORT = re.compile(r"\b(809\d|8888)\b")


class Shell:
    """One bash that keeps its variables, its folder and its background jobs from command to command."""

    def __init__(self) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Behind every command this is printed with its status, so that we know where its output ends.
        self._mark = f"-- {secrets.token_hex(8)}"

    def run(self, command: str) -> str:
        """What the command prints; raises SystemExit if it fails."""
        assert self._bash.stdin
        assert self._bash.stdout
        # The command's own stdin is empty, lest it eat the commands behind it.
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s\\n' '{self._mark}' $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(self._mark):
                printed = "".join(lines).removesuffix("\n")
                status = int(line.split()[-1])
                break
            lines.append(line)
        else:
            printed, status = "".join(lines), self._bash.wait()
        if status != 0:
            sys.exit(f"exit code {status}: {command}\n{printed}")
        return printed


class Section:
    """What the blocks of one section share."""

    def __init__(self) -> None:
        self._ports: dict[str, str] = {}
        self._namespace: dict[str, Any] = {"__name__": "__main__"}
        self._runner = asyncio.Runner()
        self._shell = Shell()

    def run(self, block: Block) -> None:
        """Does with a block what a reader would, on ports that are free: others may run the same section."""
        block = replace(block, text=PORT.sub(self._free_port, block.text))
        if block.file_name is not None:
            path = Path(block.file_name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "console":
            for command, expected in commands(block.text):
                printed = self._shell.run(command)
                if expected and not matches(expected, printed):
                    sys.exit(f"{command}\nprinted\n{printed}\ninstead of\n{expected}")
        elif block.language in SHELLS:
            self._shell.run(block.text)
        else:
            self._python(block)

    def _free_port(self, written: re.Match[str]) -> str:
        """The port for one that is written in the document, the same for the whole section."""
        if written[0] not in self._ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._ports[written[0]] = str(free.getsockname()[1])
        return self._ports[written[0]]

    def _python(self, block: Block) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        text = "\n" * block.line + block.text  # so that a traceback shows the line of the README
        code = compile(text, "README.md", "exec", flags=flags, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            self._runner.run(self._awaited(code))
        else:
            exec(code, self._namespace)  # noqa: S102 - running the README is the point

    async def _awaited(self, code: Any) -> None:
        await eval(code, self._namespace)  # noqa: S307 - as above


def main(document: str, heading: str) -> None:
    """Runs the section's blocks in order."""
    sys.path.insert(0, "")  # the files of the section can be imported
    section = Section()
    for block in sections(Path(document).read_text())[heading]:
        print(f"README.md, line {block.line}", file=sys.stderr, flush=True)
        section.run(block)


if __name__ == "__main__":
    main(*sys.argv[1:])
