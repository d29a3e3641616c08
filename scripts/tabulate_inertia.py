"""Tabulate the signs of the eigenvalues of several spectra, with their bound."""

from typing import TYPE_CHECKING

from hesspipe.files import write_text
from hesspipe.tables.inertia import inertia
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_inertia(paths_to_spectra: list[str], path_to_csv: str) -> None:
    """Read the spectra, count, write."""
    table = inertia([read_table(path, "spectrum") for path in paths_to_spectra])
    write_text(table.to_csv(index=False), path_to_csv)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_inertia(list(snakemake.input.spectra), snakemake.output.csv)
