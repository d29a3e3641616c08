"""Predict a linear model's spectrum from its samples' curvatures: Figure 10."""

from typing import TYPE_CHECKING

from hesspipe.experiments.laws import compare_with_laws
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        entry = snakemake.params.config["entry"]
        law, outliers, histogram = compare_with_laws(
            path_to_spectrum=snakemake.input.spectrum,
            path_to_samples=snakemake.input.samples,
            num_groups=entry["num_groups"],
            num_positions=entry["num_positions"],
            num_bins=entry["num_bins"],
        )
        write_result(law, snakemake.output.law)
        write_result(outliers, snakemake.output.outliers)
        write_result(histogram, snakemake.output.histogram)
