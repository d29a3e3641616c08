"""Check the paper's statements on the results and write the verdicts."""

from typing import TYPE_CHECKING

from hesspipe.claims.check import check_claims, read_results
from hesspipe.config.results import ResultKey
from hesspipe.files import write_json
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        verdicts = check_claims(
            claims=snakemake.params.config["claims"],
            reads={
                name: [ResultKey.from_path(path) for path in paths]
                for name, paths in snakemake.params.reads.items()
            },
            results=read_results(snakemake.input.tables),
        )
        write_json(verdicts, snakemake.output.claims)
