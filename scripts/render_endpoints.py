"""Render all eigenvalues in order at several steps: Figure 1."""

from typing import TYPE_CHECKING

from hesspipe.figures import style
from hesspipe.figures.endpoints import endpoints_figure
from hesspipe.tables.store import read_spectra
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_endpoints(
    paths_to_spectra: list[str], num_largest: int, path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    figure = endpoints_figure(read_spectra(paths_to_spectra), num_largest)
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_endpoints(
            list(snakemake.input.spectra),
            snakemake.params.config["figure"]["num_largest"],
            snakemake.output.pdf,
            snakemake.output.png,
        )
