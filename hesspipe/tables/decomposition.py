"""H = G + R through training: the size of the residual, and its effect on the spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hesspipe.curvature.matrix import Matrix
from hesspipe.tables.queries import of_kind, outlier_row
from hesspipe.tables.store import Result

Real = NDArray[np.float64]


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Select the decomposition with the outlier counts of one rule.

    Parameters
    ----------
    results : sequence of Result
        One decomposition; see `decompose`.
    settings : mapping
        rule.

    Returns
    -------
    DataFrame
        The columns of a decomposition without the rule, one row for each step, ascending.
    """
    (decomposition,) = of_kind(results, "decomposition")
    table, rule = decomposition.table, str(settings["rule"])
    columns = [name for name in table.columns if name != "rule"]
    return table.loc[table["rule"] == rule, columns].reset_index(drop=True)


def decompose(spectra: Sequence[Result], outliers: Result) -> Result:
    """Compute the norms and the extreme eigenvalues of H, G and R at each step.

    Norms come from the eigenvalues: the operator norm is the largest magnitude, the Frobenius
    norm the root of the sum of squares.

    Parameters
    ----------
    spectra : sequence of Result
        Spectra of one run, all three matrices at each step.
    outliers : Result
        Outlier counts of the run.

    Returns
    -------
    Result
        A decomposition: one row for each step, ascending, and rule. operator_ratio and
        frobenius_ratio are ||R|| / ||H||; largest_difference, the largest distance between
        eigenvalues of H and G of the same rank among the num_classes largest, in units of the
        largest of H; smallest_hessian, smallest_residual; num_negative_hessian,
        num_negative_residual; negative_share, the sum of the negative eigenvalues of H over that
        of R; largest, of H; num_outliers of H, num_outliers_ggn. All but the last two are the
        same for every rule.

    Raises
    ------
    ValueError
        If a matrix is missing at a step.
    """
    by_step: dict[int, dict[Matrix, Result]] = {}
    for spectrum in spectra:
        step, matrix = spectrum.provenance["step"], Matrix(spectrum.provenance["matrix"])
        by_step.setdefault(step, {})[matrix] = spectrum
    rows = []
    for step, matrices in sorted(by_step.items()):
        if set(matrices) != set(Matrix):
            raise ValueError(
                f"spectra must hold hessian, ggn and residual at step {step}, got "
                f"{sorted(map(str, matrices))}; list all three in the experiment's spectra.matrices"
            )
        sizes = _sizes(matrices)
        for rule in outliers.table["rule"].unique():
            counts = [
                int(outlier_row(outliers, step, matrix, rule)["num_outliers"])
                for matrix in (Matrix.HESSIAN, Matrix.GGN)
            ]
            names = ("num_outliers", "num_outliers_ggn")
            rows.append(
                {"step": step, "rule": rule, **sizes, **dict(zip(names, counts, strict=True))}
            )
    provenance = {key: outliers.provenance[key] for key in outliers.provenance if key != "versions"}
    return Result("decomposition", pd.DataFrame(rows), provenance)


def _sizes(matrices: Mapping[Matrix, Result]) -> dict[str, float | int]:
    """What does not depend on a rule for outliers."""
    hessian, ggn, residual = (matrices[matrix].table["eigenvalue"].to_numpy() for matrix in Matrix)
    num_classes = matrices[Matrix.HESSIAN].provenance["num_classes"]
    if num_classes is None:
        raise ValueError(
            "a decomposition must be of data with class labels, got none; return a Dataset with "
            "num_classes from the function of the data"
        )
    tops = hessian[-num_classes:], ggn[-num_classes:]
    return {
        "operator_ratio": _operator_norm(residual) / _operator_norm(hessian),
        "frobenius_ratio": float(np.linalg.norm(residual) / np.linalg.norm(hessian)),
        "largest_difference": float(np.abs(tops[0] - tops[1]).max() / hessian[-1]),
        "smallest_hessian": float(hessian[0]),
        "smallest_residual": float(residual[0]),
        "num_negative_hessian": matrices[Matrix.HESSIAN].provenance["num_negative"],
        "num_negative_residual": matrices[Matrix.RESIDUAL].provenance["num_negative"],
        "negative_share": float(hessian[hessian < 0].sum() / residual[residual < 0].sum()),
        "largest": float(hessian[-1]),
    }


def _operator_norm(eigenvalues: Real) -> float:
    return float(np.abs(eigenvalues).max())
