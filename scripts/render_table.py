"""Render a table by the module of its kind, as CSV, Markdown, LaTeX and a web page."""

import importlib
from typing import TYPE_CHECKING

from hesspipe.files import write_text
from hesspipe.tables.formats import format_table
from hesspipe.tables.store import read_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        settings = snakemake.params.config["settings"]
        module = importlib.import_module(f"hesspipe.tables.{settings['kind']}")
        results = [read_result(path) for path in snakemake.input.results]
        table = module.make_table(results, settings)
        for suffix, text in format_table(table, module).items():
            write_text(text, snakemake.output[suffix])
