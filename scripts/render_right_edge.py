"""Render the largest eigenvalues of several networks over each other: Figures 3 and 4."""

from typing import TYPE_CHECKING, Any

from hesspipe.figures import style
from hesspipe.figures.right_edge import right_edge_figure
from hesspipe.tables.store import read_spectra
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_right_edge(
    paths_to_spectra: list[str], config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    spectra = read_spectra(paths_to_spectra)
    figure = right_edge_figure(spectra, config["num_largest"], config["labels"])
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_right_edge(
            list(snakemake.input.spectra),
            snakemake.params.config["figure"],
            snakemake.output.pdf,
            snakemake.output.png,
        )
