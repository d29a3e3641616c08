"""The table of the faults that were tried, and its page in the documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path("docs/reliability.md")
_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"
OUTCOMES = ("survived", "told", "failed")


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Count the outcomes of each kind, as Markdown."""
    counts = Counter((one["kind"], one["outcome"]) for one in results)
    kinds = list(dict.fromkeys(one["kind"] for one in results))
    rows = ["| fault | tried | survived | reported | failed |", "|---|---|---|---|---|"]
    for kind in kinds:
        numbers = [counts[kind, outcome] for outcome in OUTCOMES]
        rows.append(f"| {kind} | {sum(numbers):,} | {' | '.join(f'{one:,}' for one in numbers)} |")
    totals = [sum(one["outcome"] == outcome for one in results) for outcome in OUTCOMES]
    total = " | ".join(f"{one:,}" for one in totals)
    return [*rows, f"| all | {len(results):,} | {total} |"]


def write_page(results: Sequence[Mapping[str, Any]], conditions: str, root: Path) -> None:
    """Put the table between the page's marks."""
    path = root / PAGE
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    lines = [_BEGIN, "", conditions, "", *table(results), "", _END]
    path.write_text(before + "\n".join(lines) + after, encoding="utf-8")
