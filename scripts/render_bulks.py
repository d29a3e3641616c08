"""Render linear models' spectra with the laws that predict them: Figure 10."""

from typing import TYPE_CHECKING

from hesspipe.figures import style
from hesspipe.figures.bulks import make_figure
from hesspipe.tables.store import read_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        results = [read_result(path) for path in snakemake.input.results]
        figure = make_figure(results, snakemake.params.config["figure"])
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
