"""Sample whole spectra of a spiked model: Theorem 2."""

from typing import TYPE_CHECKING

from hesspipe.experiments.spiked_models import sample_spiked_spectra
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        spectra, parts = sample_spiked_spectra(
            name=snakemake.wildcards.source, entry=snakemake.params.config["entry"]
        )
        write_result(spectra, snakemake.output.spectra)
        write_result(parts, snakemake.output.parts)
