rule extract_spectrum:
    input:
        unpack(project.inputs(ResultKind.SPECTRA)),
        user=project.user_network,
        code=project.code("extract_spectrum"),
    output:
        spectrum=pattern(ResultKind.SPECTRA),
    log:
        "logs/extract_spectrum/{experiment}_seed{seed}_step{step}_{matrix}.log",
    group:
        requests.group(ResultKind.SPECTRA)
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.SPECTRA),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            spectrum=settings.spectrum,
        ),
    script:
        "../scripts/extract_spectrum.py"


rule estimate_density:
    input:
        unpack(project.inputs(ResultKind.DENSITIES)),
        user=project.user_network,
        code=project.code("estimate_density"),
    output:
        density=pattern(ResultKind.DENSITIES),
    log:
        "logs/estimate_density/{experiment}_seed{seed}_step{step}_{matrix}_{group}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: requests.threads(ResultKind.DENSITIES)
    resources:
        **requests.of(ResultKind.DENSITIES),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            **project.precision(wildcards),
            patterns=settings.experiments[wildcards.experiment].matrix_free.groups.get(
                wildcards.group
            ),
            density=settings.experiments[wildcards.experiment].matrix_free.density,
        ),
    script:
        "../scripts/estimate_density.py"


rule find_eigenpairs:
    input:
        unpack(project.inputs(ResultKind.EIGENPAIRS)),
        user=project.user_network,
        code=project.code("find_eigenpairs"),
    output:
        eigenpairs=pattern(ResultKind.EIGENPAIRS),
    log:
        "logs/find_eigenpairs/{experiment}_seed{seed}_step{step}_{matrix}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: requests.threads(ResultKind.EIGENPAIRS)
    resources:
        **requests.of(ResultKind.EIGENPAIRS),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            **project.precision(wildcards),
            eigenpairs=settings.experiments[
                wildcards.experiment
            ].matrix_free.eigenpairs,
        ),
    script:
        "../scripts/find_eigenpairs.py"


rule measure_directions:
    input:
        unpack(project.inputs(ResultKind.DIRECTIONS)),
        user=project.user_network,
        code=project.code("measure_directions"),
    output:
        directions=pattern(ResultKind.DIRECTIONS),
    log:
        "logs/measure_directions/{experiment}_seed{seed}_step{step}.log",
    group:
        requests.group(ResultKind.DIRECTIONS)
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.DIRECTIONS),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            directions=settings.directions,
        ),
    script:
        "../scripts/measure_directions.py"
