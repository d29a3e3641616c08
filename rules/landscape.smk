rule evaluate_line:
    input:
        unpack(project.inputs(ResultKind.LANDSCAPE, "{line}")),
        user=project.user_network,
        code=project.code("evaluate_line"),
    output:
        line=pattern(ResultKind.LANDSCAPE, "{line}"),
    log:
        "logs/evaluate_line/{experiment}_seed{seed}_{line}.log",
    wildcard_constraints:
        line="line(_to_seed[0-9]+(_aligned)?)?",
    group:
        requests.group(ResultKind.LANDSCAPE)
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.LANDSCAPE),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            lines=settings.lines,
        ),
    script:
        "../scripts/evaluate_line.py"


rule align_units:
    input:
        unpack(project.inputs(ResultKind.LANDSCAPE, "aligned_to_seed{other}")),
        user=project.user_network,
        code=project.code("align_units"),
    output:
        aligned=pattern(ResultKind.LANDSCAPE, "aligned_to_seed{other}"),
    log:
        "logs/align_units/{experiment}_seed{seed}_to_seed{other}.log",
    wildcard_constraints:
        other="[0-9]+",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model
        ),
    script:
        "../scripts/align_units.py"


rule evaluate_plane:
    input:
        unpack(project.inputs(ResultKind.LANDSCAPE, "plane_to_seed{other}")),
        user=project.user_network,
        code=project.code("evaluate_plane"),
    output:
        plane=pattern(ResultKind.LANDSCAPE, "plane_to_seed{other}"),
        points=pattern(ResultKind.LANDSCAPE, "plane_to_seed{other}_points"),
    log:
        "logs/evaluate_plane/{experiment}_seed{seed}_to_seed{other}.log",
    wildcard_constraints:
        other="[0-9]+",
    group:
        requests.group(ResultKind.LANDSCAPE)
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.LANDSCAPE),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            planes=settings.planes,
        ),
    script:
        "../scripts/evaluate_plane.py"
