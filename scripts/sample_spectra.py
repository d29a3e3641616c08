"""Draw whole spectra of a sample covariance with a few spikes: Theorem 2."""

from typing import TYPE_CHECKING, Any

from hesspipe.random_matrices.sampling import sample_spectra as sample
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def sample_spectra(name: str, entry: dict[str, Any], path_to_table: str) -> None:
    """Draw, write."""
    settings = {key: entry[key] for key in entry if key != "kind"}
    write_table(sample(**settings), path_to_table, "spiked_spectra", {"name": name, **entry})


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        sample_spectra(
            snakemake.wildcards.source, snakemake.params.config["entry"], snakemake.output.table
        )
