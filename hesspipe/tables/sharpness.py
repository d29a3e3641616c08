"""Sharpness at the end of training against the stability limit 2 / step_size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hesspipe.tables.queries import extreme_eigenvalues, of_kind
from hesspipe.tables.store import Result


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate the largest eigenvalues of several trainings with their stability limits.

    On a quadratic, descent with step size s grows along an eigenvector whose eigenvalue is above
    2 / s. Full-batch training cannot stay at a point sharper than that; training on small batches
    leaves even less sharp points, because of its noise.

    Parameters
    ----------
    results : sequence of Result
        Eigenpairs.
    settings : mapping
        num_largest.

    Returns
    -------
    DataFrame
        experiment, seed, step, batch_size, step_size, stability_limit (2 / step_size),
        order (1 = largest), eigenvalue, residual_norm (an eigenvalue of the exact matrix lies
        within this distance); in the order of the results, the largest first.

    References
    ----------
    Wu, Ma, E (2018), How SGD selects the global minima in over-parameterized learning: a dynamical
    stability perspective, Section 3.
    """
    parts = []
    for pairs in of_kind(results, "eigenpairs"):
        largest = extreme_eigenvalues([pairs], settings["num_largest"], 0).sort_values("order")
        training = pairs.provenance["training"]
        parts.append(
            pd.DataFrame(
                {
                    "experiment": largest["experiment"],
                    "seed": largest["seed"],
                    "step": largest["step"],
                    "batch_size": training["batch_size"],
                    "step_size": training["step_size"],
                    "stability_limit": 2 / training["step_size"],
                    "order": largest["order"],
                    "eigenvalue": largest["eigenvalue"],
                    "residual_norm": largest["uncertainty"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
