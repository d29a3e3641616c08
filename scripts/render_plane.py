"""Render the loss on the plane through three solutions, with the path of training."""

from typing import TYPE_CHECKING

from hesspipe.figures import style
from hesspipe.figures.plane import plane_figure
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_plane(
    path_to_grid: str, path_to_points: str, path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    figure = plane_figure(
        read_table(path_to_grid, "plane"), read_table(path_to_points, "plane_points")
    )
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_plane(
            snakemake.input.grid, snakemake.input.points,
            snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
