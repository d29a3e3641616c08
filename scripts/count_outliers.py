"""Count the outliers of every spectrum of one run, by every rule."""

from typing import TYPE_CHECKING

from hesspipe.experiments.outliers import count_outliers
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        outliers = count_outliers(
            list(snakemake.input.spectra), **snakemake.params.config["outliers"]
        )
        write_result(outliers, snakemake.output.table)
