"""Collect the final outlier counts of every run as metrics, for `dvc metrics diff`."""

from typing import TYPE_CHECKING

from hesspipe.files import write_json
from hesspipe.tables.outlier_counts import final_counts
from hesspipe.tables.store import read_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def summarize_outliers(paths_to_outliers: list[str], path_to_metrics: str) -> None:
    """Read the outlier tables, pick the last step of each, write."""
    write_json(
        final_counts([read_result(path, "outliers") for path in paths_to_outliers]), path_to_metrics
    )


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        summarize_outliers(list(snakemake.input.outliers), snakemake.output.metrics)
