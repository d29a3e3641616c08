"""Tabulate the barriers on several lines."""

from typing import TYPE_CHECKING

from hesspipe.files import write_text
from hesspipe.landscape import barriers
from hesspipe.tables.store import read_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_barriers(paths_to_lines: list[str], path_to_csv: str, path_to_markdown: str) -> None:
    """Read the lines, find the barriers, write in two formats."""
    table = barriers.barrier_table([read_table(path, "line") for path in paths_to_lines])
    write_text(table.to_csv(index=False), path_to_csv)
    write_text(barriers.to_markdown(table), path_to_markdown)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tabulate_barriers(
            list(snakemake.input.lines), snakemake.output.csv, snakemake.output.markdown
        )
