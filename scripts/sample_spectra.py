"""Draw whole spectra of a sample covariance with a few spikes: Theorem 2."""

from typing import TYPE_CHECKING

from hesspipe.experiments.spiked_models import sample_spiked_spectra
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        spectra, parts = sample_spiked_spectra(
            name=snakemake.wildcards.source, entry=snakemake.params.config["entry"]
        )
        write_result(spectra, snakemake.output.spectra)
        write_result(parts, snakemake.output.parts)
