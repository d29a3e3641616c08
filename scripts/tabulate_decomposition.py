"""Tabulate H = G + R through training."""

from typing import TYPE_CHECKING, Any

from hesspipe.files import write_text
from hesspipe.tables.decomposition import decomposition_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_decomposition(
    paths_to_spectra: list[str], path_to_outliers: str, config: dict[str, Any], path_to_csv: str
) -> None:
    """Read the tables, compare, write."""
    spectra = [read_table(path, "spectrum") for path in paths_to_spectra]
    outliers = read_table(path_to_outliers, "outliers")
    table = decomposition_table(spectra, outliers, config["rule"])
    write_text(table.to_csv(index=False), path_to_csv)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_decomposition(
            list(snakemake.input.spectra), snakemake.input.outliers[0],
            snakemake.params.config["table"], snakemake.output.csv,
        )  # fmt: skip
