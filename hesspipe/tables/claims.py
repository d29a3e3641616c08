"""Verdicts on the paper's statements, one row for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def make_table(verdicts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate verdicts.

    Parameters
    ----------
    verdicts : mapping
        See `hesspipe.claims.check.check_claims`.

    Returns
    -------
    DataFrame
        claim, statement, section, criterion, measured, verdict, rules, files; in the order of
        the paper's sections.
    """
    table = pd.DataFrame(
        [
            {
                "claim": name,
                "statement": found["statement"],
                "section": found["where"].removeprefix("Section "),
                "criterion": found["criterion"],
                "measured": "; ".join(
                    f"{key.replace('_', ' ')} {_short(value)}"
                    for key, value in found["measured"].items()
                ),
                "verdict": found["verdict"],
                "rules": ", ".join(found["rules"]),
                "files": " ".join(found["files"]),
            }
            for name, found in verdicts.items()
        ]
    )
    return table.sort_values("section", kind="stable", ignore_index=True)


def to_markdown(table: pd.DataFrame) -> str:
    """Format the verdicts as Markdown, without the files they rest on."""
    return _shown(table).to_markdown(index=False) + "\n"


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    return table[["statement", "section", "criterion", "measured", "verdict", "rules"]]


def _short(value: Any) -> str:
    """A number with four digits, also inside lists and mappings."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_short(entry) for entry in value)
    return "–" if value is None else str(value)
