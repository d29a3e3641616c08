"""Lay tables out as pages for the report."""

from typing import TYPE_CHECKING

import pandas as pd

from hesspipe.files import write_text
from hesspipe.tables.formats import to_page
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def lay_out_tables(paths_to_csv: list[str], paths_to_pages: list[str]) -> None:
    """Read, lay out, write, each table on its own."""
    for path_to_csv, path_to_page in zip(paths_to_csv, paths_to_pages, strict=True):
        write_text(to_page(pd.read_csv(path_to_csv)), path_to_page)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        lay_out_tables([*snakemake.input.tables, *snakemake.input.claims], list(snakemake.output))
