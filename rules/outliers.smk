rule count_outliers:
    input:
        spectra=lambda wildcards: ends_of_run(wildcards.experiment, wildcards.seed),
        code=code("count_outliers"),
    output:
        table=OUTLIERS,
    log:
        "logs/count_outliers/{experiment}_seed{seed}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(outliers="outliers"),
    script:
        "../scripts/count_outliers.py"


rule summarize_outliers:
    input:
        outliers=outlier_tables(),
        code=code("summarize_outliers"),
    output:
        metrics="metrics/outliers.json",
    log:
        "logs/summarize_outliers.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/summarize_outliers.py"


rule tabulate_outliers:
    input:
        spectra=lambda wildcards: hessians_of(
            settings.tables[wildcards.table],
            settings.tables[wildcards.table].experiments,
            [settings.tables[wildcards.table].step],
        ),
        outliers=lambda wildcards: outliers_of(
            settings.tables[wildcards.table],
            settings.tables[wildcards.table].experiments,
        ),
        published=lambda wildcards: settings.tables[wildcards.table].published,
        code=code("tabulate_outliers"),
    output:
        csv="tables/{table}.csv",
        markdown="tables/{table}.md",
        latex="tables/{table}.tex",
    log:
        "logs/tabulate_outliers/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "outlier_counts"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_outliers.py"


rule tabulate_inertia:
    input:
        spectra=lambda wildcards: spectra_over_seeds(settings.tables[wildcards.table]),
        code=code("tabulate_inertia"),
    output:
        csv="tables/{table}.csv",
    log:
        "logs/tabulate_inertia/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "inertia"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_inertia.py"
