# Figures of one run each, that no figure of the paper is.


rule render_ordered:
    input:
        spectra=lambda wildcards: of_figure(SPECTRUM, wildcards.figure),
        code=code("render_ordered"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("ordered"),
    log:
        "logs/render_ordered/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "ordered"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_ordered.py"


rule render_overlay:
    input:
        ends=lambda wildcards: ends_of_figure(wildcards.figure),
        code=code("render_overlay"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("overlay"),
    log:
        "logs/render_overlay/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "overlay"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_overlay.py"


rule render_over_training:
    input:
        ends=lambda wildcards: ends_of_figure(wildcards.figure),
        code=code("render_over_training"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("over_training"),
    log:
        "logs/render_over_training/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "over_training"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_over_training.py"


rule render_outliers:
    input:
        ends=lambda wildcards: ends_of_figure(wildcards.figure),
        outliers=lambda wildcards: of_figure(OUTLIERS, wildcards.figure)[0],
        code=code("render_outliers"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("outliers"),
    log:
        "logs/render_outliers/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "outliers"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_outliers.py"


rule render_densities:
    input:
        densities=lambda wildcards: of_figure(DENSITY, wildcards.figure),
        code=code("render_densities"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("densities"),
    log:
        "logs/render_densities/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "densities"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_densities.py"


rule render_layers:
    input:
        densities=lambda wildcards: of_figure(DENSITY, wildcards.figure),
        code=code("render_layers"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("layers"),
    log:
        "logs/render_layers/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "layers"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_layers.py"
