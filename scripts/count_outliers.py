"""Count the outliers of every spectrum of one run, by every rule."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from hesspipe.tables.outliers import count_by_rules
from hesspipe.tables.store import read_either, write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def count_outliers(paths_to_spectra: list[str], config: dict[str, Any], path_to_table: str) -> None:
    """Read the spectra, count, write."""
    spectra = [read_either(path, ["spectrum", "eigenpairs"]) for path in paths_to_spectra]
    counts = pd.concat([count_by_rules(spectrum, **config["outliers"]) for spectrum in spectra])
    shared = {key: spectra[0].attrs[key] for key in ("experiment", "seed", "num_classes")}
    write_table(counts, path_to_table, "outliers", shared | config["outliers"])


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        count_outliers(
            list(snakemake.input.spectra), snakemake.params.config, snakemake.output.table
        )
