"""Evaluate the loss on the plane through three solutions."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.lines import plane_tables
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def evaluate_plane(
    path_to_dataset: str, paths_to_parts: list[list[str]], path_to_other: str,
    config: dict[str, Any], path_to_grid: str, path_to_points: str,
) -> None:  # fmt: skip
    """Load networks and data, evaluate, write."""
    grid, points, provenance = plane_tables(
        path_to_dataset, paths_to_parts, path_to_other, **config
    )
    write_table(grid, path_to_grid, "plane", provenance)
    write_table(points, path_to_points, "plane_points", provenance)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        evaluate_plane(
            snakemake.input.dataset,
            [list(snakemake.input.first_part), list(snakemake.input.second_part)],
            snakemake.input.other,
            snakemake.params.config,
            snakemake.output.grid,
            snakemake.output.points,
        )
