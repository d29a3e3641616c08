"""Tables as pages of their own, for the report: nothing is loaded from elsewhere."""

from __future__ import annotations

import pandas as pd

# The colors of verdicts, from the figures' set, light enough to be read on.
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


def table_page(table: pd.DataFrame) -> str:
    """Lay a table out as a page.

    Parameters
    ----------
    table : DataFrame
        Numbers are shown with five digits, missing ones as nothing. A cell that is a verdict
        has its color.

    Returns
    -------
    str
        An HTML document that needs nothing else.

    Examples
    --------
    >>> page = table_page(pd.DataFrame({"verdict": ["holds"], "share": [1 / 3]}))
    >>> "0.33333" in page, "#d3ead8" in page
    (True, True)
    """
    styler = table.style.format(precision=5, na_rep="", escape="html").hide(axis="index")
    for column in table.select_dtypes("float"):
        styler = styler.format("{:.5g}", subset=[column], na_rep="")
    if "verdict" in table:
        styler = styler.map(
            lambda value: f"background: {_COLORS[value]}; white-space: nowrap", subset=["verdict"]
        )
    # Pandas names a table at random unless told how: equal tables are equal bytes.
    body = styler.set_uuid("table").to_html()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>table</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
