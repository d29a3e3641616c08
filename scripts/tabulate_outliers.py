"""Tabulate outlier counts beside published ones: Table 1."""

from typing import TYPE_CHECKING

import pandas as pd

from hesspipe.files import write_text
from hesspipe.tables import outliers as outlier_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_outliers(
    paths_to_spectra: list[str],
    paths_to_outliers: list[str],
    path_to_published: str,
    paths: dict[str, str],
) -> None:
    """Read the tables, join, write in three formats."""
    table = outlier_table.outlier_counts(
        [read_table(path, "spectrum") for path in paths_to_spectra],
        [read_table(path, "outliers") for path in paths_to_outliers],
        pd.read_csv(path_to_published),
    )
    write_text(table.to_csv(index=False), paths["csv"])
    write_text(outlier_table.to_markdown(table), paths["markdown"])
    write_text(outlier_table.to_latex(table), paths["latex"])


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_outliers(
            list(snakemake.input.spectra), list(snakemake.input.outliers),
            snakemake.input.published, dict(snakemake.output.items()),
        )  # fmt: skip
