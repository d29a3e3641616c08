"""Render the smoothed densities of a network and of its parts, a panel each."""

from typing import TYPE_CHECKING, Any

import pandas as pd
from hesspipe.tables.densities import smooth_densities

from hesspipe.figures import style
from hesspipe.figures.layers import layers_figure
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_layers(
    paths_to_densities: list[str], config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, smooth, draw, write."""
    tables = [read_table(path, "density") for path in paths_to_densities]
    settings = config["relative_width"], config["num_points"]
    curves = [smooth_densities([table], *settings) for table in tables]
    style.save(layers_figure(pd.concat(curves), config["titles"]), path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_layers(
            list(snakemake.input.densities), snakemake.params.config["figure"],
            snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
