"""Smooth the stored densities of one figure."""

from typing import TYPE_CHECKING

from hesspipe.experiments.curves import smooth_densities
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        figure = snakemake.params.config["figure"]
        curves = smooth_densities(
            paths_to_densities=list(snakemake.input.densities),
            kind=figure["kind"],
            relative_width=figure["relative_width"],
            num_points=figure["num_points"],
        )
        write_result(curves, snakemake.output.curves)
