"""Spectrum and outlier counts of one training at one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.tables.queries import outlier_rows
from hesspipe.tables.store import Result


@dataclass(frozen=True)
class Run:
    """Spectrum and outlier counts of one training at one step.

    Attributes
    ----------
    name : str
    num_classes : int
    eigenvalues : ndarray, shape (P,)
        Of the Hessian, ascending.
    num_outliers : dict
        By rule.
    num_negative : int
    """

    name: str
    num_classes: int
    eigenvalues: NDArray[np.float64]
    num_outliers: dict[str, int]
    num_negative: int


def runs_of(results: Mapping[ResultKey, Result]) -> dict[int, dict[str, Run]]:
    """Collect the runs behind some spectra and outlier counts, by seed and experiment.

    Parameters
    ----------
    results : mapping
        Spectra, one for each run, and outlier counts of those runs, where they are needed.
    """
    outliers = {
        (key.experiment, key.seed): result
        for key, result in results.items()
        if key.kind is ResultKind.OUTLIERS
    }
    runs: dict[int, dict[str, Run]] = {}
    for key, result in results.items():
        if key.kind is ResultKind.SPECTRA and key.seed is not None:
            run = run_of(result, outliers.get((key.experiment, key.seed)))
            runs.setdefault(key.seed, {})[key.experiment] = run
    return runs


def run_of(spectrum: Result, outliers: Result | None) -> Run:
    """Build a run from its spectrum and its outlier counts; without these, it has no counts."""
    provenance, counts = spectrum.provenance, {}
    if outliers is not None:
        rows = outlier_rows(outliers, provenance["step"], provenance["matrix"])
        counts = dict(zip(rows["rule"], rows["num_outliers"].astype(int), strict=True))
    return Run(
        name=provenance["experiment"],
        num_classes=provenance["num_classes"],
        eigenvalues=spectrum.table["eigenvalue"].to_numpy(),
        num_outliers=counts,
        num_negative=provenance["num_negative"],
    )


def verdict(is_met: Sequence[bool]) -> str:
    """Give "holds" if all are met, "holds in part" if some are, "does not hold" if none is.

    If there is nothing to meet, it is "not measured".
    """
    if not is_met:
        return "not measured"
    if all(is_met):
        return "holds"
    return "holds in part" if any(is_met) else "does not hold"
