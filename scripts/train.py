"""Train one network, keeping checkpoints and a history; goes on where a killed job was."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.training import TrainingRun
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def train(
    path_to_dataset: str,
    config: dict[str, Any],
    about: dict[str, Any],
    paths_to_checkpoints: list[str],
    path_to_history: str,
) -> None:
    """Train, write the history, put the checkpoints in their places."""
    run = TrainingRun(path_to_dataset, **config, **about)
    write_table(run.train(), path_to_history, "history", run.provenance)
    run.collect_checkpoints(paths_to_checkpoints)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        train(
            snakemake.input.dataset,
            snakemake.params.config,
            {
                "experiment": snakemake.params.experiment,
                "seed": int(snakemake.wildcards.seed),
                "path_to_start": snakemake.input.get("start"),
                "own_code": list(snakemake.input.own),
            },
            list(snakemake.output.checkpoints),
            snakemake.output.history,
        )
