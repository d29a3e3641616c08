rule check_claims:
    input:
        spectra=sorted(
            {
                path
                for claim in settings.claims.values()
                for path in hessians_of(claim, claim.experiments, [claim.step])
            }
        ),
        outliers=sorted(
            {
                path
                for claim in settings.claims.values()
                for path in outliers_of(claim, claim.experiments)
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
