"""Render H = G + R through training."""

from typing import TYPE_CHECKING, Any

from hesspipe.figures import style
from hesspipe.figures.decomposition import decomposition_figure
from hesspipe.tables.decomposition import decomposition_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_decomposition(
    paths_to_spectra: list[str], path_to_outliers: str, config: dict[str, Any], paths: list[str]
) -> None:
    """Read the tables, draw, write."""
    spectra = [read_table(path, "spectrum") for path in paths_to_spectra]
    outliers = read_table(path_to_outliers, "outliers")
    table = decomposition_table(spectra, outliers, config["rule"])
    style.save(decomposition_figure(table, outliers.attrs["num_classes"]), *paths)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_decomposition(
            list(snakemake.input.spectra), snakemake.input.outliers[0],
            snakemake.params.config["figure"], list(snakemake.output),
        )  # fmt: skip
