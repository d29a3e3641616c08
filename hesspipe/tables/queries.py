"""Selections from results: by kind, by run, outlier counts, extreme eigenvalues, histories."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from hesspipe.curvature.matrix import Matrix
from hesspipe.tables.store import Result

_SPECTRUM_LABELS = (
    "experiment", "seed", "num_classes", "num_parameters", "num_negative", "num_zero", "step",
    "matrix",
)  # fmt: skip
_EXTREME_LABELS = ("experiment", "seed", "step", "matrix", "num_parameters")


def of_kind(results: Sequence[Result], *kinds: str) -> list[Result]:
    """Select the results of some kinds, in their order, those that are not tables as tables.

    Raises
    ------
    ValueError
        If there are none.
    """
    tables = [result if isinstance(result, Result) else _as_table(result) for result in results]
    found = [table for table in tables if table.kind in kinds]
    if not found:
        raise ValueError(
            f"results must include a {' or '.join(kinds)} table, got "
            f"{[table.kind for table in tables]}"
        )
    return found


def _as_table(result: Any) -> Result:
    """Convert a result of the library, which no job of the pipeline passes."""
    # By name: it loads torch and the library, which what reads tables alone does not depend on.
    table: Result = importlib.import_module("hesspipe.saving.files").as_result(result)
    return table


def of_same_run(result: Result, others: Sequence[Result]) -> Result:
    """Find the one among others that has the experiment and seed of a result.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    run = result.provenance["experiment"], result.provenance["seed"]
    found = [
        other
        for other in others
        if (other.provenance["experiment"], other.provenance["seed"]) == run
    ]
    if len(found) != 1:
        raise ValueError(f"results must include one of {run[0]} seed {run[1]}, got {len(found)}")
    return found[0]


def outlier_rows(outliers: Result, step: int, matrix: str) -> pd.DataFrame:
    """Select the outlier counts of one spectrum, a row for each rule."""
    table = outliers.table
    return table[(table["step"] == step) & (table["matrix"] == matrix)]


def outlier_row(outliers: Result, step: int, matrix: str, rule: str) -> pd.Series:
    """Select the outlier count of one spectrum by one rule.

    Returns
    -------
    Series
        step, matrix, rule, num_outliers, cutoff.

    Raises
    ------
    ValueError
        If it was not counted.
    """
    rows = outlier_rows(outliers, step, matrix)
    found = rows[rows["rule"] == rule]
    if len(found) != 1:
        raise ValueError(
            f"outliers must have one row of the {matrix} at step {step} by the {rule} rule, "
            f"got {len(found)}"
        )
    return found.iloc[0]


def join_spectra(spectra: Sequence[Result]) -> pd.DataFrame:
    """Join several spectra into one table.

    Returns
    -------
    DataFrame
        experiment, seed, num_classes, num_parameters, num_negative, num_zero, step, matrix, rank,
        eigenvalue; in the order of the spectra.
    """
    parts = []
    for spectrum in spectra:
        labels = {key: spectrum.provenance[key] for key in _SPECTRUM_LABELS}
        parts.append(spectrum.table.assign(**labels)[[*labels, *spectrum.table.columns]])
    return pd.concat(parts)


def join_histories(histories: Sequence[Result]) -> pd.DataFrame:
    """Join the histories of trainings that continue each other.

    Returns
    -------
    DataFrame
        part (1, 2, ...) and the columns of a history, with steps counted from the start of the
        first; the last step of a part is repeated as the first of the next one.
    """
    parts, last = [], 0
    for number, history in enumerate(histories, 1):
        parts.append(history.table.assign(part=number, step=history.table["step"] + last))
        last = int(parts[-1]["step"].iloc[-1])
    return pd.concat(parts, ignore_index=True)


def extreme_eigenvalues(
    results: Sequence[Result], num_largest: int, num_smallest: int
) -> pd.DataFrame:
    """Select the eigenvalues at both ends of several spectra.

    Parameters
    ----------
    results : sequence of Result
        Spectra or eigenpairs. Eigenpairs of G need not have the lower end, which others have.
    num_largest, num_smallest : int
        Number of eigenvalues from each end.

    Returns
    -------
    DataFrame
        experiment, seed, step, matrix, num_parameters, end ("largest" or "smallest"),
        order (1 = most extreme), eigenvalue, uncertainty (a smaller magnitude counts as zero: the
        tolerance of a spectrum, the residual norm of an eigenpair), status (of the records of a
        monitor); by increasing order within each end.

    Raises
    ------
    ValueError
        If an eigenpair table holds fewer.

    Examples
    --------
    >>> table = pd.DataFrame({"rank": [0, 1, 2], "eigenvalue": [-1.0, 0.0, 5.0]})
    >>> labels = {"experiment": "mine", "seed": 0, "step": 0, "matrix": "hessian"}
    >>> spectrum = Result("spectrum", table, labels | {"num_parameters": 3, "tolerance": 1e-15})
    >>> extreme_eigenvalues([spectrum], 1, 1)[["end", "order", "eigenvalue"]].values.tolist()
    [['largest', 1, 5.0], ['smallest', 1, -1.0]]
    """
    numbers = {"largest": num_largest, "smallest": num_smallest}
    wanted = [
        (result, end, number) for result in results for end, number in numbers.items() if number > 0
    ]
    held = [
        (result, end, number) for result, end, number in wanted if not _is_left_out(result, end)
    ]
    return pd.concat([_end(*each) for each in held or wanted], ignore_index=True)


def _is_left_out(result: Result, end: str) -> bool:
    """Whether this is the lower end of eigenpairs of G that were found at the upper end only."""
    is_of_ggn = result.kind == "eigenpairs" and result.provenance["matrix"] == Matrix.GGN
    return is_of_ggn and end == "smallest" and not (result.table["end"] == end).any()


def _end(result: Result, end: str, number: int) -> pd.DataFrame:
    """One end of one spectrum, the most extreme eigenvalue first."""
    table, provenance = result.table, result.provenance
    is_whole = result.kind == "spectrum"
    known = table if is_whole else table[table["end"] == end]
    if not is_whole and len(known) < number:
        raise ValueError(
            f"the {end} eigenvalues of {provenance['experiment']} at step {provenance['step']} "
            f"must be at least {number}, got {len(known)}; compute more in its eigenpairs"
        )
    extreme = known.sort_values("eigenvalue", ascending=end == "smallest", kind="stable").head(
        number
    )
    return pd.DataFrame(
        {
            **{key: provenance[key] for key in _EXTREME_LABELS},
            "end": end,
            "order": range(1, len(extreme) + 1),
            "eigenvalue": extreme["eigenvalue"].to_numpy(),
            "uncertainty": provenance["tolerance"]
            if is_whole
            else extreme["residual_norm"].to_numpy(),
            "status": extreme["status"].to_numpy() if "status" in extreme else None,
        }
    )
