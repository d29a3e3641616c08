"""What the figures, tables and claims of the theory read."""

SOURCE = "results/random_matrices/{source}"
DIRECTIONS = "results/{experiment}/seed{seed}/directions/step{step}.parquet"


def sources_of(section, wildcards, file):
    """A file of every entry of random_matrices that a figure or table reads."""
    entry = getattr(settings, f"{section}s")[getattr(wildcards, section)]
    return expand(f"{SOURCE}/{file}.parquet", source=entry.sources)


def directions_of(entry):
    """The directions at the end of each training that a figure, table or claim reads."""
    return [
        DIRECTIONS.format(
            experiment=name,
            seed=entry.seed,
            step=settings.experiments[name].training.num_steps,
        )
        for name in entry.experiments
    ]


def tables_of_claim(claim):
    """Every result that a claim reads."""
    if hasattr(claim, "sources"):
        files = {
            "linear_model": ["law", "outliers"],
            "spikes": ["positions"],
            "spiked_spectra": ["parts"],
        }[SOURCE_KINDS[claim.kind]]
        return expand(f"{SOURCE}/{{file}}.parquet", source=claim.sources, file=files)
    if claim.kind == "outliers_are_class_means":
        return directions_of(claim)
    if claim.kind in ("no_barrier", "second_end_is_better"):
        return [
            LINE.format(experiment=claim.experiment, seed=seed, line="line")
            for seed in claim.seeds
        ]
    return [
        path
        for name in experiments_of(claim)
        for seed in seeds_of(claim)
        for path in expand(
            SPECTRUM,
            experiment=name,
            seed=seed,
            step=(
                [claim.step]
                if hasattr(claim, "step")
                else settings.experiments[name].spectrum_steps
            ),
            matrix=getattr(claim, "matrices", ["hessian"]),
        )
    ] + outliers_of(claim, experiments_of(claim))


def tables_of_claims(names):
    """Every result that some claims read, each once."""
    claims = [settings.claims[name] for name in names]
    return sorted({path for claim in claims for path in tables_of_claim(claim)})


# What is recorded for everyone must not depend on what one machine has at hand, so claims on
# data to download are "not measured" among all, and on a machine with the data in files beside.
DOWNLOADED_CLAIMS = sorted(
    set(at_hand(settings.claims)) - set(offline(settings.claims))
)
DOWNLOADED_TABLES = sorted(
    set(at_hand(settings.tables)) - set(offline(settings.tables))
)
