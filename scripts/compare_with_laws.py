"""Predict a linear model's spectrum from its samples' curvatures: Figure 10."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.laws import compare_with_laws as compare
from hesspipe.tables.store import read_table, write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def compare_with_laws(
    path_to_spectrum: str,
    path_to_samples: str,
    entry: dict[str, Any],
    path_to_law: str,
    path_to_outliers: str,
) -> None:
    """Read the tables, predict, write."""
    spectrum = read_table(path_to_spectrum, "spectrum")
    law, outliers, summary = compare(
        spectrum, read_table(path_to_samples, "samples"),
        num_groups=entry["num_groups"], num_positions=entry["num_positions"],
    )  # fmt: skip
    about = {key: spectrum.attrs[key] for key in spectrum.attrs if key not in ("kind", "versions")}
    write_table(law, path_to_law, "law", about | summary)
    write_table(outliers, path_to_outliers, "law_outliers", about | summary)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        compare_with_laws(
            snakemake.input.spectrum, snakemake.input.samples, snakemake.params.config["entry"],
            snakemake.output.law, snakemake.output.outliers,
        )  # fmt: skip
