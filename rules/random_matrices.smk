rule compare_with_laws:
    input:
        code=project.code("compare_with_laws"),
    output:
        spectrum=pattern(ResultKind.RANDOM_MATRICES, "spectrum"),
        samples=pattern(ResultKind.RANDOM_MATRICES, "samples"),
        law=pattern(ResultKind.RANDOM_MATRICES, "law"),
        outliers=pattern(ResultKind.RANDOM_MATRICES, "outliers"),
        histogram=pattern(ResultKind.RANDOM_MATRICES, "histogram"),
    log:
        "logs/compare_with_laws/{source}.log",
    group:
        requests.group(ResultKind.RANDOM_MATRICES)
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.RANDOM_MATRICES),
    params:
        config=lambda wildcards: dump(
            entry=settings.random_matrices[wildcards.source],
            spectrum=settings.spectrum,
        ),
    script:
        "../scripts/compare_with_laws.py"


rule sample_spikes:
    input:
        code=project.code("sample_spikes"),
    output:
        spikes=pattern(ResultKind.RANDOM_MATRICES, "spikes"),
        positions=pattern(ResultKind.RANDOM_MATRICES, "positions"),
        fluctuations=pattern(ResultKind.RANDOM_MATRICES, "fluctuations"),
    log:
        "logs/sample_spikes/{source}.log",
    group:
        requests.group(ResultKind.RANDOM_MATRICES)
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.RANDOM_MATRICES),
    params:
        config=lambda wildcards: dump(entry=settings.random_matrices[wildcards.source]),
    script:
        "../scripts/sample_spikes.py"


rule sample_spiked_spectra:
    input:
        code=project.code("sample_spiked_spectra"),
    output:
        spectra=pattern(ResultKind.RANDOM_MATRICES, "spectra"),
        parts=pattern(ResultKind.RANDOM_MATRICES, "parts"),
    log:
        "logs/sample_spiked_spectra/{source}.log",
    group:
        requests.group(ResultKind.RANDOM_MATRICES)
    conda:
        "../envs/hesspipe.yaml"
    threads: 1
    resources:
        **requests.of(ResultKind.RANDOM_MATRICES),
    params:
        config=lambda wildcards: dump(entry=settings.random_matrices[wildcards.source]),
    script:
        "../scripts/sample_spiked_spectra.py"
