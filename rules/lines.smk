"""Which checkpoints a line, a plane or a table of barriers reads."""

LINE = "results/{experiment}/seed{seed}/{line}.parquet"
ALIGNED = "results/{experiment}/seed{seed}/aligned_to_seed{other}.safetensors"


def line_ends(wildcards):
    """The two checkpoints that a line joins.

    `line` goes from the start of a continuation to its end; `line_to_seed<other>` from its end
    to another seed's, as it is or with its hidden units in this seed's order.
    """
    plan = settings.experiments[wildcards.experiment]
    end = last_checkpoint(wildcards.experiment, wildcards.seed)
    if wildcards.line == "line":
        return [last_checkpoint(plan.starts_from, wildcards.seed), end]
    other = wildcards.line.removeprefix("line_to_seed").removesuffix("_aligned")
    if wildcards.line.endswith("_aligned"):
        return [
            end,
            ALIGNED.format(
                experiment=wildcards.experiment, seed=other, other=wildcards.seed
            ),
        ]
    return [end, last_checkpoint(wildcards.experiment, other)]


def dataset_of(wildcards):
    """The dataset of an experiment."""
    return DATASET.format(dataset=settings.experiments[wildcards.experiment].dataset)


def lines_of(entry):
    """The lines of a table of barriers: one for each seed, and between each two of them."""
    names = [(seed, "line") for seed in entry.seeds]
    for number, seed in enumerate(entry.seeds):
        for other in entry.seeds[number + 1 :]:
            names += [(seed, f"line_to_seed{other}{end}") for end in ("", "_aligned")]
    return [
        LINE.format(experiment=entry.experiment, seed=seed, line=line)
        for seed, line in names
    ]


def checkpoints_of(experiment, seed):
    """Every checkpoint of one run, in the order of training."""
    return [
        CHECKPOINT.format(experiment=experiment, seed=seed, step=step)
        for step in settings.experiments[experiment].checkpoint_steps
    ]


def both_parts(experiment):
    """A continuation and the experiment that it goes on from, in the order of training."""
    return [settings.experiments[experiment].starts_from, experiment]


def plane_of(entry, what):
    """The loss on a plane, or the points marked on it."""
    return (
        f"results/{entry.experiment}/seed{entry.seed}/"
        f"plane_to_seed{entry.other_seed}{what}.parquet"
    )


def both_ends(entry):
    """The largest eigenvalues of the Hessian at the ends of both parts, for each seed."""
    return [
        EIGENPAIRS.format(
            experiment=experiment,
            seed=seed,
            step=settings.experiments[experiment].training.num_steps,
            matrix="hessian",
        )
        for seed in entry.seeds
        for experiment in both_parts(entry.experiment)
    ]
