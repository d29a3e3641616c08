"""H = G + R through one training, from its stored spectra and outlier counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hesspipe.tables import decomposition
from hesspipe.tables.store import Result, read_result


def decompose(paths_to_spectra: Sequence[str | Path], path_to_outliers: str | Path) -> Result:
    """Compute the size of the residual and its effect on the spectrum at each step.

    Parameters
    ----------
    paths_to_spectra : sequence of path
        Of one run, all three matrices at each step.
    path_to_outliers : path
        Outlier counts of the run.

    Returns
    -------
    Result
        A decomposition, for every configured rule; see `hesspipe.tables.decomposition.decompose`.
    """
    spectra = [read_result(path, "spectrum") for path in paths_to_spectra]
    return decomposition.decompose(spectra, read_result(path_to_outliers, "outliers"))
