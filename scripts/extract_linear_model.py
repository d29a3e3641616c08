"""Train a linear model and compute the spectrum of its Hessian: Examples 1 and 2."""

from typing import TYPE_CHECKING

from hesspipe.experiments.linear_models import extract_linear_model
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        spectrum, samples = extract_linear_model(
            name=snakemake.wildcards.source,
            entry=snakemake.params.config["entry"],
            zero_tolerance=snakemake.params.config["spectrum"]["zero_tolerance"],
        )
        write_result(spectrum, snakemake.output.spectrum)
        write_result(samples, snakemake.output.samples)
