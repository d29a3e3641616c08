"""Draw the largest eigenvalue of a spiked model across the transition: Theorem 1."""

from typing import TYPE_CHECKING, Any

from hesspipe.random_matrices.sampling import sample_largest
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def sample_spikes(name: str, entry: dict[str, Any], path_to_table: str) -> None:
    """Draw, write."""
    table = sample_largest(**{key: entry[key] for key in entry if key != "kind"})
    write_table(table, path_to_table, "spikes", {"name": name, "entry": entry})


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        sample_spikes(
            snakemake.wildcards.source, snakemake.params.config["entry"], snakemake.output.table
        )
