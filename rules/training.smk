rule make_dataset:
    input:
        user=project.user_data,
        code=project.code("make_dataset"),
    output:
        dataset=pattern(ResultKind.DATASETS),
    log:
        "logs/make_dataset/{dataset}.log",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.DATASETS),
    params:
        config=lambda wildcards: dump(dataset=settings.datasets[wildcards.dataset]),
    script:
        "../scripts/make_dataset.py"


# One rule for each schedule of checkpoints, because they are its outputs.
for schedule, names in project.schedules.items():

    rule:
        name:
            f"train_{schedule}"
        input:
            unpack(project.inputs(ResultKind.HISTORIES)),
            user=project.user_network,
            code=project.code("train"),
        output:
            checkpoints=project.checkpoints(names[0]),
            history=pattern(ResultKind.HISTORIES),
        log:
            "logs/train/{experiment}_seed{seed}.log",
        wildcard_constraints:
            experiment=project.only(names),
        group:
            requests.group(ResultKind.CHECKPOINTS)
        conda:
            "../envs/hesspipe.yaml"
        threads: 1
        resources:
            **requests.of(ResultKind.CHECKPOINTS),
        params:
            config=lambda wildcards: dump(
                experiment=wildcards.experiment,
                model=settings.experiments[wildcards.experiment].model,
                training=settings.experiments[wildcards.experiment].training,
            ),
        script:
            "../scripts/train.py"


# A network that was trained elsewhere has its saved state as the only checkpoint.
rule import_state:
    input:
        unpack(project.inputs(ResultKind.CHECKPOINTS)),
        state=project.saved_state,
        user=project.user_network,
        code=project.code("import_state"),
    output:
        checkpoint=pattern(ResultKind.CHECKPOINTS),
    log:
        "logs/import_state/{experiment}_seed{seed}_step{step}.log",
    wildcard_constraints:
        experiment=project.only(project.imported),
        step="0",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.small(),
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            training=settings.experiments[wildcards.experiment].training,
        ),
    script:
        "../scripts/import_state.py"
