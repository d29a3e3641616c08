rule make_dataset:
    input:
        user=project.user_data,
        code=project.code("make_dataset"),
    output:
        dataset=pattern(ResultKind.DATASETS),
    log:
        "logs/make_dataset/{dataset}.log",
    benchmark:
        "logs/make_dataset/{dataset}.tsv"
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=lambda wildcards: dump(dataset=settings.datasets[wildcards.dataset]),
    script:
        "../scripts/make_dataset.py"


# One rule per experiment, because its outputs depend on the steps of its checkpoints.
for name in project.trained:

    rule:
        name:
            f"train_{name}"
        input:
            unpack(project.inputs_of_training(name)),
            user=project.user_network_of(name),
            code=project.code("train"),
        output:
            checkpoints=project.checkpoints(name),
            history=pattern(ResultKind.HISTORIES).replace("{experiment}", name),
        log:
            f"logs/train/{name}_seed{{seed}}.log",
        benchmark:
            f"logs/train/{name}_seed{{seed}}.tsv"
        conda:
            "../envs/hesspipe.yaml"
        threads: 1
        resources:
            gpu=GPUS,
        params:
            config=dump(
                experiment=name,
                model=settings.experiments[name].model,
                training=settings.experiments[name].training,
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
        experiment=project.imported,
        step="0",
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=lambda wildcards: dump(
            model=settings.experiments[wildcards.experiment].model,
            training=settings.experiments[wildcards.experiment].training,
        ),
    script:
        "../scripts/import_state.py"
