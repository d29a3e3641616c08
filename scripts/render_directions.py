"""Render what the outliers are: eigenvectors against class-mean gradients."""

from typing import TYPE_CHECKING, Any

from hesspipe.figures import style
from hesspipe.figures.directions import directions_figure
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_directions(
    paths_to_directions: list[str], config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    tables = [read_table(path, "directions") for path in paths_to_directions]
    style.save(directions_figure(tables, config["labels"]), path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_directions(
            list(snakemake.input.directions), snakemake.params.config["figure"],
            snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
