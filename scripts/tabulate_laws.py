"""Tabulate linear models beside the laws that predict them: Figure 10."""

from typing import TYPE_CHECKING

from hesspipe.files import write_text
from hesspipe.tables.laws import law_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_laws(paths_to_laws: list[str], paths_to_outliers: list[str], path_to_csv: str) -> None:
    """Read the tables, compare, write."""
    laws = [read_table(path, "law") for path in paths_to_laws]
    outliers = [read_table(path, "law_outliers") for path in paths_to_outliers]
    write_text(law_table(laws, outliers).to_csv(index=False), path_to_csv)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_laws(
            list(snakemake.input.laws), list(snakemake.input.outliers), snakemake.output.csv
        )
