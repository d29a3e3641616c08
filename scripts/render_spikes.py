"""Render positions and fluctuations of the largest eigenvalue: Theorem 1."""

from typing import TYPE_CHECKING, Any

from hesspipe.figures import style
from hesspipe.figures.spikes import spikes_figure
from hesspipe.tables.laws import fluctuation_table, spike_table
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def render_spikes(
    path_to_samples: str, config: dict[str, Any], path_to_pdf: str, path_to_png: str
) -> None:
    """Read the tables, draw, write."""
    samples = read_table(path_to_samples, "spikes")
    below, above = config["below"], config["above"]
    fluctuations = fluctuation_table(samples, [below, above])
    figure = spikes_figure(spike_table(samples), fluctuations, below, above)
    style.save(figure, path_to_pdf, path_to_png)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        render_spikes(
            snakemake.input.samples[0],
            snakemake.params.config["figure"], snakemake.output.pdf, snakemake.output.png,
        )  # fmt: skip
