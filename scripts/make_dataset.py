"""Make a dataset and store it once for all experiments that use it."""

from typing import TYPE_CHECKING, Any

from hesspipe.data import dataset as data
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def make_dataset(settings: dict[str, Any], path_to_dataset: str) -> None:
    """Draw the data, write."""
    data.write_dataset(data.make_dataset(**settings), path_to_dataset)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        make_dataset(snakemake.params.config["dataset"], snakemake.output.dataset)
