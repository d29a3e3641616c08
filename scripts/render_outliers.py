"""Render the largest eigenvalues of a network, and where each rule cuts them off."""

from typing import TYPE_CHECKING, Any

from hesspipe.tables.extremes import extreme_eigenvalues

from hesspipe.figures import style
from hesspipe.figures.outliers import outliers_figure
from hesspipe.tables.store import read_cutoffs, read_either
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_outliers(
    path_to_ends: str, path_to_outliers: str, config: dict[str, Any],
    path_to_pdf: str, path_to_png: str,
) -> None:  # fmt: skip
    """Read the tables, draw, write."""
    table = read_either(path_to_ends, ["spectrum", "eigenpairs"])
    counts = read_cutoffs(path_to_outliers, config["step"], config["matrix"])
    figure = outliers_figure(extreme_eigenvalues([table], config["num_largest"], 0), counts)
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_outliers(
            snakemake.input.ends[0],
            snakemake.input.outliers,
            snakemake.params.config["figure"],
            snakemake.output.pdf,
            snakemake.output.png,
        )
