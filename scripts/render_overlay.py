"""Render both ends of the spectra of several matrices over each other."""

from typing import TYPE_CHECKING, Any

from hesspipe.tables.extremes import extreme_eigenvalues

from hesspipe.figures import style
from hesspipe.figures.overlay import overlay_figure
from hesspipe.tables.store import read_either
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_overlay(
    paths_to_ends: list[str], config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    tables = [read_either(path, ["spectrum", "eigenpairs"]) for path in paths_to_ends]
    ends = extreme_eigenvalues(tables, config["num_largest"], config["num_smallest"])
    style.save(overlay_figure(ends), path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_overlay(
            list(snakemake.input.ends), snakemake.params.config["figure"],
            snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
