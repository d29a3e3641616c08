"""The results of the pipeline by name, and the path where each is stored.

A `ResultKey` names a result, and its `path` is the file that holds it. Entries of the configuration
list the keys that they read (`reads`) and that can be computed from them (`produces`), and
Snakemake's rules take their inputs and outputs from the same keys: no path is spelled elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from hesspipe.curvature.matrix import Matrix

ROOT = "results"


class ResultKind(StrEnum):
    """Kind of a result; the value is its folder below results/."""

    DATASETS = "datasets"
    CHECKPOINTS = "checkpoints"
    HISTORIES = "histories"
    SPECTRA = "spectra"
    DENSITIES = "densities"
    EIGENPAIRS = "eigenpairs"
    OUTLIERS = "outliers"
    DECOMPOSITIONS = "decompositions"
    DIRECTIONS = "directions"
    LANDSCAPE = "landscape"
    RANDOM_MATRICES = "random_matrices"
    CURVES = "curves"


# Below results/<kind>/. The first placeholder is the key's `experiment`.
_PATTERNS = {
    ResultKind.DATASETS: "{dataset}.safetensors",
    ResultKind.CHECKPOINTS: "{experiment}/seed{seed}/step{step}.safetensors",
    ResultKind.HISTORIES: "{experiment}/seed{seed}.parquet",
    ResultKind.SPECTRA: "{experiment}/seed{seed}/step{step}_{matrix}.parquet",
    ResultKind.DENSITIES: "{experiment}/seed{seed}/step{step}_{matrix}_{group}.parquet",
    ResultKind.EIGENPAIRS: "{experiment}/seed{seed}/step{step}_{matrix}.parquet",
    ResultKind.OUTLIERS: "{experiment}/seed{seed}.parquet",
    ResultKind.DECOMPOSITIONS: "{experiment}/seed{seed}.parquet",
    ResultKind.DIRECTIONS: "{experiment}/seed{seed}/step{step}.parquet",
    ResultKind.LANDSCAPE: "{experiment}/seed{seed}/{group}.parquet",
    ResultKind.RANDOM_MATRICES: "{source}/{group}.parquet",
    ResultKind.CURVES: "{figure}.parquet",
}
_OWNERS = ("dataset", "experiment", "source", "figure")
_NAME = "[a-z][a-z0-9_]*"
# Regular expressions of the placeholders, which are also Snakemake's wildcard constraints.
CONSTRAINTS = {
    **dict.fromkeys(_OWNERS, _NAME),
    "seed": "0|[1-9][0-9]*",
    "step": "0|[1-9][0-9]*",
    "matrix": "|".join(Matrix),
    "group": _NAME,
}


@dataclass(frozen=True, order=True)
class ResultKey:
    """One stored result.

    Attributes
    ----------
    kind : ResultKind
    experiment : str
        The owner: an experiment, a dataset (DATASETS), an entry of random_matrices
        (RANDOM_MATRICES) or a figure (CURVES).
    seed, step : int, optional
    matrix : Matrix, optional
    group : str, optional
        A group of parameters (DENSITIES), or the part of a result: of LANDSCAPE "line",
        "line_to_seed1", "line_to_seed1_aligned", "plane_to_seed1", "plane_to_seed1_points" or
        "aligned_to_seed1"; of RANDOM_MATRICES "spectrum", "samples", "law", "outliers",
        "histogram", "spikes", "positions", "fluctuations", "spectra" or "parts".

    Examples
    --------
    >>> key = ResultKey(ResultKind.SPECTRA, "mnist_lb", seed=0, step=3000, matrix=Matrix.GGN)
    >>> key.path
    'results/spectra/mnist_lb/seed0/step3000_ggn.parquet'
    >>> ResultKey.from_path(key.path) == key
    True
    """

    kind: ResultKind
    experiment: str
    seed: int | None = None
    step: int | None = None
    matrix: Matrix | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        """Refuse a key with a part too many or too few for its kind."""
        given = {name for name in ("seed", "step", "matrix", "group") if self._has(name)}
        needed = _parts(self.kind)
        if given != needed:
            raise ValueError(
                f"the parts of a key of {self.kind} must be {sorted(needed)}, got {sorted(given)}"
            )

    @property
    def path(self) -> str:
        """Path of the result, relative to the folder that the pipeline runs in."""
        parts = {"seed": self.seed, "step": self.step, "matrix": self.matrix, "group": self.group}
        owner = dict.fromkeys(_OWNERS, self.experiment)
        return pattern(self.kind, self.group or "").format(**owner, **parts)

    @classmethod
    def from_path(cls, path: str) -> ResultKey:
        """Find the key of a path: the inverse of `path`.

        Raises
        ------
        ValueError
            If no result is stored at this path.
        """
        root, _, rest = Path(path).as_posix().partition("/")
        folder, _, _ = rest.partition("/")
        if root == ROOT and folder in set(ResultKind):
            kind = ResultKind(folder)
            match = re.fullmatch(_expression(kind), path)
            if match:
                return cls.from_wildcards(kind, match.groupdict(), path)
        raise _no_result(path)

    @classmethod
    def from_wildcards(cls, kind: ResultKind, found: Mapping[str, str], path: str) -> ResultKey:
        """Find the key of a path whose parts are known.

        Parameters
        ----------
        kind : ResultKind
        found : mapping of str to str
            The wildcards of the kind, and maybe others.
        path : str

        Raises
        ------
        ValueError
            If the path has another form than that of the key: seed07 for 7.
        """
        (owner,) = [found[name] for name in _OWNERS if name in found]
        parts = _parts(kind)
        key = cls(
            kind,
            owner,
            seed=int(found["seed"]) if "seed" in parts else None,
            step=int(found["step"]) if "step" in parts else None,
            matrix=Matrix(found["matrix"]) if "matrix" in parts else None,
            group=found["group"] if "group" in parts else None,
        )
        if key.path != path:
            raise _no_result(path)
        return key

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None


def _no_result(path: str) -> ValueError:
    return ValueError(f"path must be that of a result, below {ROOT}/<kind>/, got {path!r}")


def pattern(kind: ResultKind, group: str = "{group}") -> str:
    """Return the path of a kind of result with Snakemake's wildcards.

    Parameters
    ----------
    kind : ResultKind
    group : str, optional
        Fills the placeholder {group}; it may contain other wildcards, as
        "plane_to_seed{other}". Aligned networks, "aligned_*", are stored as safetensors.

    Examples
    --------
    >>> pattern(ResultKind.SPECTRA)
    'results/spectra/{experiment}/seed{seed}/step{step}_{matrix}.parquet'
    >>> pattern(ResultKind.LANDSCAPE, "aligned_to_seed{other}")
    'results/landscape/{experiment}/seed{seed}/aligned_to_seed{other}.safetensors'
    """
    path = f"{ROOT}/{kind.value}/{_PATTERNS[kind]}".replace("{group}", group)
    if kind is ResultKind.LANDSCAPE and group.startswith("aligned_"):
        return path.removesuffix(".parquet") + ".safetensors"
    return path


@cache
def _parts(kind: ResultKind) -> frozenset[str]:
    """Names of the wildcards of a kind, but for that of its owner."""
    return frozenset(re.findall(r"\{(\w+)\}", _PATTERNS[kind])) - set(_OWNERS)


@cache
def _expression(kind: ResultKind) -> str:
    """Regular expression of the paths of a kind, with its wildcards as named groups."""
    parts = re.split(r"\{(\w+)\}", f"{ROOT}/{kind.value}/{_PATTERNS[kind]}")
    for number, part in enumerate(parts):
        is_placeholder = number % 2
        parts[number] = f"(?P<{part}>{CONSTRAINTS[part]})" if is_placeholder else re.escape(part)
    suffix = re.escape(".parquet")
    if kind is ResultKind.LANDSCAPE:
        return "".join(parts).removesuffix(suffix) + r"\.(parquet|safetensors)"
    return "".join(parts)
