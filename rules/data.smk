KINDS_OF_DATA = {data.kind for data in settings.datasets.values()}


rule make_dataset:
    input:
        code=code("make_dataset"),
    output:
        dataset=DATASET,
    log:
        "logs/make_dataset/{dataset}.log",
    benchmark:
        "logs/make_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=names_of(settings.datasets, *(KINDS_OF_DATA - {"own", "file"})),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(dataset="datasets.{dataset}"),
    script:
        "../scripts/make_dataset.py"


rule make_own_dataset:
    input:
        own=lambda wildcards: own_data(wildcards.dataset),
        code=code("make_own_dataset"),
    output:
        dataset=DATASET,
    log:
        "logs/make_own_dataset/{dataset}.log",
    benchmark:
        "logs/make_own_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=names_of(settings.datasets, "own", "file"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(dataset="datasets.{dataset}"),
    script:
        "../scripts/make_own_dataset.py"
