"""Render the smoothed densities of several matrices with error bars."""

from typing import TYPE_CHECKING, Any

from hesspipe.tables.densities import smooth_densities

from hesspipe.figures import style
from hesspipe.figures.densities import densities_figure
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_densities(
    paths_to_densities: list[str], config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, smooth, draw, write."""
    tables = [read_table(path, "density") for path in paths_to_densities]
    curves = smooth_densities(tables, config["relative_width"], config["num_points"])
    style.save(densities_figure(curves), path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_densities(
            list(snakemake.input.densities), snakemake.params.config["figure"],
            snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
