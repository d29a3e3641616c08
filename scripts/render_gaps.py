"""Render the top of several ordered spectra with their gaps: Figure 2."""

from typing import TYPE_CHECKING, Any

from hesspipe.figures import style
from hesspipe.figures.gaps import gaps_figure
from hesspipe.tables.store import read_outliers, read_spectra
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_gaps(
    paths_to_spectra: list[str],
    paths_to_outliers: list[str],
    config: dict[str, Any],
    path_to_pdf: str,
    path_to_png: str,
) -> None:
    """Read the tables, draw, write."""
    outliers = read_outliers(paths_to_outliers, config["step"], "hessian", config["rule"])
    figure = gaps_figure(read_spectra(paths_to_spectra), outliers, config["num_largest"])
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_gaps(
            list(snakemake.input.spectra), list(snakemake.input.outliers),
            snakemake.params.config["figure"], snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
