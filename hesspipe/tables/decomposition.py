"""H = G + R through training: how large the residual is, and what it does to the spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Real = NDArray[np.float64]


def decomposition_table(
    spectra: Sequence[pd.DataFrame], outliers: pd.DataFrame, rule: str
) -> pd.DataFrame:
    """Tabulate the norms and the ends of the spectra of H, G and R at each step.

    Norms come from the eigenvalues: the operator norm is the largest magnitude, the Frobenius
    norm the root of the sum of squares.

    Parameters
    ----------
    spectra : sequence of DataFrame
        Spectrum tables of one run, with provenance in `attrs`; all three matrices at each step.
    outliers : DataFrame
        The run's outlier table.
    rule : str
        Of counting outliers.

    Returns
    -------
    DataFrame
        One row a step, ascending: step; operator_ratio and frobenius_ratio, ||R|| / ||H||;
        largest_difference, the largest distance between eigenvalues of H and G of the same
        rank among the num_classes largest, in units of the largest of H;
        smallest_hessian, smallest_residual; num_negative_hessian, num_negative_residual;
        negative_share, the sum of the negative eigenvalues of H over that of R; largest;
        num_outliers of H, num_outliers_ggn.

    Raises
    ------
    ValueError
        If a matrix is missing at a step.
    """
    by_step: dict[int, dict[str, pd.DataFrame]] = {}
    for spectrum in spectra:
        by_step.setdefault(spectrum.attrs["step"], {})[spectrum.attrs["matrix"]] = spectrum
    rows = []
    for step, matrices in sorted(by_step.items()):
        if set(matrices) != {"hessian", "ggn", "residual"}:
            raise ValueError(
                f"spectra must hold hessian, ggn and residual at step {step}, got "
                f"{sorted(matrices)}; list all three in the experiment's spectra.matrices"
            )
        counts = {matrix: _count(outliers, step, matrix, rule) for matrix in ("hessian", "ggn")}
        rows.append(_row(step, matrices, counts))
    return pd.DataFrame(rows)


def _row(
    step: int, matrices: dict[str, pd.DataFrame], counts: dict[str, int]
) -> dict[str, float | int]:
    values = {name: table["eigenvalue"].to_numpy() for name, table in matrices.items()}
    hessian, ggn, residual = values["hessian"], values["ggn"], values["residual"]
    num_classes = matrices["hessian"].attrs["num_classes"]
    tops = hessian[-num_classes:], ggn[-num_classes:]
    return {
        "step": step,
        "operator_ratio": _operator_norm(residual) / _operator_norm(hessian),
        "frobenius_ratio": float(np.linalg.norm(residual) / np.linalg.norm(hessian)),
        "largest_difference": float(np.abs(tops[0] - tops[1]).max() / hessian[-1]),
        "smallest_hessian": float(hessian[0]),
        "smallest_residual": float(residual[0]),
        "num_negative_hessian": matrices["hessian"].attrs["num_negative"],
        "num_negative_residual": matrices["residual"].attrs["num_negative"],
        "negative_share": float(hessian[hessian < 0].sum() / residual[residual < 0].sum()),
        "largest": float(hessian[-1]),
        "num_outliers": counts["hessian"],
        "num_outliers_ggn": counts["ggn"],
    }


def _operator_norm(eigenvalues: Real) -> float:
    return float(np.abs(eigenvalues).max())


def _count(outliers: pd.DataFrame, step: int, matrix: str, rule: str) -> int:
    found = outliers[
        (outliers["step"] == step) & (outliers["matrix"] == matrix) & (outliers["rule"] == rule)
    ]
    return int(found["num_outliers"].iloc[0])
