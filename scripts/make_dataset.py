"""Make a dataset, and store it once for every experiment that uses it."""

from typing import TYPE_CHECKING

from hesspipe.data.dataset import write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        write_dataset(make_dataset(**snakemake.params.config["dataset"]), snakemake.output.dataset)
