"""What the rules share: the parameters and the code that each one depends on."""

from hesspipe.workflow.closure import code_closure
from hesspipe.workflow.devices import has_gpu

DATASET = "results/datasets/{dataset}.safetensors"
CHECKPOINT = "results/{experiment}/seed{seed}/checkpoints/step{step}.safetensors"
SPECTRUM = "results/{experiment}/seed{seed}/spectra/step{step}_{matrix}.parquet"
OUTLIERS = "results/{experiment}/seed{seed}/outliers.parquet"


wildcard_constraints:
    dataset="[a-z][a-z0-9_]*",
    experiment="[a-z][a-z0-9_]*",
    seed="[0-9]+",
    step="[0-9]+",
    matrix="hessian|ggn|residual",
    source="[a-z][a-z0-9_]*",


# A GPU is shared by one job at a time where there is one; elsewhere jobs go side by side.
GPUS = int(has_gpu())


def code(name):
    """The script of a rule and every library module that it imports."""
    return code_closure(f"scripts/{name}.py", workflow.basedir)


def canonical(value):
    """A value with its keys in order: their order in the file then means nothing."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    return [canonical(item) for item in value] if isinstance(value, list) else value


class ConfigPart:
    """A part of the configuration as one parameter of a rule.

    Snakemake compares parameters by value without their names, so a rule has one, a
    dictionary. `keys` are the places in config.yaml, from which DVC's stages are made.
    """

    def __init__(self, **keys):
        self.keys = keys

    def __call__(self, wildcards):
        return {
            name: canonical(self.look_up(name, wildcards)) for name in sorted(self.keys)
        }

    def look_up(self, name, wildcards):
        value = config
        for part in self.place(name, wildcards).split("."):
            value = value[part]
        return value

    def place(self, name, wildcards):
        return self.keys[name].format_map(dict(wildcards.items()))


def names_of(entries, kind):
    """A pattern for the names of the figures, tables or claims of one kind."""
    names = [name for name, entry in entries.items() if entry.kind == kind]
    return "|".join(names) or "(?!)"


def spectra_of(experiment, seed):
    """Every spectrum of one run."""
    plan = settings.experiments[experiment]
    return expand(
        SPECTRUM,
        experiment=experiment,
        seed=seed,
        step=plan.spectrum_steps,
        matrix=plan.spectra.matrices,
    )


def all_spectra():
    """Every spectrum of every run."""
    return [
        path
        for name, plan in settings.experiments.items()
        for seed in plan.seeds
        for path in spectra_of(name, seed)
    ]


def outlier_tables():
    """The outlier table of every run."""
    return [
        OUTLIERS.format(experiment=name, seed=seed)
        for name, plan in settings.experiments.items()
        for seed in plan.seeds
    ]


def seeds_of(entry):
    """The seeds that a figure, table or claim reads."""
    return entry.seeds if hasattr(entry, "seeds") else [entry.seed]


def hessians_of(entry, experiments, steps):
    """The Hessian's spectra that a figure, table or claim reads."""
    return [
        SPECTRUM.format(experiment=name, seed=seed, step=step, matrix="hessian")
        for name in experiments
        for seed in seeds_of(entry)
        for step in steps
    ]


def spectra_over_seeds(entry):
    """The spectra that a figure or table over several seeds reads."""
    return [
        SPECTRUM.format(experiment=name, seed=seed, step=entry.step, matrix=matrix)
        for name in entry.experiments
        for seed in entry.seeds
        for matrix in getattr(entry, "matrices", ["hessian"])
    ]


def outliers_of(entry, experiments):
    """The outlier tables that a figure, table or claim reads."""
    return [
        OUTLIERS.format(experiment=name, seed=seed)
        for name in experiments
        for seed in seeds_of(entry)
    ]
