"""Each error has its page, each page its error, and the message leads there."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import pytest

from jidosystem import errors
from tests.docs.test_reference import all_errors

PAGES = Path(__file__).parents[2] / "docs" / "errors"
KINDS = sorted(all_errors(), key=lambda kind: kind.__name__)


def test_no_page_is_an_orphan() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - {"index"} == {kind.code for kind in KINDS}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_each_error_has_its_page_and_its_traceback_leads_there(kind: type[errors.JidoError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
    assert "code" in vars(kind), "a code of its own, not its family's"
    error = kind("what happened")
    error.node = "n-1"
    last = traceback.format_exception(error)[-1].strip()
    match = re.fullmatch(rf"{kind.code} on node n-1: see (docs/errors/[a-z-]+\.md)", last)
    assert match is not None, last
    text = (PAGES.parents[1] / match[1]).read_text()
    assert text.startswith(f"# {kind.code}\n\n`{kind.__name__}`: ")
    for part in ("\n\n**Why.** ", "\n\n**What to do.** "):
        assert len(text.split(part)[1].split("\n\n")[0]) > 40


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_the_list_of_pages_and_the_table_of_the_reference_name_it(kind: type[errors.JidoError]) -> None:
    assert f"]({kind.code}.md)" in (PAGES / "index.md").read_text()
    assert f"](../errors/{kind.code}.md)" in (PAGES.parent / "reference" / "errors.md").read_text()
