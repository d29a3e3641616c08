rule extract_linear_model:
    input:
        code=code("extract_linear_model"),
    output:
        spectrum=f"{SOURCE}/spectrum.parquet",
        samples=f"{SOURCE}/samples.parquet",
    log:
        "logs/extract_linear_model/{source}.log",
    benchmark:
        "logs/extract_linear_model/{source}.tsv"
    wildcard_constraints:
        source=names_of(settings.random_matrices, "linear_model"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(entry="random_matrices.{source}", spectrum="spectrum"),
    script:
        "../scripts/extract_linear_model.py"


rule compare_with_laws:
    input:
        spectrum=rules.extract_linear_model.output.spectrum,
        samples=rules.extract_linear_model.output.samples,
        code=code("compare_with_laws"),
    output:
        law=f"{SOURCE}/law.parquet",
        outliers=f"{SOURCE}/outliers.parquet",
        histogram=f"{SOURCE}/histogram.parquet",
    log:
        "logs/compare_with_laws/{source}.log",
    benchmark:
        "logs/compare_with_laws/{source}.tsv"
    wildcard_constraints:
        source=names_of(settings.random_matrices, "linear_model"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(entry="random_matrices.{source}"),
    script:
        "../scripts/compare_with_laws.py"


rule sample_spikes:
    input:
        code=code("sample_spikes"),
    output:
        spikes=f"{SOURCE}/spikes.parquet",
        positions=f"{SOURCE}/positions.parquet",
        fluctuations=f"{SOURCE}/fluctuations.parquet",
    log:
        "logs/sample_spikes/{source}.log",
    benchmark:
        "logs/sample_spikes/{source}.tsv"
    wildcard_constraints:
        source=names_of(settings.random_matrices, "spikes"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(entry="random_matrices.{source}"),
    script:
        "../scripts/sample_spikes.py"


rule sample_spectra:
    input:
        code=code("sample_spectra"),
    output:
        spectra=f"{SOURCE}/spectra.parquet",
        parts=f"{SOURCE}/parts.parquet",
    log:
        "logs/sample_spectra/{source}.log",
    benchmark:
        "logs/sample_spectra/{source}.tsv"
    wildcard_constraints:
        source=names_of(settings.random_matrices, "spiked_spectra"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(entry="random_matrices.{source}"),
    script:
        "../scripts/sample_spectra.py"


rule render_bulks:
    input:
        results=lambda wildcards: [
            path
            for part in ("histogram", "outliers")
            for path in sources_of("figure", wildcards, part)
        ],
        code=code("render_bulks"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("bulks"),
    log:
        "logs/render_bulks/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "bulks"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_bulks.py"


rule render_spikes:
    input:
        results=lambda wildcards: [
            path
            for part in ("positions", "fluctuations")
            for path in sources_of("figure", wildcards, part)
        ],
        code=code("render_spikes"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("spikes"),
    log:
        "logs/render_spikes/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "spikes"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_spikes.py"


rule render_spiked_spectra:
    input:
        results=lambda wildcards: [
            path
            for part in ("spectra", "parts")
            for path in sources_of("figure", wildcards, part)
        ],
        code=code("render_spiked_spectra"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("spiked_spectra"),
    log:
        "logs/render_spiked_spectra/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "spiked_spectra"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_spiked_spectra.py"


rule tabulate_laws:
    input:
        results=lambda wildcards: [
            path
            for part in ("law", "outliers")
            for path in sources_of("table", wildcards, part)
        ],
        code=code("tabulate_laws"),
    output:
        csv="tables/{table}.csv",
    log:
        "logs/tabulate_laws/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "laws"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_laws.py"


rule tabulate_spikes:
    input:
        results=lambda wildcards: sources_of("table", wildcards, "positions"),
        code=code("tabulate_spikes"),
    output:
        csv="tables/{table}.csv",
    log:
        "logs/tabulate_spikes/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "spikes"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_spikes.py"


rule tabulate_spiked_spectra:
    input:
        results=lambda wildcards: sources_of("table", wildcards, "parts"),
        code=code("tabulate_spiked_spectra"),
    output:
        csv="tables/{table}.csv",
    log:
        "logs/tabulate_spiked_spectra/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "spiked_spectra"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_spiked_spectra.py"


rule render_decomposition:
    input:
        spectra=lambda wildcards: spectra_of(
            settings.figures[wildcards.figure].experiment,
            settings.figures[wildcards.figure].seed,
        ),
        outliers=lambda wildcards: outliers_of(
            settings.figures[wildcards.figure],
            [settings.figures[wildcards.figure].experiment],
        ),
        code=code("render_decomposition"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("decomposition"),
    log:
        "logs/render_decomposition/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "decomposition"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_decomposition.py"


rule tabulate_decomposition:
    input:
        spectra=lambda wildcards: spectra_of(
            settings.tables[wildcards.table].experiment,
            settings.tables[wildcards.table].seed,
        ),
        outliers=lambda wildcards: outliers_of(
            settings.tables[wildcards.table],
            [settings.tables[wildcards.table].experiment],
        ),
        code=code("tabulate_decomposition"),
    output:
        csv="tables/{table}.csv",
    log:
        "logs/tabulate_decomposition/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "decomposition"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_decomposition.py"


rule measure_directions:
    input:
        dataset=dataset_of,
        checkpoint=CHECKPOINT,
        own=lambda wildcards: own_network(wildcards.experiment),
        code=code("measure_directions"),
    output:
        table=DIRECTIONS,
    log:
        "logs/measure_directions/{experiment}_seed{seed}_step{step}.log",
    benchmark:
        "logs/measure_directions/{experiment}_seed{seed}_step{step}.tsv"
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        config=ConfigPart(
            model="experiments.{experiment}.model",
            directions="directions",
        ),
    script:
        "../scripts/measure_directions.py"


rule render_directions:
    input:
        directions=lambda wildcards: directions_of(settings.figures[wildcards.figure]),
        code=code("render_directions"),
    output:
        pdf="figures/{figure}.pdf",
        png=figure_in_report("directions"),
    log:
        "logs/render_directions/{figure}.log",
    wildcard_constraints:
        figure=names_of(settings.figures, "directions"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(figure="figures.{figure}"),
    script:
        "../scripts/render_directions.py"


rule tabulate_directions:
    input:
        directions=lambda wildcards: directions_of(settings.tables[wildcards.table]),
        outliers=lambda wildcards: outliers_of(
            settings.tables[wildcards.table],
            settings.tables[wildcards.table].experiments,
        ),
        code=code("tabulate_directions"),
    output:
        csv="tables/{table}.csv",
    log:
        "logs/tabulate_directions/{table}.log",
    wildcard_constraints:
        table=names_of(settings.tables, "directions"),
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    params:
        config=ConfigPart(table="tables.{table}"),
    script:
        "../scripts/tabulate_directions.py"
