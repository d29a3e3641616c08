"""How sharp the ends of trainings are: their largest eigenvalues beside what descent can bear."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hesspipe.tables.extremes import extreme_eigenvalues


def sharpness_table(tables: Sequence[pd.DataFrame], num_largest: int) -> pd.DataFrame:
    """Tabulate the largest eigenvalues of several trainings, each beside its stability limit.

    On a quadratic, descent with step size s grows along an eigenvector whose eigenvalue is above
    2 / s. A training on all of the data cannot stay at a point sharper than that; one on small
    batches already leaves points that are less sharp, because of their noise.

    Parameters
    ----------
    tables : sequence of DataFrame
        Eigenpair tables with their provenance in `attrs`.
    num_largest : int

    Returns
    -------
    DataFrame
        experiment, seed, step, batch_size, step_size, stability_limit (2 / step_size),
        order (1 = largest), eigenvalue, residual_norm (within which an eigenvalue of the exact
        matrix lies); in the order of the tables, the largest first.

    References
    ----------
    Wu, Ma, E (2018), How SGD selects the global minima in over-parameterized learning: a dynamical
    stability perspective, Section 3.
    """
    parts = []
    for table in tables:
        ends = extreme_eigenvalues([table], num_largest, 0).sort_values("order")
        training = table.attrs["training"]
        parts.append(
            pd.DataFrame(
                {
                    "experiment": ends["experiment"],
                    "seed": ends["seed"],
                    "step": ends["step"],
                    "batch_size": training["batch_size"],
                    "step_size": training["step_size"],
                    "stability_limit": 2 / training["step_size"],
                    "order": ends["order"],
                    "eigenvalue": ends["eigenvalue"],
                    "residual_norm": ends["uncertainty"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
