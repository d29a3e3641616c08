"""Collect the final outlier counts of every run as metrics, for `dvc metrics diff`."""

from typing import TYPE_CHECKING

from hesspipe.files import write_json
from hesspipe.tables.outlier_counts import final_counts
from hesspipe.tables.store import read_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        outliers = [read_result(path, "outliers") for path in snakemake.input.outliers]
        write_json(final_counts(outliers), snakemake.output.metrics)
