"""The spectrum of a configured linear model, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hesspipe.curvature.spectra import spectrum
from hesspipe.experiments.linear_models import linear_model

_READ_LATER = ("kind", "num_groups", "num_positions")


def linear_model_tables(
    name: str, entry: Mapping[str, Any], *, zero_tolerance: float
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Draw, train and take the spectrum of the Hessian.

    Parameters
    ----------
    name : str
        Of the entry in config.yaml.
    entry : mapping
        The arguments of `hesspipe.experiments.linear_models.linear_model`, and keys for what reads
        them.
    zero_tolerance : float
        See `hesspipe.curvature.spectra.spectrum`.

    Returns
    -------
    spectrum : DataFrame
        rank (0 = smallest), eigenvalue.
    samples : DataFrame
        curvature, along_data, along_weights.
    provenance : dict
    """
    model = linear_model(**{key: entry[key] for key in entry if key not in _READ_LATER})
    result = spectrum(model.objective, "hessian", zero_tolerance=zero_tolerance)
    table = pd.DataFrame(
        {"rank": range(len(result.eigenvalues)), "eigenvalue": result.eigenvalues.numpy()}
    )
    samples = pd.DataFrame(
        {
            "curvature": model.curvatures.numpy(),
            "along_data": model.projections[:, 0].numpy(),
            "along_weights": model.projections[:, 1].numpy(),
        }
    )
    provenance = {
        "name": name,
        "entry": dict(entry),
        "matrix": "hessian",
        "method": result.method,
        "num_parameters": model.objective.num_parameters,
        "num_features": entry["num_features"],
        "num_samples": model.objective.num_data,
        "num_negative": result.num_negative,
        "num_zero": result.num_zero,
        "num_positive": result.num_positive,
        "accuracy": model.accuracy,
        "dtype": "float64",
        "device": "cpu",
    }
    return table, samples, provenance
