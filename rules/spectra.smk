rule extract_spectrum:
    input:
        dataset=lambda wildcards: DATASET.format(
            dataset=settings.experiments[wildcards.experiment].dataset
        ),
        checkpoint=CHECKPOINT,
        own=lambda wildcards: own_network(wildcards.experiment),
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


rule estimate_density:
    input:
        dataset=lambda wildcards: DATASET.format(
            dataset=settings.experiments[wildcards.experiment].dataset
        ),
        checkpoint=CHECKPOINT,
        own=lambda wildcards: own_network(wildcards.experiment),
        code=code("estimate_density"),
    output:
        table=DENSITY,
    log:
        "logs/estimate_density/{experiment}_seed{seed}_step{step}_{matrix}_{group}.log",
    benchmark:
        "logs/estimate_density/{experiment}_seed{seed}_step{step}_{matrix}_{group}.tsv"
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        config=ConfigPart(
            model="experiments.{experiment}.model",
            dtype="experiments.{experiment}.matrix_free.dtype",
            batch_size="experiments.{experiment}.matrix_free.batch_size",
            groups="experiments.{experiment}.matrix_free.groups",
            density="experiments.{experiment}.matrix_free.density",
        ),
    script:
        "../scripts/estimate_density.py"


rule find_eigenpairs:
    input:
        dataset=lambda wildcards: DATASET.format(
            dataset=settings.experiments[wildcards.experiment].dataset
        ),
        checkpoint=CHECKPOINT,
        own=lambda wildcards: own_network(wildcards.experiment),
        code=code("find_eigenpairs"),
    output:
        table=EIGENPAIRS,
    log:
        "logs/find_eigenpairs/{experiment}_seed{seed}_step{step}_{matrix}.log",
    benchmark:
        "logs/find_eigenpairs/{experiment}_seed{seed}_step{step}_{matrix}.tsv"
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        config=ConfigPart(
            model="experiments.{experiment}.model",
            dtype="experiments.{experiment}.matrix_free.dtype",
            batch_size="experiments.{experiment}.matrix_free.batch_size",
            eigenpairs="experiments.{experiment}.matrix_free.eigenpairs",
        ),
    script:
        "../scripts/find_eigenpairs.py"
