"""What the rules make of a configuration: inputs, parameters and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from hesspipe.config.datasets import CIFAR10Images, DataFile, MNISTDigits, UserData
from hesspipe.config.experiments import SavedState, UserModel
from hesspipe.config.producers import inputs_of
from hesspipe.config.results import CONSTRAINTS, ResultKey, ResultKind, pattern
from hesspipe.config.schema import Config
from hesspipe.data import cifar10_files, mnist_files
from hesspipe.data.cifar10_files import missing_files
from hesspipe.workflow.closure import user_code
from hesspipe.workflow.code_files import code_file
from hesspipe.workflow.stages import STAGES, stage_of

Wildcards = Any  # Snakemake's: an attribute for each wildcard, a string
InputFunction = Callable[[Wildcards], Any]
_NOTHING = "(?!)"
_NAME = CONSTRAINTS["experiment"]
_SUFFIXES = {
    "figures": ("pdf", "png"),
    "tables": ("csv", "md", "tex", "html"),
    "claims": ("csv", "md", "tex", "html"),
}


@dataclass(frozen=True)
class Project:
    """A configuration, as the rules see it.

    Attributes
    ----------
    config : Config
    root : str
        The folder of the Snakefile, with scripts/.
    as_source : callable (path) -> path
        Marks a file that is not kept in Snakemake's storage, where results are kept in one: every
        job has the code anyway.
    """

    config: Config
    root: str
    as_source: Callable[[str], str] = str

    # What jobs read

    def inputs(self, kind: ResultKind, group: str = "{group}") -> InputFunction:
        """Give the named inputs of the job behind a result, as a function of its wildcards.

        Parameters
        ----------
        kind : ResultKind
        group : str, optional
            See `hesspipe.config.results.pattern`; may hold other wildcards.
        """

        def read(wildcards: Wildcards) -> dict[str, str | list[str]]:
            found = dict(wildcards.items())
            path = pattern(kind, group).format(**found)
            if group != "{group}":
                found["group"] = group.format(**found)
            key = ResultKey.from_wildcards(kind, found, path)
            named = inputs_of(key, self.config)
            return {
                name: keys.path if isinstance(keys, ResultKey) else paths(keys)
                for name, keys in named.items()
            }

        return read

    def reads(self, section: str) -> InputFunction:
        """Give what a figure or table reads, in its order, as a function of its name."""

        def read(wildcards: Wildcards) -> list[str]:
            return paths(self._entry(section, wildcards).reads(self.config))

        return read

    def reads_of(self, section: str, names: Iterable[str]) -> dict[str, list[str]]:
        """List what each of some entries reads."""
        entries = getattr(self.config, section)
        return {name: paths(entries[name].reads(self.config)) for name in names}

    def results_of_claims(self, names: Iterable[str]) -> list[str]:
        """List what some claims read, each result once."""
        return sorted({path for found in self.reads_of("claims", names).values() for path in found})

    def published(self, wildcards: Wildcards) -> list[str]:
        """List the file of published numbers that a table shows, if it shows any."""
        table = self.config.tables[wildcards.table]
        return [self.as_source(table.published)] if hasattr(table, "published") else []

    def saved_state(self, wildcards: Wildcards) -> str:
        """Give the file of the saved state that an experiment starts and ends with."""
        training = self.config.experiments[wildcards.experiment].training
        assert isinstance(training, SavedState)
        return training.path

    # The code that jobs run

    def code(self, script: str) -> InputFunction:
        """Give the file with the digests of a script and of every library module that it runs."""
        return lambda wildcards: self.as_source(code_file(script, self.root))

    def code_of_kind(self, script: str, section: str) -> InputFunction:
        """Give the same for a figure or table, whose kind names the module that makes it."""

        def code(wildcards: Wildcards) -> str:
            module = f"hesspipe.{section}.{self._entry(section, wildcards).kind}"
            return self.as_source(code_file(script, self.root, module))

        return code

    def user_data(self, wildcards: Wildcards) -> list[str]:
        """List the files of a user's dataset, or the files behind its function."""
        return self.user_data_of(wildcards.dataset)

    def user_data_of(self, dataset: str) -> list[str]:
        """List the same for a dataset by name."""
        data = self.config.datasets[dataset]
        if isinstance(data, DataFile):
            return [data.path]
        if isinstance(data, (CIFAR10Images, MNISTDigits)) and data.source == "own_files":
            files = cifar10_files if isinstance(data, CIFAR10Images) else mnist_files
            return [str(path) for path in files.existing_files(data.folder or "")]
        return self._code_of([data.function]) if isinstance(data, UserData) else []

    def user_network(self, wildcards: Wildcards) -> list[str]:
        """List the files behind the user functions of an experiment."""
        return self.user_network_of(wildcards.experiment)

    def user_network_of(self, experiment: str) -> list[str]:
        """List the same for an experiment by name."""
        model = self.config.experiments[experiment].model
        return self._code_of(model.functions) if isinstance(model, UserModel) else []

    def _code_of(self, functions: Iterable[str]) -> list[str]:
        return [self.as_source(path) for path in user_code(functions)]

    def user_files(self) -> set[str]:
        """Collect every file of the user that the configuration names, directly or not.

        Photographs are left out: DVC does not version what is made from them.
        """
        found = {
            path
            for name, data in self.config.datasets.items()
            if not isinstance(data, CIFAR10Images)
            for path in self.user_data_of(name)
        }
        for name, plan in self.config.experiments.items():
            found.update(self.user_network_of(name))
            if isinstance(plan.training, SavedState):
                found.add(plan.training.path)
        for table in self.config.tables.values():
            if hasattr(table, "published"):
                found.add(table.published)
        return found

    # Experiments

    @cached_property
    def schedules(self) -> dict[str, list[str]]:
        """Experiments that are trained here, by the schedule of their checkpoints.

        Outputs of a rule are fixed, so that each schedule has a rule. Its name depends on nothing
        else: the origin of a result names its rule, and a new experiment must not change it.
        """
        found: dict[str, list[str]] = {}
        for name, plan in self.config.experiments.items():
            if not isinstance(plan.training, SavedState):
                schedule = f"{plan.training.num_steps}_every_{plan.training.checkpoint_every}"
                found.setdefault(schedule, []).append(name)
        return found

    @property
    def imported(self) -> list[str]:
        """Experiments that start and end with a saved state."""
        plans = self.config.experiments
        return [name for name in plans if isinstance(plans[name].training, SavedState)]

    def only(self, names: list[str]) -> str:
        """Give a regular expression for the names of some experiments, followed by a slash.

        Snakemake searches the expression for every job, so it lists the names that are fewer: those
        of the experiments or of the others.
        """
        others = sorted(set(self.config.experiments) - set(names))
        if len(names) <= len(others):
            return "|".join(names) or _NOTHING
        return f"(?!(?:{'|'.join(others)})/){_NAME}" if others else _NAME

    def checkpoints(self, experiment: str) -> list[str]:
        """List the checkpoints of every run of an experiment, with wildcards for both."""
        place = pattern(ResultKind.CHECKPOINTS)
        steps = self.config.experiments[experiment].checkpoint_steps
        return [place.replace("{step}", str(step)) for step in steps]

    def precision(self, wildcards: Wildcards) -> dict[str, Any]:
        """Give the dtype, the batch size and the processes of products of an experiment.

        One process, the default, is left out: results made before there were several stay valid.
        """
        plan = self.config.experiments[wildcards.experiment].matrix_free
        assert plan is not None
        several = {"processes": plan.processes} if plan.processes > 1 else {}
        return {"dtype": plan.dtype, "batch_size": plan.batch_size, **several}

    # Targets

    def offline(self, section: str) -> list[str]:
        """List the figures, tables or claims that need no download."""
        entries = getattr(self.config, section)
        return [name for name, one in entries.items() if not self._downloads(one)]

    def downloaded(self, section: str) -> list[str]:
        """List those that need a download which has been made."""
        return [
            name
            for name, one in getattr(self.config, section).items()
            if (data := self._downloads(one))
            and not any(missing_files(each.folder) for each in data)
        ]

    def of_kinds(self, *kinds: ResultKind) -> list[str]:
        """List the results of some kinds that are built offline, each after those it needs."""
        return paths(key for key in self._built if key.kind in kinds)

    def targets(self, stage: str) -> list[str]:
        """List the outputs of a stage that are built offline."""
        found = [key.path for key in self._built if _stage_of_kind(key.kind) == stage]
        if stage == "outliers" and found:
            found.append("metrics/outliers.json")
        if stage in ("figures", "tables"):
            found += [path for name in self.offline(stage) for path in _files_of(stage, name)]
        if stage == "claims" and self.config.claims:
            found += ["claims.json", *_files_of("claims", "verdicts")]
        return found

    def input_of_stage(self, stage: str) -> InputFunction:
        """Give the same as the input of the stage's rule, listed only if the rule is used."""
        return lambda wildcards: self.targets(stage)

    def offline_targets(self) -> list[str]:
        """List every output that is built offline."""
        return [path for stage in STAGES for path in self.targets(stage)]

    def downloaded_targets(self) -> list[str]:
        """List the figures, tables and verdicts whose downloads have been made."""
        found = [
            path
            for section in ("figures", "tables")
            for name in self.downloaded(section)
            for path in _files_of(section, name)
        ]
        return found + (self._verdicts_on_downloads if self.downloaded("claims") else [])

    @property
    def _verdicts_on_downloads(self) -> list[str]:
        return ["claims/downloaded.json", *_files_of("claims", "downloaded")]

    def products(self) -> set[str]:
        """Collect every output that the configuration names, downloads included."""
        found = {*paths(self.config.results()), "metrics/outliers.json", "claims.json"}
        for section in ("figures", "tables"):
            for name in getattr(self.config, section):
                found.update(_files_of(section, name))
        found.update(_files_of("claims", "verdicts"))
        return found.union(self._verdicts_on_downloads)

    @cached_property
    def _built(self) -> list[ResultKey]:
        """Every result that is built offline: what is read or asked for, and what that needs."""
        wanted = [
            key
            for section in ("figures", "tables", "claims")
            for name in self.offline(section)
            for key in getattr(self.config, section)[name].reads(self.config)
        ]
        for name, plan in self.config.experiments.items():
            if not isinstance(self.config.datasets[plan.dataset], CIFAR10Images):
                wanted += plan.computes(name)
                wanted += [
                    ResultKey(ResultKind.OUTLIERS, name, seed)
                    for seed in plan.seeds
                    if plan.extremes_of(name, seed)
                ]
        return self._with_inputs(wanted)

    def _with_inputs(self, wanted: Iterable[ResultKey]) -> list[ResultKey]:
        """List results and, before each, what it is computed from."""
        found: dict[ResultKey, None] = {}

        def visit(key: ResultKey) -> None:
            if key not in found:
                for inputs in inputs_of(key, self.config).values():
                    for one in [inputs] if isinstance(inputs, ResultKey) else inputs:
                        visit(one)
                found[key] = None

        for key in wanted:
            visit(key)
        return list(found)

    def _downloads(self, entry: Any) -> list[CIFAR10Images]:
        """List the datasets behind an entry that do not come with the packages."""
        data = [
            self.config.datasets[key.experiment]
            for key in self._with_inputs(entry.reads(self.config))
            if key.kind is ResultKind.DATASETS
        ]
        return [one for one in data if isinstance(one, CIFAR10Images)]

    def _entry(self, section: str, wildcards: Wildcards) -> Any:
        """Find the entry whose name is the only wildcard."""
        (name,) = dict(wildcards.items()).values()
        return getattr(self.config, section)[name]


@cache
def _stage_of_kind(kind: ResultKind) -> str:
    return stage_of(pattern(kind))


def _files_of(section: str, name: str) -> list[str]:
    """List the files of a figure, a table or the verdicts."""
    return [f"{section}/{name}.{suffix}" for suffix in _SUFFIXES[section]]


def paths(keys: Iterable[ResultKey]) -> list[str]:
    """List the paths of some results."""
    return [key.path for key in keys]


def dump(**parts: Any) -> dict[str, Any]:
    """Turn typed parts of a configuration into the one parameter of a rule.

    Snakemake compares parameters as a set of values without their names, so a rule has one: a
    dictionary. Its keys are sorted, so that their order in the file means nothing.

    Examples
    --------
    >>> dump(second={"b": 1, "a": [2]}, first=None)
    {'first': None, 'second': {'a': [2], 'b': 1}}
    """
    return {name: _canonical(parts[name]) for name in sorted(parts)}


def _canonical(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _canonical(value[key]) for key in sorted(value)}
    return [_canonical(item) for item in value] if isinstance(value, (list, tuple)) else value
