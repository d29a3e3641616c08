"""Tabulate spiked models beside Theorem 2."""

from typing import TYPE_CHECKING

from hesspipe.files import write_text
from hesspipe.tables.laws import spiked_spectra_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_spiked_spectra(paths_to_spectra: list[str], path_to_csv: str) -> None:
    """Read the tables, compare, write."""
    spectra = [read_table(path, "spiked_spectra") for path in paths_to_spectra]
    write_text(spiked_spectra_table(spectra).to_csv(index=False), path_to_csv)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_spiked_spectra(list(snakemake.input.spectra), snakemake.output.csv)
