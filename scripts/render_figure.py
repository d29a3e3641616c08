"""Render a figure by the module of its kind, as PDF and PNG."""

import importlib
from typing import TYPE_CHECKING

from hesspipe.plots import style
from hesspipe.tables.store import read_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        settings = snakemake.params.config["settings"]
        module = importlib.import_module(f"hesspipe.figures.{settings['kind']}")
        results = [read_result(path) for path in snakemake.input.results]
        figure = module.make_figure(results, settings)
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
