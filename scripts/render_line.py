"""Render Figure 9: loss and accuracy on the line through two solutions."""

from typing import TYPE_CHECKING

from hesspipe.figures import style
from hesspipe.figures.line import line_figure
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_line(path_to_table: str, path_to_pdf: str, path_to_png: str) -> None:
    """Read the table, draw, write."""
    style.save(line_figure(read_table(path_to_table, "line")), path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_line(snakemake.input.table, snakemake.output.pdf, snakemake.output.png)
