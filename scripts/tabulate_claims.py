"""Lay the verdicts out as a table, for readers and for the README."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hesspipe.claims.check import claims_table
from hesspipe.files import write_text
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_claims(path_to_claims: str, path_to_csv: str, path_to_markdown: str) -> None:
    """Read the verdicts, lay out, write."""
    table = claims_table(json.loads(Path(path_to_claims).read_text(encoding="utf-8")))
    write_text(table.to_csv(index=False), path_to_csv)
    shown = table[["statement", "section", "criterion", "measured", "verdict", "rules"]]
    write_text(shown.to_markdown(index=False) + "\n", path_to_markdown)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_claims(snakemake.input.claims, snakemake.output.csv, snakemake.output.markdown)
