"""Tabulate what the outliers are, a row for each network."""

from typing import TYPE_CHECKING, Any

from hesspipe.files import write_text
from hesspipe.tables.directions import summarize_directions
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_directions(
    paths_to_directions: list[str],
    paths_to_outliers: list[str],
    config: dict[str, Any],
    path_to_csv: str,
) -> None:
    """Read the tables, summarize, write."""
    directions = [read_table(path, "directions") for path in paths_to_directions]
    outliers = [read_table(path, "outliers") for path in paths_to_outliers]
    table = summarize_directions(directions, outliers, config["rule"])
    write_text(table.to_csv(index=False), path_to_csv)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_directions(
            list(snakemake.input.directions), list(snakemake.input.outliers),
            snakemake.params.config["table"], snakemake.output.csv,
        )  # fmt: skip
