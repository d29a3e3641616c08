rule check_claims:
    input:
        tables=sorted(
            {
                path
                for claim in settings.claims.values()
                for path in tables_of_claim(claim)
            }
        ),
        code=code("check_claims"),
    output:
        claims="claims.json",
    log:
        "logs/check_claims.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(claims="claims"),
    script:
        "../scripts/check_claims.py"


rule tabulate_claims:
    input:
        claims="claims.json",
        code=code("tabulate_claims"),
    output:
        csv="tables/claims.csv",
        markdown="tables/claims.md",
    log:
        "logs/tabulate_claims.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/tabulate_claims.py"


# One job for all pages: each is a moment's work, and starting a job is two.
rule lay_out_tables:
    input:
        tables=expand("tables/{table}.csv", table=at_hand(settings.tables)),
        claims=["tables/claims.csv"] if settings.claims else [],
        code=code("lay_out_tables"),
    output:
        pages=[page_in_report(table) for table in at_hand(settings.tables)],
        claims=(
            [
                report(
                    "tables/claims.html",
                    caption="../report/claims.rst",
                    category="1. Claims",
                    labels={"table": "every statement, with its verdict"},
                )
            ]
            if settings.claims
            else []
        ),
    log:
        "logs/lay_out_tables.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/lay_out_tables.py"
