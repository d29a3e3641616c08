rule check_claims:
    input:
        tables=tables_of_claims(offline(settings.claims)),
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
        names=sorted(settings.claims),
    script:
        "../scripts/check_claims.py"


use rule check_claims as check_downloaded_claims with:
    input:
        tables=tables_of_claims(DOWNLOADED_CLAIMS),
        code=code("check_claims"),
    output:
        claims="metrics/claims_downloaded.json",
    log:
        "logs/check_downloaded_claims.log",
    params:
        config=ConfigPart(claims="claims"),
        names=DOWNLOADED_CLAIMS,


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


use rule tabulate_claims as tabulate_downloaded_claims with:
    input:
        claims="metrics/claims_downloaded.json",
        code=code("tabulate_claims"),
    output:
        csv="tables/claims_downloaded.csv",
        markdown="tables/claims_downloaded.md",
    log:
        "logs/tabulate_downloaded_claims.log",


# One job for all pages: each is a moment's work, and starting a job is two.
rule lay_out_tables:
    input:
        tables=expand("tables/{table}.csv", table=offline(settings.tables)),
        claims=["tables/claims.csv"] if settings.claims else [],
        code=code("lay_out_tables"),
    output:
        pages=[page_in_report(table) for table in offline(settings.tables)],
        claims=claims_page(
            settings.claims, "claims", "every statement, with its verdict"
        ),
    log:
        "logs/lay_out_tables.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/lay_out_tables.py"


use rule lay_out_tables as lay_out_downloaded_tables with:
    input:
        tables=expand("tables/{table}.csv", table=DOWNLOADED_TABLES),
        claims=["tables/claims_downloaded.csv"] if DOWNLOADED_CLAIMS else [],
        code=code("lay_out_tables"),
    output:
        pages=[page_in_report(table) for table in DOWNLOADED_TABLES],
        claims=claims_page(
            DOWNLOADED_CLAIMS, "claims_downloaded", "on data that were downloaded"
        ),
    log:
        "logs/lay_out_downloaded_tables.log",
