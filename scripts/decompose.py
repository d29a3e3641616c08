"""Measure the size of the residual R, and its effect on the spectrum, through one training."""

from typing import TYPE_CHECKING

from hesspipe.experiments.decomposition import decompose
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        decomposition = decompose(
            paths_to_spectra=list(snakemake.input.spectra),
            path_to_outliers=snakemake.input.outliers,
        )
        write_result(decomposition, snakemake.output.decomposition)
