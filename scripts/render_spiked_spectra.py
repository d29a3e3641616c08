"""Render zeros, bulk and outliers of spiked models: Theorem 2."""

from typing import TYPE_CHECKING, Any

from hesspipe.figures import style
from hesspipe.figures.spiked_spectra import spiked_spectra_figure
from hesspipe.tables.laws import spiked_spectra_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_spiked_spectra(
    paths_to_spectra: list[str], config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    spectra = [read_table(path, "spiked_spectra") for path in paths_to_spectra]
    figure = spiked_spectra_figure(spectra, spiked_spectra_table(spectra), config["num_bins"])
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_spiked_spectra(
            list(snakemake.input.spectra),
            snakemake.params.config["figure"], snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
