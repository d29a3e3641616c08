rule count_outliers:
    input:
        unpack(project.inputs(ResultKind.OUTLIERS)),
        code=project.code("count_outliers"),
    output:
        outliers=pattern(ResultKind.OUTLIERS),
    log:
        "logs/count_outliers/{experiment}_seed{seed}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    params:
        config=dump(outliers=settings.outliers),
    script:
        "../scripts/count_outliers.py"


rule summarize_outliers:
    input:
        outliers=lambda wildcards: project.of_kinds(ResultKind.OUTLIERS),
        code=project.code("summarize_outliers"),
    output:
        metrics="metrics/outliers.json",
    log:
        "logs/summarize_outliers.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    script:
        "../scripts/summarize_outliers.py"


rule decompose:
    input:
        unpack(project.inputs(ResultKind.DECOMPOSITIONS)),
        code=project.code("decompose"),
    output:
        decomposition=pattern(ResultKind.DECOMPOSITIONS),
    log:
        "logs/decompose/{experiment}_seed{seed}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    script:
        "../scripts/decompose.py"
