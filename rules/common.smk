"""What the rules share: the parameters and the code that each one depends on."""

import os

from hesspipe.data.cifar10 import missing_files
from hesspipe.config.theory import SOURCE_KINDS
from hesspipe.workflow.closure import code_closure, own_code
from hesspipe.hardware import has_gpu

DATASET = "results/datasets/{dataset}.safetensors"
CHECKPOINT = "results/{experiment}/seed{seed}/checkpoints/step{step}.safetensors"
SPECTRUM = "results/{experiment}/seed{seed}/spectra/step{step}_{matrix}.parquet"
DENSITY = (
    "results/{experiment}/seed{seed}/densities/step{step}_{matrix}_{group}.parquet"
)
EIGENPAIRS = "results/{experiment}/seed{seed}/eigenpairs/step{step}_{matrix}.parquet"
OUTLIERS = "results/{experiment}/seed{seed}/outliers.parquet"


wildcard_constraints:
    dataset="[a-z][a-z0-9_]*",
    experiment="[a-z][a-z0-9_]*",
    seed="[0-9]+",
    step="[0-9]+",
    matrix="hessian|ggn|residual",
    group="[a-z][a-z0-9_]*",
    source="[a-z][a-z0-9_]*",


# A GPU is shared by one job at a time where there is one; elsewhere jobs go side by side.
GPUS = int(has_gpu())


def code(name):
    """The script of a rule and every library module that it imports."""
    files = code_closure(f"scripts/{name}.py", workflow.basedir)
    # Seen from the folder that the workflow runs in, which may be another: --directory.
    return [os.path.relpath(os.path.join(workflow.basedir, path)) for path in files]


def own_network(experiment):
    """The files behind the functions of an experiment's own network and loss."""
    model = settings.experiments[experiment].model
    return own_code(model.functions) if model.kind == "own" else []


def own_data(dataset):
    """The file of a dataset of one's own, or those behind its function."""
    data = settings.datasets[dataset]
    return [data.path] if data.kind == "file" else own_code([data.function])


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


def names_of(entries, *kinds):
    """A pattern for the names of the datasets, figures, tables or claims of some kinds."""
    names = [name for name, entry in entries.items() if entry.kind in kinds]
    return "|".join(names) or "(?!)"


def last_checkpoint(experiment, seed):
    """The checkpoint at the end of one run."""
    return CHECKPOINT.format(
        experiment=experiment,
        seed=seed,
        step=settings.experiments[experiment].training.num_steps,
    )


def start_of(plan):
    """The checkpoint from which an experiment goes on, if it does."""
    return (
        {"start": last_checkpoint(plan.starts_from, "{seed}")}
        if plan.starts_from
        else {}
    )


def experiments_of(entry):
    """The experiments that a figure, table or claim reads."""
    if hasattr(entry, "experiment"):
        return [entry.experiment]
    return getattr(entry, "experiments", [])


def downloads_of(entry):
    """The datasets a figure or table rests on that do not come with the packages."""
    names = {settings.experiments[name].dataset for name in experiments_of(entry)}
    return [
        settings.datasets[name]
        for name in sorted(names)
        if settings.datasets[name].kind == "cifar10_images"
    ]


def offline(entries):
    """The names of the figures or tables that need no download."""
    return [name for name, entry in entries.items() if not downloads_of(entry)]


def at_hand(entries):
    """The names of those whose downloads, if they need any, are there already."""
    return [
        name
        for name, entry in entries.items()
        if not any(missing_files(data.folder) for data in downloads_of(entry))
    ]


def spectra_of(experiment, seed):
    """Every exact spectrum of one run."""
    plan = settings.experiments[experiment]
    return expand(
        SPECTRUM,
        experiment=experiment,
        seed=seed,
        step=plan.spectrum_steps,
        matrix=plan.spectra.matrices if plan.spectra else [],
    )


def matrix_free_of(experiment, seed):
    """Every density and table of eigenpairs of one run."""
    plan = settings.experiments[experiment]
    if plan.matrix_free is None:
        return []
    common = {"experiment": experiment, "seed": seed}
    return [
        DENSITY.format(step=step, matrix=matrix, group=group, **common)
        for step in plan.matrix_free_steps
        for matrix, group in plan.matrix_free.densities
    ] + [
        EIGENPAIRS.format(step=step, matrix=matrix, **common)
        for step in plan.matrix_free_steps
        for matrix in plan.matrix_free.matrices
    ]


def all_spectra():
    """Every spectrum of every run, whole or known by its density and its ends."""
    return [
        path
        for name, plan in settings.experiments.items()
        for seed in plan.seeds
        for path in spectra_of(name, seed) + matrix_free_of(name, seed)
    ]


def ends_of_run(experiment, seed):
    """Where the largest eigenvalues of one run stand: its spectra, or else its eigenpairs."""
    plan = settings.experiments[experiment]
    return expand(
        SPECTRUM if plan.spectra else EIGENPAIRS,
        experiment=experiment,
        seed=seed,
        step=plan.steps_of(plan.ends),
        matrix=plan.ends.matrices,
    )


def outlier_tables():
    """The outlier table of every run that has spectra or eigenpairs."""
    return [
        OUTLIERS.format(experiment=name, seed=seed)
        for name, plan in settings.experiments.items()
        for seed in plan.seeds
        if plan.steps_of(plan.ends)
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


def of_figure(pattern, figure):
    """The tables of one run that a figure of the gallery reads."""
    entry = settings.figures[figure]
    return expand(
        pattern,
        experiment=entry.experiment,
        seed=entry.seed,
        step=entry.steps if hasattr(entry, "steps") else entry.step,
        matrix=entry.matrices if hasattr(entry, "matrices") else entry.matrix,
        group=list(getattr(entry, "titles", ["network"])),
    )


def ends_of_figure(figure):
    """The spectra or eigenpairs that a figure of the gallery reads."""
    plan = settings.experiments[settings.figures[figure].experiment]
    return of_figure(SPECTRUM if plan.spectra else EIGENPAIRS, figure)


def figure_in_report(kind):
    """The picture of a figure of one kind, with its caption for the report."""
    return report(
        "figures/{figure}.png",
        caption=f"../report/{kind}.rst",
        category="2. Figures",
        labels={"figure": "{figure}"},
    )


def page_in_report(table):
    """A table as a page, with its caption for the report."""
    return report(
        f"tables/{table}.html",
        caption=f"../report/{settings.tables[table].kind}_table.rst",
        category="3. Tables",
        labels={"table": table},
    )


def claims_page(claims, name, label):
    """The page of verdicts, if there are any claims."""
    page = report(
        f"tables/{name}.html",
        caption="../report/claims.rst",
        category="1. Claims",
        labels={"table": label},
    )
    return [page] if claims else []
