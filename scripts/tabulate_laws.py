"""Tabulate linear models against the laws that predict them: Figure 10."""

from typing import TYPE_CHECKING

from hesspipe.files import write_text
from hesspipe.tables.laws import make_table
from hesspipe.tables.store import read_result
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        results = [read_result(path) for path in snakemake.input.results]
        table = make_table(results, snakemake.params.config["table"])
        write_text(table.to_csv(index=False), snakemake.output.csv)
