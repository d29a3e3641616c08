"""Put a trained network's hidden units in the order of another seed's."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.lines import align_checkpoint
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def align_units(
    path_to_dataset: str, path_to_reference: str, path_to_other: str, config: dict[str, Any],
    path_to_aligned: str,
) -> None:  # fmt: skip
    """Load both networks, match their units, write the second one."""
    align_checkpoint(
        path_to_dataset, path_to_reference, path_to_other, config["model"], path_to_aligned
    )


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        align_units(
            snakemake.input.dataset,
            snakemake.input.reference,
            snakemake.input.other,
            snakemake.params.config,
            snakemake.output.aligned,
        )
