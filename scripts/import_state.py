"""Check a saved state dict and store it as the checkpoint of its experiment."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments import saved_states
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def import_state(paths: list[str], about: dict[str, Any]) -> None:
    """Read dataset and state, check, write the checkpoint."""
    saved_states.import_state(*paths, **about)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        import_state(
            [snakemake.input.dataset, snakemake.input.state, snakemake.output.checkpoint],
            snakemake.params.config
            | {"experiment": snakemake.params.experiment, "seed": int(snakemake.wildcards.seed)},
        )
