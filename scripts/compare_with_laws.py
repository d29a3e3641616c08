"""Draw and train a linear model, and compare its spectrum with the laws that predict it."""

from typing import TYPE_CHECKING

from hesspipe.experiments.laws import compare_with_laws
from hesspipe.experiments.linear_models import extract_linear_model
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        entry = snakemake.params.config["entry"]
        spectrum, samples = extract_linear_model(
            name=snakemake.wildcards.source,
            entry=entry,
            zero_tolerance=snakemake.params.config["spectrum"]["zero_tolerance"],
        )
        law, outliers, histogram = compare_with_laws(
            spectrum,
            samples,
            num_groups=entry["num_groups"],
            num_positions=entry["num_positions"],
            num_bins=entry["num_bins"],
        )
        write_result(spectrum, snakemake.output.spectrum)
        write_result(samples, snakemake.output.samples)
        write_result(law, snakemake.output.law)
        write_result(outliers, snakemake.output.outliers)
        write_result(histogram, snakemake.output.histogram)
