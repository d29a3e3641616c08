rule render_endpoints:
    input:
        spectra=lambda wildcards: hessians_of(
            settings.figures[wildcards.figure],
            [settings.figures[wildcards.figure].experiment],
            settings.figures[wildcards.figure].steps,
        ),
        code=code("render_endpoints"),
    output:
        pdf="figures/{figure}.pdf",
        png="figures/{figure}.png",
    log:
        "logs/render_endpoints/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "endpoints"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_endpoints.py"


rule render_gaps:
    input:
        spectra=lambda wildcards: hessians_of(
            settings.figures[wildcards.figure],
            settings.figures[wildcards.figure].experiments,
            [settings.figures[wildcards.figure].step],
        ),
        outliers=lambda wildcards: outliers_of(
            settings.figures[wildcards.figure],
            settings.figures[wildcards.figure].experiments,
        ),
        code=code("render_gaps"),
    output:
        pdf="figures/{figure}.pdf",
        png="figures/{figure}.png",
    log:
        "logs/render_gaps/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "gaps"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_gaps.py"
