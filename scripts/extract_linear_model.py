"""Draw, train and take the spectrum of a linear model: Examples 1 and 2."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.linear_extraction import linear_model_tables
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def extract_linear_model(
    name: str, config: dict[str, Any], path_to_spectrum: str, path_to_samples: str
) -> None:
    """Compute, write."""
    spectrum, samples, provenance = linear_model_tables(
        name, config["entry"], zero_tolerance=config["spectrum"]["zero_tolerance"]
    )
    write_table(spectrum, path_to_spectrum, "spectrum", provenance)
    write_table(samples, path_to_samples, "samples", provenance)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        extract_linear_model(
            snakemake.wildcards.source, snakemake.params.config,
            snakemake.output.spectrum, snakemake.output.samples,
        )  # fmt: skip
