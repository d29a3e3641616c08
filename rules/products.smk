"""Figures, tables and verdicts, made by the module of an entry's kind from stored results."""


rule smooth_densities:
    input:
        unpack(project.inputs(ResultKind.CURVES)),
        code=project.code("smooth_densities"),
    output:
        curves=pattern(ResultKind.CURVES),
    log:
        "logs/smooth_densities/{figure}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.CURVES),
    params:
        config=lambda wildcards: dump(figure=settings.figures[wildcards.figure]),
    script:
        "../scripts/smooth_densities.py"


rule render_figure:
    input:
        results=project.reads("figures"),
        code=project.code_of_kind("render_figure", "figures"),
    output:
        pdf="figures/{figure}.pdf",
        png=report(
            "figures/{figure}.png",
            caption="../report/figure.rst",
            category="2. Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/render_figure/{figure}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    params:
        config=lambda wildcards: dump(settings=settings.figures[wildcards.figure]),
    script:
        "../scripts/render_figure.py"


rule render_table:
    input:
        results=project.reads("tables"),
        published=project.published,
        code=project.code_of_kind("render_table", "tables"),
    output:
        csv="tables/{table}.csv",
        md="tables/{table}.md",
        tex="tables/{table}.tex",
        html=report(
            "tables/{table}.html",
            caption="../report/table.rst",
            category="3. Tables",
            labels={"table": "{table}"},
        ),
    log:
        "logs/render_table/{table}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    params:
        config=lambda wildcards: dump(settings=settings.tables[wildcards.table]),
    script:
        "../scripts/render_table.py"


rule check_claims:
    input:
        results=lambda wildcards: project.results_of_claims(project.offline("claims")),
        code=project.code("check_claims"),
    output:
        json="claims.json",
        csv="claims/verdicts.csv",
        md="claims/verdicts.md",
        tex="claims/verdicts.tex",
        html=report(
            "claims/verdicts.html",
            caption="../report/claims.rst",
            category="1. Claims",
            labels={"table": "every statement, with its verdict"},
        ),
    log:
        "logs/check_claims.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    params:
        config=dump(
            claims=settings.claims,
            reads=project.reads_of("claims", settings.claims),
        ),
    script:
        "../scripts/check_claims.py"


# Recorded results must not depend on the data present on one machine: claims on downloaded data
# are "not measured" above, and have separate files where the data are present.
use rule check_claims as check_downloaded_claims with:
    input:
        results=lambda wildcards: project.results_of_claims(
            project.downloaded("claims")
        ),
        code=project.code("check_claims"),
    output:
        json="claims/downloaded.json",
        csv="claims/downloaded.csv",
        md="claims/downloaded.md",
        tex="claims/downloaded.tex",
        html=report(
            "claims/downloaded.html",
            caption="../report/claims.rst",
            category="1. Claims",
            labels={"table": "on downloaded data"},
        ),
    log:
        "logs/check_downloaded_claims.log",
    params:
        config=dump(
            claims={
                name: settings.claims[name] for name in project.downloaded("claims")
            },
            reads=project.reads_of("claims", project.downloaded("claims")),
        ),
