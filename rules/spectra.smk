rule extract_spectrum:
    input:
        dataset=lambda wildcards: DATASET.format(
            dataset=settings.experiments[wildcards.experiment].dataset
        ),
        checkpoint=CHECKPOINT,
        code=code("extract_spectrum"),
    output:
        table=SPECTRUM,
    log:
        "logs/extract_spectrum/{experiment}_seed{seed}_step{step}_{matrix}.log",
    benchmark:
        "logs/extract_spectrum/{experiment}_seed{seed}_step{step}_{matrix}.tsv"
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        config=ConfigPart(
            model="experiments.{experiment}.model",
            spectrum="spectrum",
        ),
    script:
        "../scripts/extract_spectrum.py"
