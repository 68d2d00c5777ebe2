"""Executes the python examples of README.md and of the pages under docs/.

The blocks of a page share one namespace and one event loop and run from top to bottom in a directory of their own.
`await` stands in a block as it does in `python -m asyncio`; a block that takes longer than 30 s is stopped and fails.
A page can leave out a block with a comment of sybil's: `<!-- skip: next -->`.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import sys
import tempfile
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

if TYPE_CHECKING:
    from sybil import Example

BLOCK_TIMEOUT_S = 30


class PythonBlock(CodeBlockParser):
    """A python block, whose top level may await."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        """Run the block in its page's namespace."""
        source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
        code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        page = example.namespace["__page__"]
        if code.co_flags & inspect.CO_COROUTINE:
            page.runner.run(asyncio.wait_for(eval(code, vars(page.module)), BLOCK_TIMEOUT_S))
        else:
            exec(code, vars(page.module))


class Page:
    """What the blocks of one page share: a module that their classes belong to, an event loop, a directory."""

    def __init__(self) -> None:
        self.module = ModuleType("docs_page")
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.came_from = os.getcwd()
        sys.modules[self.module.__name__] = self.module
        os.chdir(self.directory.name)

    def close(self) -> None:
        """End the loop with all its tasks; back to where the tests run."""
        self.runner.close()
        os.chdir(self.came_from)
        self.directory.cleanup()
        sys.modules.pop(self.module.__name__, None)


def _open_page(namespace: dict[str, Any]) -> None:
    namespace["__page__"] = Page()


def _close_page(namespace: dict[str, Any]) -> None:
    namespace.pop("__page__").close()


pytest_collect_file = Sybil(
    parsers=[PythonBlock(), SkipParser()],
    patterns=["README.md", "docs/**/*.md", "docs/*.md"],
    setup=_open_page,
    teardown=_close_page,
).pytest()
