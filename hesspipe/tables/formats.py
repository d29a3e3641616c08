"""Formats of tables: CSV, Markdown, LaTeX, and web pages for the report."""

from __future__ import annotations

import re
from types import ModuleType

import pandas as pd
from tabulate import tabulate

# The colors of verdicts, from the figures' set, light enough for text.
_COLORS = {
    "holds": "#d3ead8",
    "holds in part": "#f4edc4",
    "does not hold": "#fbd9dc",
    "not measured": "#e6e6e6",
}
_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 1em; color: #222; background: #fff; }
table { border-collapse: collapse; }
th, td { padding: 0.3em 0.6em; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; max-width: 30em; overflow-wrap: break-word; }
th { position: sticky; top: 0; background: #fff; }
"""


def format_table(table: pd.DataFrame, module: ModuleType) -> dict[str, str]:
    """Format a table of one kind for files.

    Parameters
    ----------
    table : DataFrame
    module : module
        That of the kind, `hesspipe.tables.<kind>`; its `to_markdown` and `to_latex` are used
        where it has them.

    Returns
    -------
    dict
        csv (with all digits), md, tex and html, by suffix.
    """
    return {
        "csv": table.to_csv(index=False),
        "md": getattr(module, "to_markdown", to_markdown)(table),
        "tex": getattr(module, "to_latex", to_latex)(table),
        "html": to_page(table),
    }


def to_markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown: four digits, a dash for a missing number."""
    return _tabulated(table, "pipe")


def markdown_text(text: str) -> str:
    r"""Escape what would end a cell of a Markdown table, or be taken for HTML.

    Examples
    --------
    >>> print(markdown_text("|a| < 2 <b>"))
    \|a\| < 2 &lt;b>
    """
    # Backslashes before a bar would escape its own.
    whole = re.sub(r"(\\*)\|", r"\1\1\|", " ".join(text.splitlines()))
    return re.sub("<(?=[a-zA-Z/!?])", "&lt;", whole)


def to_latex(table: pd.DataFrame) -> str:
    """Format a table as a LaTeX tabular for booktabs: four digits, a dash for a missing number."""
    return _tabulated(table, "latex_booktabs")


def _tabulated(table: pd.DataFrame, style: str) -> str:
    named = table.rename(columns=lambda name: name.replace("_", " "))
    cells = named.astype(object).where(named.notna(), None)
    shown = markdown_text if style == "pipe" else str
    columns = {
        shown(str(name)): [shown(cell) if isinstance(cell, str) else cell for cell in cells[name]]
        for name in cells
    }
    text = tabulate(columns, headers="keys", tablefmt=style, floatfmt=".4g", missingval="–")
    return f"{text}\n"


def to_page(table: pd.DataFrame) -> str:
    """Format a table as a web page that loads nothing from elsewhere.

    Parameters
    ----------
    table : DataFrame
        Numbers are shown with five digits, missing ones as empty cells. Verdicts are colored.

    Returns
    -------
    str
        An HTML document.

    Examples
    --------
    >>> page = to_page(pd.DataFrame({"verdict": ["holds"], "share": [1 / 3]}))
    >>> "0.33333" in page, "#d3ead8" in page
    (True, True)
    """
    styler = table.style.format(precision=5, na_rep="", escape="html").hide(axis="index")
    styler = styler.format_index(escape="html", axis="columns")
    for column in table.select_dtypes("float"):
        styler = styler.format("{:.5g}", subset=[column], na_rep="")
    if "verdict" in table:
        styler = styler.map(
            lambda value: f"background: {_COLORS[value]}; white-space: nowrap", subset=["verdict"]
        )
    # pandas draws a random id unless one is given; equal tables must give equal bytes.
    body = styler.set_uuid("table").to_html()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>table</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
