"""Executes the examples of README.md and of the pages under docs/, from top to bottom, in a directory for each page.

- A block of python runs in a namespace and an event loop that the page's blocks share. `await` stands in it as it does in
  `python -m asyncio`; after 30 s it is stopped and fails.
- A block of python or toml whose first line is a comment with nothing but a file's name, `# shop.py`, is that file.
- A block of console is typed into a shell: what stands behind `$ ` are commands, what follows is what they print, `...` being
  anything. A command that ends in `&` goes on; what stands below it is waited for. One that fails must show what it prints.
- `<!-- goes on from: other.md -->` writes the files of another page, and of those that it goes on from.
- `<!-- skip: next -->` leaves out a block.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sybil import Region, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Document, Example

BLOCK_TIMEOUT_S = 30
COMMAND_TIMEOUT_S = 60


def file_named_by(text: str) -> str | None:
    """The file that a block is, going by its first line."""
    match = re.match(r"# ([\w./-]+\.\w+)\n", text)
    return match[1] if match else None


def write(page: Page, name: str, text: str) -> None:
    """Put a file where the page's shell is."""
    path = page.here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class PythonBlock(CodeBlockParser):
    """A python block, whose top level may await."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        """Run the block in its page's namespace, or write the file that it is."""
        page = example.namespace["__page__"]
        source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
        code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if (name := file_named_by(example.parsed)) is not None:
            write(page, name, example.parsed)
        elif code.co_flags & inspect.CO_COROUTINE:
            page.runner.run(asyncio.wait_for(eval(code, vars(page.module)), BLOCK_TIMEOUT_S))
        else:
            exec(code, vars(page.module))


class TomlBlock(CodeBlockParser):
    """A file of settings."""

    language = "toml"

    def evaluate(self, example: Example) -> None:
        """Write it, if it says what it is called."""
        if (name := file_named_by(example.parsed)) is not None:
            write(example.namespace["__page__"], name, example.parsed)


class ConsoleBlock(CodeBlockParser):
    """What somebody types, and what is printed then."""

    language = "console"

    def evaluate(self, example: Example) -> str | None:
        """Type each command, compare; what was different."""
        page = example.namespace["__page__"]
        commands = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", example.parsed.rstrip("\n") + "\n", flags=re.MULTILINE)
        assert commands, "no line begins with `$ `"
        if page.went_wrong:
            return "not typed: a command of this page has gone wrong before"
        for command, expected in commands:
            printed, status = page.shell.type(command, expected)
            if not fits(expected, printed) or (status and not expected.strip()):
                page.went_wrong = True
                return f"$ {command}\nexpected:\n{expected}\nprinted (status {status}):\n{printed}"
        return None


def goes_on(document: Document) -> Iterator[Region]:
    """The comments by which a page takes over the files of another."""
    for match in re.finditer(r"<!-- goes on from: (\S+) -->", document.text):
        yield Region(match.start(), match.end(), parsed=Path(document.path).parent / match[1], evaluator=take_over)


def take_over(example: Example) -> None:
    """Write the files of the page that is gone on from."""
    for name, text in files_of(example.parsed).items():
        write(example.namespace["__page__"], name, text)


def files_of(path: Path) -> dict[str, str]:
    """The files that a page leaves behind."""
    text = path.read_text()
    files: dict[str, str] = {}
    for before in re.findall(r"<!-- goes on from: (\S+) -->", text):
        files |= files_of(path.parent / before)
    blocks = re.findall(r"^```(?:python|toml)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return files | {name: block for block in blocks if (name := file_named_by(block)) is not None}


def fits(expected: str, printed: str) -> bool:
    """Whether that was printed, `...` being anything; spaces at the ends of lines don't count."""

    def stripped(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    pattern = ".*?".join(re.escape(part) for part in re.split(r"(?<!\.)\.{3}(?!\.)", stripped(expected)))
    return re.fullmatch(pattern, stripped(printed), flags=re.DOTALL) is not None


class Shell:
    """One shell for the console blocks of a page, with the commands of this environment."""

    def __init__(self, directory: Path) -> None:
        here = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "JIDO_", "COV_", "XDG_"))}
        bins = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self._env = {**here, "PATH": bins, "HOME": str(directory), "NO_COLOR": "1", "COLUMNS": "80", "PYTHONUNBUFFERED": "1"}
        self._output = tempfile.TemporaryDirectory()
        self._count = 0
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self._env, cwd=directory, text=True, start_new_session=True,
        )  # fmt: skip

    def type(self, command: str, expected: str) -> tuple[str, int]:
        """What it prints, and its status; of one in the background, what it has printed when that fits or time is up."""
        self._count += 1
        out, done = (Path(self._output.name) / f"{self._count}.{what}" for what in ("out", "status"))
        stays = command.rstrip().endswith("&")
        if stays:
            self._send(f"{command.rstrip().removesuffix('&')} >{out} 2>&1 </dev/null &\n")
        else:
            self._send(f"{{ {command}\n}} >{out} 2>&1 </dev/null; echo $? >{done}.new; mv {done}.new {done}\n")
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while time.monotonic() < deadline and not (stays and fits(expected, read(out))) and not done.exists():
            time.sleep(0.02)
        status = int(read(done) or 0) if stays or done.exists() else 124
        printed = re.sub(r"^bash: line \d+: (?: *\d+ (?:Killed|Terminated).*\n)?", "", read(out), flags=re.MULTILINE)  # of jobs that ended
        return printed + ("Killed\n" if status == 128 + signal.SIGKILL else ""), status

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def close(self) -> None:
        """End what still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._output.cleanup()


def read(path: Path) -> str:
    """A file's text; nothing if there is none."""
    return path.read_text(errors="replace") if path.exists() else ""


class Page:
    """What the blocks of one page share: a module that their classes belong to, an event loop, a directory, a shell."""

    def __init__(self) -> None:
        self.module = ModuleType("docs_page")
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.came_from = os.getcwd()
        self.went_wrong = False
        self._shell: Shell | None = None
        sys.modules[self.module.__name__] = self.module
        os.chdir(self.directory.name)

    @property
    def shell(self) -> Shell:
        """Started when the first command is typed."""
        if self._shell is None:
            self._shell = Shell(self.path)
        return self._shell

    @property
    def here(self) -> Path:
        """Where somebody who follows the page is: in its directory, or where its shell went."""
        return self.path if self._shell is None else Path(self._shell.type("pwd", "...")[0].strip())

    def close(self) -> None:
        """End the loop with all its tasks, and the shell; back to where the tests run."""
        if self._shell is not None:
            self._shell.close()
        self.runner.close()
        os.chdir(self.came_from)
        self.directory.cleanup()
        sys.modules.pop(self.module.__name__, None)


def _open_page(namespace: dict[str, Any]) -> None:
    namespace["__page__"] = Page()


def _close_page(namespace: dict[str, Any]) -> None:
    namespace.pop("__page__").close()


pytest_collect_file = Sybil(
    parsers=[goes_on, PythonBlock(), TomlBlock(), ConsoleBlock(), SkipParser()],
    patterns=["README.md", "docs/**/*.md", "docs/*.md"],
    setup=_open_page,
    teardown=_close_page,
).pytest()
