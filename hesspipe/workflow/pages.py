"""Fill the tables of Markdown pages from the results, so that no number is copied by hand.

    python -m hesspipe.workflow.pages README.md docs/*.md

Markers in a page define the place of a table, and the columns and rows of the file it shows:

<!-- table tables/width.csv: experiment, num_parameters as P, where matrix = hessian -->
(filled in)
<!-- end of table -->
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from tabulate import tabulate

from hesspipe.files import write_text
from hesspipe.tables.formats import markdown_text
from hesspipe.workflow.failures import one_line_errors

_BLOCK = re.compile(
    r"(?P<first><!-- table (?P<path>\S+): (?P<columns>.+?)(?:, where (?P<column>\w+) = "
    r"(?P<value>\w+(?:\|\w+)*))? -->\n).*?(?P<last><!-- end of table -->)",
    re.DOTALL,
)


def fill_tables(text: str, root: Path) -> str:
    """Fill every marked table of a Markdown text.

    Parameters
    ----------
    text : str
        With markers as in this module's example; `where` keeps the rows whose value is one of those
        separated by "|", in that order; `as` renames a column.
    root : Path
        What the tables' paths are relative to. A table is a CSV file or a JSON file of entries by
        name.

    Returns
    -------
    str
        The text with its tables replaced: whole numbers in groups of three digits, other numbers
        with three significant digits, missing values as a dash.

    Raises
    ------
    FileNotFoundError
        If a table has not been made.
    ValueError
        If a table lacks a column or a value that a marker names.
    """
    return _BLOCK.sub(lambda match: _filled(match, root), text)


def _filled(match: re.Match[str], root: Path) -> str:
    path = root / match["path"]
    if not path.exists():
        raise FileNotFoundError(f"{match['path']} must exist to fill a page; run `make paper`")
    table = _read(path)
    chosen = dict(part.partition(" as ")[::2] for part in match["columns"].split(", "))
    missing = set(chosen) - set(table.columns)
    if missing:
        raise ValueError(
            f"{match['path']} must have the columns that the page shows, got none named "
            f"{', '.join(sorted(missing))}; there are {', '.join(table.columns)}"
        )
    if match["column"]:
        table = _rows(table, match["column"], match["value"].split("|"), match["path"])
    shown = {
        markdown_text(header or name.replace("_", " ")): [_shown(value) for value in table[name]]
        for name, header in chosen.items()
    }
    align = ["right" if is_numeric_dtype(table[name]) else "left" for name in chosen]
    body = tabulate(shown, headers="keys", tablefmt="pipe", colalign=align, disable_numparse=True)
    # Without padding, so that a longer cell changes one line and not all.
    body = re.sub(" {2,}", " ", re.sub("-{4,}", "---", body))
    return f"{match['first']}{body}\n{match['last']}"


def _rows(table: pd.DataFrame, column: str, values: list[str], path: str) -> pd.DataFrame:
    found = table[column].astype(str)
    absent = set(values) - set(found)
    if absent:
        raise ValueError(
            f"the column {column} of {path} must contain {', '.join(values)}, got no "
            f"{', '.join(sorted(absent))}"
        )
    return pd.concat([table[found == value] for value in values])


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".json":
        entries = json.loads(path.read_text(encoding="utf-8"))
        return pd.DataFrame.from_dict(entries, orient="index").reset_index(names="name")
    return pd.read_csv(path, dtype_backend="numpy_nullable")


def _shown(value: Any) -> str:
    if pd.isna(value):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"
    if isinstance(value, str):
        return markdown_text(value)
    return str(value) if isinstance(value, bool) else f"{value:,}"


def main(pages: list[str]) -> None:
    """Fill the tables of some pages, relative to the current folder."""
    for page in map(Path, pages):
        text = page.read_text(encoding="utf-8")
        filled = fill_tables(text, Path())
        if filled != text:
            write_text(filled, page)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
