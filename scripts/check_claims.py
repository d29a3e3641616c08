"""Check the paper's statements on stored results, and tabulate the verdicts."""

from typing import TYPE_CHECKING

from hesspipe.claims.check import check_claims, read_results
from hesspipe.config.results import ResultKey
from hesspipe.files import write_json, write_text
from hesspipe.tables import claims as kind
from hesspipe.tables.formats import format_table
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        config = snakemake.params.config
        reads = {
            name: [ResultKey.from_path(path) for path in paths]
            for name, paths in config["reads"].items()
        }
        verdicts = check_claims(
            claims=config["claims"],
            reads=reads,
            results=read_results(snakemake.input.results),
        )
        write_json(verdicts, snakemake.output.json)
        for suffix, text in format_table(kind.make_table(verdicts), kind).items():
            write_text(text, snakemake.output[suffix])
