"""Compute H = G + R through one training: the residual's size and its effect on the spectrum."""

from typing import TYPE_CHECKING

from hesspipe.experiments.decomposition import decompose
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        decomposition = decompose(
            paths_to_spectra=list(snakemake.input.spectra),
            path_to_outliers=snakemake.input.outliers,
        )
        write_result(decomposition, snakemake.output.table)
