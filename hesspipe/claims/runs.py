"""One experiment at one step, as the checks of claims see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Run:
    """What is known of one experiment at one step.

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


def run_from_tables(spectrum: pd.DataFrame, outliers: pd.DataFrame) -> Run:
    """Build a run from its spectrum table (with provenance) and its outlier table."""
    about = spectrum.attrs
    here = outliers[(outliers["step"] == about["step"]) & (outliers["matrix"] == about["matrix"])]
    return Run(
        name=about["experiment"],
        num_classes=about["num_classes"],
        eigenvalues=spectrum["eigenvalue"].to_numpy(),
        num_outliers=dict(zip(here["rule"], here["num_outliers"].astype(int), strict=True)),
        num_negative=about["num_negative"],
    )


def verdict(is_met: Sequence[bool]) -> str:
    """Say "holds" of all, "holds in part" of some, "does not hold" of none."""
    if all(is_met):
        return "holds"
    return "holds in part" if any(is_met) else "does not hold"
