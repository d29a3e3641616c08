"""Compute the exact spectrum of one matrix at one checkpoint."""

from typing import TYPE_CHECKING

from hesspipe.experiments.spectra import extract_spectrum
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        spectrum = extract_spectrum(
            path_to_dataset=snakemake.input.dataset,
            path_to_checkpoint=snakemake.input.checkpoint,
            model=snakemake.params.config["model"],
            matrix=snakemake.wildcards.matrix,
            zero_tolerance=snakemake.params.config["spectrum"]["zero_tolerance"],
        )
        write_result(spectrum, snakemake.output.spectrum)
