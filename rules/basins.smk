rule evaluate_line:
    input:
        dataset=dataset_of,
        ends=line_ends,
        code=code("evaluate_line"),
    output:
        table=LINE,
    log:
        "logs/evaluate_line/{experiment}_seed{seed}_{line}.log",
    benchmark:
        "logs/evaluate_line/{experiment}_seed{seed}_{line}.tsv"
    wildcard_constraints:
        line="line(_to_seed[0-9]+(_aligned)?)?",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        config=ConfigPart(model="experiments.{experiment}.model", lines="lines"),
    script:
        "../scripts/evaluate_line.py"


rule align_units:
    input:
        dataset=dataset_of,
        reference=lambda wildcards: last_checkpoint(
            wildcards.experiment, wildcards.other
        ),
        other=lambda wildcards: last_checkpoint(wildcards.experiment, wildcards.seed),
        code=code("align_units"),
    output:
        aligned=ALIGNED,
    log:
        "logs/align_units/{experiment}_seed{seed}_to_seed{other}.log",
    wildcard_constraints:
        other="[0-9]+",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(model="experiments.{experiment}.model"),
    script:
        "../scripts/align_units.py"


rule evaluate_plane:
    input:
        dataset=dataset_of,
        first_part=lambda wildcards: checkpoints_of(
            settings.experiments[wildcards.experiment].starts_from, wildcards.seed
        ),
        second_part=lambda wildcards: checkpoints_of(
            wildcards.experiment, wildcards.seed
        ),
        other=lambda wildcards: ALIGNED.format(
            experiment=wildcards.experiment, seed=wildcards.other, other=wildcards.seed
        ),
        code=code("evaluate_plane"),
    output:
        grid="results/{experiment}/seed{seed}/plane_to_seed{other}.parquet",
        points="results/{experiment}/seed{seed}/plane_to_seed{other}_points.parquet",
    log:
        "logs/evaluate_plane/{experiment}_seed{seed}_to_seed{other}.log",
    benchmark:
        "logs/evaluate_plane/{experiment}_seed{seed}_to_seed{other}.tsv"
    wildcard_constraints:
        other="[0-9]+",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        config=ConfigPart(model="experiments.{experiment}.model", planes="planes"),
    script:
        "../scripts/evaluate_plane.py"


rule tabulate_barriers:
    input:
        lines=lambda wildcards: lines_of(settings.tables[wildcards.table]),
        code=code("tabulate_barriers"),
    output:
        csv="tables/{table}.csv",
        markdown="tables/{table}.md",
    log:
        "logs/tabulate_barriers/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "barriers"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/tabulate_barriers.py"


rule tabulate_sharpness:
    input:
        pairs=lambda wildcards: both_ends(settings.tables[wildcards.table]),
        code=code("tabulate_sharpness"),
    output:
        csv="tables/{table}.csv",
    log:
        "logs/tabulate_sharpness/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "sharpness"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_sharpness.py"


rule render_basins:
    input:
        histories=lambda wildcards: [
            f"results/{experiment}/seed{settings.figures[wildcards.figure].seed}/history.parquet"
            for experiment in both_parts(settings.figures[wildcards.figure].experiment)
        ],
        code=code("render_basins"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("basins"),
    log:
        "logs/render_basins/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "basins"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/render_basins.py"


rule render_line:
    input:
        table=lambda wildcards: LINE.format(
            experiment=settings.figures[wildcards.figure].experiment,
            seed=settings.figures[wildcards.figure].seed,
            line="line",
        ),
        code=code("render_line"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("line"),
    log:
        "logs/render_line/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "line"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/render_line.py"


rule render_plane:
    input:
        grid=lambda wildcards: plane_of(settings.figures[wildcards.figure], ""),
        points=lambda wildcards: plane_of(settings.figures[wildcards.figure], "_points"),
        code=code("render_plane"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("plane"),
    log:
        "logs/render_plane/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "plane"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    script:
        "../scripts/render_plane.py"
