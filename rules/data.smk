rule make_dataset:
    input:
        code=code("make_dataset"),
    output:
        dataset=DATASET,
    log:
        "logs/make_dataset/{dataset}.log",
    benchmark:
        "logs/make_dataset/{dataset}.tsv"
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(dataset="datasets.{dataset}"),
    script:
        "../scripts/make_dataset.py"
