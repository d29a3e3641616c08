"""Pages of tables, and the captions that the report needs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from hesspipe.config.figures import Figure
from hesspipe.config.tables import Table
from hesspipe.tables.formats import table_page

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


@pytest.mark.parametrize("kind", kinds(Figure))
def test_every_kind_of_figure_has_a_caption(kind: str) -> None:
    assert (REPORT / f"{kind}.rst").read_text().strip().endswith(".")


@pytest.mark.parametrize("kind", kinds(Table))
def test_every_kind_of_table_has_a_caption(kind: str) -> None:
    assert (REPORT / f"{kind}_table.rst").read_text().strip().endswith(".")


def test_page_shows_every_cell_escaped_and_loads_nothing() -> None:
    table = pd.DataFrame(
        {"name": ["a<b", "c"], "share": [1 / 3, None], "verdict": ["holds", "not measured"]}
    )
    page = table_page(table)
    assert "a&lt;b" in page
    assert ">0.33333<" in page
    assert "nan" not in page.lower().replace("not measured", "")
    assert page.count("background: #") >= 2
    assert not [word for word in ("http", "src=", "href=", "<script") if word in page]
    assert table_page(table) == page


def test_unknown_verdict_has_no_page() -> None:
    with pytest.raises(KeyError):
        table_page(pd.DataFrame({"verdict": ["maybe"]}))
