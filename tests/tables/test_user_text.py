"""Text of the user in pages: shown as it is, never a tag, never another cell."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from hesspipe.tables.formats import to_markdown, to_page
from hesspipe.workflow.pages import fill_tables

TEXTS = [
    "<script>alert(1)</script>", "a | b", "|", "a\nb", "<b>bold", "</td></tr>",
    "<!-- end of table -->", "x < 2 and y > 1", "&lt;", "'\"", "<img src=x onerror=alert(1)>",
    r"\|", r"\\|", "a\u2028b", "`|`",
]  # fmt: skip


class Cells(HTMLParser):
    """The tags of a page, and the texts of its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("th", "td"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


@pytest.mark.parametrize("text", TEXTS)
def test_page_shows_headers_and_cells_as_they_are(text: str) -> None:
    found = Cells()
    found.feed(to_page(pd.DataFrame({text: [text], "count": [1]})))
    assert found.tags <= {
        "html", "head", "meta", "title", "style", "body", "table", "thead", "tbody", "tr", "th",
        "td",
    }  # fmt: skip
    assert [cell.strip() for cell in found.texts[:4]] == [text.strip(), "count", text.strip(), "1"]


def check_markdown(lines: list[str]) -> None:
    """A row is a line, with two cells between bars that no backslash precedes."""
    assert len(lines) == 3
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3, line
        assert not re.search(r"<[a-zA-Z/!?]", line), line


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_keeps_each_text_in_its_cell(text: str) -> None:
    table = pd.DataFrame({text: [text], "count": [1]})
    check_markdown(to_markdown(table).splitlines())


@pytest.mark.parametrize("text", TEXTS)
def test_filled_page_keeps_each_text_in_its_cell(tmp_path: Path, text: str) -> None:
    pd.DataFrame({"said": [text], "count": [1]}).to_csv(tmp_path / "a.csv", index=False)
    page = "<!-- table a.csv: said, count -->\n<!-- end of table -->"
    once = fill_tables(page, tmp_path)
    check_markdown(once.splitlines()[1:-1])
    assert fill_tables(once, tmp_path) == once
