"""Evaluate the loss on the plane through three solutions."""

from typing import TYPE_CHECKING

from hesspipe.experiments.landscape import evaluate_plane
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        plane, points = evaluate_plane(
            path_to_dataset=snakemake.input.dataset,
            paths_to_parts=[list(snakemake.input.first_part), list(snakemake.input.second_part)],
            path_to_other=snakemake.input.other,
            model=snakemake.params.config["model"],
            planes=snakemake.params.config["planes"],
        )
        write_result(plane, snakemake.output.plane)
        write_result(points, snakemake.output.points)
