"""Render Figure 8: two parts of one training on one axis of steps."""

from typing import TYPE_CHECKING

from hesspipe.figures import style
from hesspipe.figures.basins import basins_figure
from hesspipe.tables.store import read_parts
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_basins(paths_to_histories: list[str], path_to_pdf: str, path_to_png: str) -> None:
    """Read the histories, draw, write."""
    style.save(basins_figure(read_parts(paths_to_histories)), path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_basins(list(snakemake.input.histories), snakemake.output.pdf, snakemake.output.png)
