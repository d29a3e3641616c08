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
        png=figure_in_report("endpoints"),
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
        png=figure_in_report("gaps"),
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


rule render_right_edge:
    input:
        spectra=lambda wildcards: spectra_over_seeds(settings.figures[wildcards.figure]),
        code=code("render_right_edge"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("right_edge"),
    log:
        "logs/render_right_edge/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "right_edge"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_right_edge.py"


rule render_negative_part:
    input:
        spectra=lambda wildcards: spectra_over_seeds(settings.figures[wildcards.figure]),
        code=code("render_negative_part"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("negative_part"),
    log:
        "logs/render_negative_part/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "negative_part"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_negative_part.py"
