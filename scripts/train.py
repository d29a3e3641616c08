"""Train one network, with checkpoints and a history; resumes an interrupted job."""

from typing import TYPE_CHECKING

from hesspipe.experiments.training import TrainingRun
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        config = snakemake.params.config
        run = TrainingRun(
            path_to_dataset=snakemake.input.dataset,
            path_to_start=snakemake.input.get("start"),
            user_code=[*snakemake.input.user, snakemake.input.code],
            experiment=config["experiment"],
            seed=int(snakemake.wildcards.seed),
            model=config["model"],
            training=config["training"],
        )
        with run.lock():
            write_result(run.train(), snakemake.output.history)
            run.collect_checkpoints(list(snakemake.output.checkpoints))
