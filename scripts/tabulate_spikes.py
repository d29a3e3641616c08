"""Tabulate the largest eigenvalue of a spiked model beside Theorem 1."""

from typing import TYPE_CHECKING

from hesspipe.files import write_text
from hesspipe.tables.laws import spike_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_spikes(path_to_samples: str, path_to_csv: str) -> None:
    """Read the tables, compare, write."""
    table = spike_table(read_table(path_to_samples, "spikes"))
    write_text(table.to_csv(index=False), path_to_csv)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_spikes(snakemake.input.samples[0], snakemake.output.csv)
