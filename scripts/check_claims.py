"""Check the paper's statements on the tables and write the verdicts."""

from typing import TYPE_CHECKING, Any

from hesspipe.claims.check import check_claims as check
from hesspipe.tables.store import read_tables, write_json
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def check_claims(paths_to_tables: list[str], claims: dict[str, Any], path_to_claims: str) -> None:
    """Read the tables, check, write."""
    write_json(check(read_tables(paths_to_tables), claims), path_to_claims)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        claims = snakemake.params.config["claims"]
        check_claims(
            list(snakemake.input.tables),
            {name: claims[name] for name in snakemake.params.names},
            snakemake.output.claims,
        )
