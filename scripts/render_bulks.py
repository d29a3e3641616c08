"""Render linear models' spectra with the laws that predict them: Figure 10."""

from typing import TYPE_CHECKING, Any

from hesspipe.figures import style
from hesspipe.figures.bulks import bulks_figure
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_bulks(
    paths: dict[str, list[str]], config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    figure = bulks_figure(
        [read_table(path, "spectrum") for path in paths["spectra"]],
        [read_table(path, "law") for path in paths["laws"]],
        [read_table(path, "law_outliers") for path in paths["outliers"]],
        config["num_columns"],
        config["num_bins"],
    )
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_bulks(
            {name: list(snakemake.input[name]) for name in ("spectra", "laws", "outliers")},
            snakemake.params.config["figure"], snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
