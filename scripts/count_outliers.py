"""Count the outliers of every spectrum of one run, by every rule."""

from typing import TYPE_CHECKING

from hesspipe.experiments.outliers import count_outliers
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        settings = snakemake.params.config["outliers"]
        outliers = count_outliers(
            paths_to_spectra=list(snakemake.input.spectra),
            rules=settings["rules"],
            num_candidates=settings["num_candidates"],
        )
        write_result(outliers, snakemake.output.outliers)
