"""Outlier counts of one run: every spectrum by every rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hesspipe.outliers import OutlierRule
from hesspipe.outliers import count_outliers as count
from hesspipe.tables.store import Result, read_result


def count_outliers(
    paths_to_spectra: Sequence[str | Path], *, rules: Sequence[OutlierRule], num_candidates: int
) -> Result:
    """Count the outliers of every spectrum of one run by several rules.

    Parameters
    ----------
    paths_to_spectra : sequence of path
        Spectra, or eigenpairs of a network that is too large for all eigenvalues.
    rules : sequence of str
    num_candidates : int
        See `hesspipe.outliers`.

    Returns
    -------
    Result
        Outliers.
    """
    spectra = [read_result(path, ("spectrum", "eigenpairs")) for path in paths_to_spectra]
    table = pd.concat([count_by_rules(spectrum, rules, num_candidates) for spectrum in spectra])
    run = {key: spectra[0].provenance[key] for key in ("experiment", "seed", "num_classes")}
    settings = {"rules": list(rules), "num_candidates": num_candidates}
    return Result("outliers", table, run | settings)


def count_by_rules(
    spectrum: Result, rules: Sequence[OutlierRule], num_candidates: int
) -> pd.DataFrame:
    """Count the outliers of one spectrum by several rules.

    The largest eigenvalues are enough: no others enter a rule.

    Parameters
    ----------
    spectrum : Result
        A spectrum or eigenpairs.
    rules : sequence of str
    num_candidates : int
        See `hesspipe.outliers`.

    Returns
    -------
    DataFrame
        step, matrix, rule, num_outliers, cutoff; one row for each rule.

    Raises
    ------
    ValueError
        If an eigenpair table holds fewer than `num_candidates` of the largest.
    """
    eigenvalues = spectrum.table["eigenvalue"]
    if spectrum.kind == "eigenpairs":
        eigenvalues = eigenvalues[spectrum.table["end"] == "largest"].sort_values()
        if len(eigenvalues) < num_candidates:
            raise ValueError(
                f"num_candidates must be at most {len(eigenvalues)}, the number of largest "
                f"eigenvalues that were computed, got {num_candidates}"
            )
    counts = [count(eigenvalues, rule, num_candidates=num_candidates) for rule in rules]
    return pd.DataFrame(
        {
            "step": spectrum.provenance["step"],
            "matrix": spectrum.provenance["matrix"],
            "rule": [found.rule for found in counts],
            "num_outliers": [found.num_outliers for found in counts],
            "cutoff": [found.cutoff for found in counts],
        }
    )
