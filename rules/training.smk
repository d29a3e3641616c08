# One rule an experiment, because the steps of its checkpoints, and so its outputs, are its own.
for name, plan in settings.experiments.items():

    rule:
        name:
            f"train_{name}"
        input:
            **start_of(plan),
            dataset=DATASET.format(dataset=plan.dataset),
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
