"""The tables of Markdown pages, filled from the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hesspipe.workflow.pages import fill_tables

TABLE = """kind,count,size
a,12345,0.000012345
b,,0.5
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "table.csv").write_text(TABLE)
    claims = {"first": {"statement": "Most are zero.", "verdict": "holds"}}
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    return tmp_path


def marked(columns: str, content: str = "", path: str = "table.csv") -> str:
    return f"before\n<!-- table {path}: {columns} -->\n{content}<!-- end of table -->\nafter\n"


def test_fill_tables_writes_numbers_for_people(root: Path) -> None:
    filled = fill_tables(marked("kind, count as N, size"), root)
    head, _, *rows = [line.replace(" ", "") for line in filled.splitlines()[2:-2]]
    assert [head, *rows] == ["|kind|N|size|", "|a|12,345|1.23e-05|", "|b|–|0.5|"]


def test_fill_tables_keeps_the_rows_that_are_asked_for(root: Path) -> None:
    filled = fill_tables(marked("count, where kind = a"), root)
    assert "12,345" in filled
    assert "–" not in filled


def test_fill_tables_keeps_several_rows_in_the_order_of_the_marker(root: Path) -> None:
    filled = fill_tables(marked("kind, where kind = b|a"), root)
    assert [line[2] for line in filled.splitlines()[4:-2]] == ["b", "a"]
    with pytest.raises(
        ValueError, match=r"the column kind of table\.csv must contain a, c, got no c"
    ):
        fill_tables(marked("kind, where kind = a|c"), root)


def test_fill_tables_replaces_what_was_there_and_nothing_else(root: Path) -> None:
    once = fill_tables(marked("kind"), root)
    assert fill_tables(marked("kind", "| old |\n"), root) == once
    assert fill_tables(once, root) == once
    assert once.startswith("before\n")
    assert once.endswith("after\n")


def test_fill_tables_reads_entries_by_name(root: Path) -> None:
    filled = fill_tables(marked("name, verdict", path="claims.json"), root)
    assert "| first | holds |" in filled


def test_missing_table_and_unknown_column_are_told(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"other\.csv must exist to fill a page"):
        fill_tables(marked("kind", path="other.csv"), root)
    with pytest.raises(ValueError, match="got none named shape; there are kind, count, size"):
        fill_tables(marked("shape"), root)
