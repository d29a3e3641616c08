"""Formats of tables, and the captions that the report needs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from jinja2 import Template

from hesspipe.config.figures import Figure
from hesspipe.config.tables import Table
from hesspipe.tables import barriers, outlier_counts
from hesspipe.tables.formats import format_table, to_latex, to_markdown, to_page

REPORT = Path(__file__).parents[2] / "report"


def kinds(union: object) -> list[str]:
    """The kinds of an annotated union of models, unions inside it included."""
    found = []
    for model in get_args(get_args(union)[0]):
        found += (
            [*get_args(model.model_fields["kind"].annotation)]
            if hasattr(model, "model_fields")
            else kinds(model)
        )
    return found


@pytest.mark.parametrize(
    ("template", "kind"),
    [("figure", kind) for kind in kinds(Figure)] + [("table", kind) for kind in kinds(Table)],
)
def test_every_kind_has_a_caption(template: str, kind: str) -> None:
    settings = {"kind": kind, "steps": [0, 10]}
    job = {"params": {"config": {"settings": settings}}}
    caption = Template((REPORT / f"{template}.rst").read_text()).render(snakemake=job)
    assert caption.strip().endswith(".")


def test_page_shows_every_cell_escaped_and_loads_nothing() -> None:
    table = pd.DataFrame(
        {"name": ["a<b", "c"], "share": [1 / 3, None], "verdict": ["holds", "not measured"]}
    )
    page = to_page(table)
    assert "a&lt;b" in page
    assert ">0.33333<" in page
    assert "nan" not in page.lower().replace("not measured", "")
    assert page.count("background: #") >= 2
    assert not [word for word in ("http", "src=", "href=", "<script") if word in page]
    assert to_page(table) == page


def test_unknown_verdict_has_no_page() -> None:
    with pytest.raises(KeyError):
        to_page(pd.DataFrame({"verdict": ["maybe"]}))


def test_markdown_and_latex_have_four_digits_and_a_dash_for_a_missing_number() -> None:
    table = pd.DataFrame(
        {
            "from": ["part_one", "b"],
            "num_zero": pd.array([12345, None], dtype="Int64"),
            "smallest": [1 / 3, None],
        }
    )
    lines = [[cell.strip() for cell in line.split("|")] for line in to_markdown(table).splitlines()]
    assert lines[0][1:-1] == ["from", "num zero", "smallest"]
    assert lines[2][1:-1] == ["part_one", "12345", "0.3333"]
    assert lines[3][1:-1] == ["b", "–", "–"]
    rows = [line for line in to_latex(table).splitlines() if "&" in line]
    assert [cell.strip(" \\") for cell in rows[1].split("&")] == ["part\\_one", "12345", "0.3333"]
    assert to_latex(table).splitlines()[1] == r"\toprule"


def test_format_table_takes_the_formats_of_the_kind_where_it_has_them() -> None:
    table = pd.DataFrame({"mean": [1 / 3], "cutoff": [0.12345]})
    default, special = (format_table(table, module) for module in (barriers, outlier_counts))
    assert default == {
        "csv": "mean,cutoff\n0.3333333333333333,0.12345\n",
        "md": to_markdown(table),
        "tex": to_latex(table),
        "html": to_page(table),
    }
    assert special["csv"] == default["csv"]
    assert special["md"] == outlier_counts.to_markdown(table) != default["md"]
    assert special["tex"] == outlier_counts.to_latex(table) != default["tex"]


def test_page_shows_integers_with_gaps_as_they_are() -> None:
    table = pd.DataFrame({"num_zero": pd.array([123456, None], dtype="Int64")})
    page = to_page(table)
    assert ">123456<" in page
    assert "NA" not in page
