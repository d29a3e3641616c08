"""From data to figures: every result of the paper, each from what it needs and no more."""

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from hesspipe.config.loading import validate_config
from hesspipe.errors import ConfigError

min_version("9.18")


configfile: "config.yaml"


report: "report/workflow.rst"


try:
    settings = validate_config(config)
except ConfigError as error:
    raise WorkflowError(str(error))


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/training.smk"
include: "rules/spectra.smk"
include: "rules/outliers.smk"
include: "rules/lines.smk"
include: "rules/basins.smk"
include: "rules/figures.smk"
include: "rules/gallery.smk"
include: "rules/sources.smk"
include: "rules/theory.smk"
include: "rules/report.smk"


rule offline:
    input:
        figures=expand("figures/{figure}.pdf", figure=offline(settings.figures)),
        tables=expand("tables/{table}.csv", table=offline(settings.tables)),
        spectra=all_spectra(),
        outliers=outlier_tables(),
        claims=["claims.json", "tables/claims.md"] if settings.claims else [],
        metrics="metrics/outliers.json",
        pages=rules.lay_out_tables.output,


rule all:
    default_target: True
    input:
        rules.offline.input,
        figures=expand("figures/{figure}.pdf", figure=at_hand(settings.figures)),
        tables=expand("tables/{table}.csv", table=at_hand(settings.tables)),
        pages=rules.lay_out_downloaded_tables.output,
