"""Take a dataset from a function or a file of one's own, and store it for all that use it."""

from typing import TYPE_CHECKING, Any

from hesspipe.data.dataset import write_dataset
from hesspipe.networks import build as own_networks
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def make_own_dataset(settings: dict[str, Any], path_to_dataset: str) -> None:
    """Call the function or read the file, check, write."""
    write_dataset(own_networks.make_own_dataset(settings), path_to_dataset)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        make_own_dataset(snakemake.params.config["dataset"], snakemake.output.dataset)
