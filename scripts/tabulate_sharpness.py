"""Tabulate the largest eigenvalues at the ends of several trainings."""

from typing import TYPE_CHECKING, Any

from hesspipe.files import write_text
from hesspipe.tables.sharpness import sharpness_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_sharpness(paths_to_pairs: list[str], config: dict[str, Any], path_to_csv: str) -> None:
    """Read the eigenvalues, join, write."""
    tables = [read_table(path, "eigenpairs") for path in paths_to_pairs]
    table = sharpness_table(tables, config["num_largest"])
    write_text(table.to_csv(index=False), path_to_csv)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_sharpness(
            list(snakemake.input.pairs), snakemake.params.config["table"], snakemake.output.csv
        )
