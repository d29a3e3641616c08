"""Render the magnitudes of all eigenvalues in order, at several steps."""

from typing import TYPE_CHECKING

from hesspipe.figures import style
from hesspipe.figures.ordered import ordered_figure
from hesspipe.tables.store import read_spectra
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_ordered(paths_to_spectra: list[str], path_to_pdf: str, path_to_png: str) -> None:
    """Read the tables, draw, write."""
    style.save(ordered_figure(read_spectra(paths_to_spectra)), path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_ordered(list(snakemake.input.spectra), snakemake.output.pdf, snakemake.output.png)
