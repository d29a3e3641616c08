"""Check the paper's statements on the tables and write the verdicts."""

from typing import TYPE_CHECKING, Any

from hesspipe.claims import check_claims as check
from hesspipe.tables import read_table, write_json
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def check_claims(
    paths_to_spectra: list[str],
    paths_to_outliers: list[str],
    claims: dict[str, Any],
    path_to_claims: str,
) -> None:
    """Read the tables, check, write."""
    spectra = [read_table(path, "spectrum") for path in paths_to_spectra]
    outliers = [read_table(path, "outliers") for path in paths_to_outliers]
    write_json(check(spectra, outliers, claims), path_to_claims)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        check_claims(
            list(snakemake.input.spectra), list(snakemake.input.outliers),
            snakemake.params.config["claims"], snakemake.output.claims,
        )  # fmt: skip
