# One rule an experiment, because the steps of its checkpoints, and so its outputs, are its own.
for name, plan in settings.experiments.items():
    if plan.training.algorithm == "saved":
        continue

    rule:
        name:
            f"train_{name}"
        input:
            **start_of(plan),
            dataset=DATASET.format(dataset=plan.dataset),
            own=own_network(name),
            code=code("train"),
        output:
            checkpoints=[
                f"results/{name}/seed{{seed}}/checkpoints/step{step}.safetensors"
                for step in plan.checkpoint_steps
            ],
            history=f"results/{name}/seed{{seed}}/history.parquet",
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
            config=ConfigPart(
                model=f"experiments.{name}.model",
                training=f"experiments.{name}.training",
            ),
            experiment=name,
        script:
            "../scripts/train.py"


# Of a network that was trained elsewhere, the saved state is the only checkpoint.
for name, plan in settings.experiments.items():
    if plan.training.algorithm != "saved":
        continue

    rule:
        name:
            f"import_{name}"
        input:
            dataset=DATASET.format(dataset=plan.dataset),
            state=plan.training.path,
            own=own_network(name),
            code=code("import_state"),
        output:
            checkpoint=f"results/{name}/seed{{seed}}/checkpoints/step0.safetensors",
        log:
            f"logs/import_state/{name}_seed{{seed}}.log",
        conda:
            "../envs/hesspipe.yaml"
        threads: 1
        params:
            config=ConfigPart(
                model=f"experiments.{name}.model",
                training=f"experiments.{name}.training",
            ),
            experiment=name,
        script:
            "../scripts/import_state.py"
