"""The exact spectrum of one matrix at one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.spectra import spectrum
from hesspipe.experiments.loading import load_objective
from hesspipe.saving.forms import FORMS
from hesspipe.tables.store import Result


def extract_spectrum(
    *,
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: Mapping[str, Any],
    matrix: Matrix | str,
    zero_tolerance: float,
) -> Result:
    """Compute all eigenvalues of H, G or R of the loss on the training set.

    Everything is computed in float64, whatever the dtype of training.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    model : mapping
        The experiment's `model` in config.yaml.
    matrix : Matrix or str
    zero_tolerance : float
        See `hesspipe.curvature.spectra.spectrum`.

    Returns
    -------
    Result
        Of kind "spectrum": rank (0 = smallest), eigenvalue. The provenance has the training's, the
        step, the matrix, how it was computed, the bound of its eigenvalues' errors, and its
        inertia with the certificate.
    """
    matrix = Matrix(matrix)
    objective, provenance = load_objective(path_to_dataset, path_to_checkpoint, model)
    found = spectrum(objective, matrix, zero_tolerance=zero_tolerance, certify=True, progress=True)
    return Result(
        "spectrum",
        FORMS["spectrum"].to_table(found)[0],
        provenance
        | {
            "matrix": matrix,
            "method": found.method,
            "num_negative": found.num_negative,
            "num_zero": found.num_zero,
            "num_positive": found.num_positive,
            "zero_tolerance": zero_tolerance,
            "error_bound": found.error_bound,
            "tolerance": found.tolerance,
            "certificate": found.certificate,
        },
    )
