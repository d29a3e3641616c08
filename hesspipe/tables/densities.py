"""Stored densities as curves: smoothed on one grid, with standard errors, for figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch

from hesspipe.linalg.density import Density

# A Gaussian has fallen to 1e-5 of its peak there: what lies at the ends is seen whole.
_MARGIN_IN_WIDTHS = 5.0


def smooth_densities(
    tables: Sequence[pd.DataFrame], relative_width: float, num_points: int
) -> pd.DataFrame:
    """Smooth one or more densities by a Gaussian, all by the same and on the same grid.

    Parameters
    ----------
    tables : sequence of DataFrame
        Density tables (probe, node, weight) with their provenance in `attrs`.
    relative_width : float
        Standard deviation of the Gaussian, as a share of the distance between the smallest and
        the largest node of all tables.
    num_points : int
        Of the grid, which spans all nodes and five widths beyond.

    Returns
    -------
    DataFrame
        experiment, seed, step, matrix, group, num_parameters, value, density, standard_error
        (over the probes; both per unit of the eigenvalues), one_eigenvalue (the height at its
        peak that a single eigenvalue would have).

    Raises
    ------
    ValueError
        If all nodes are the same, or the arguments are out of range.
    """
    if not 0 < relative_width <= 1:
        raise ValueError(f"relative_width must be in (0, 1], got {relative_width}")
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}")
    low = min(float(table["node"].min()) for table in tables)
    high = max(float(table["node"].max()) for table in tables)
    if not low < high:
        raise ValueError(f"a density must have two different nodes to be drawn, got only {low}")
    width = relative_width * (high - low)
    margin = _MARGIN_IN_WIDTHS * width
    grid = torch.linspace(low - margin, high + margin, num_points, dtype=torch.float64)
    return pd.concat([_curve(table, grid, width) for table in tables], ignore_index=True)


def read_density(table: pd.DataFrame) -> Density:
    """Take a density from its table.

    Parameters
    ----------
    table : DataFrame
        probe, node, weight, with num_parameters and matrix in `attrs`.

    Returns
    -------
    Density
        num_products counts the nodes.
    """
    num_probes = table["probe"].nunique()
    ordered = table.sort_values(["probe", "node"], kind="stable")
    nodes, weights = (
        torch.from_numpy(ordered[name].to_numpy(dtype="float64", copy=True)).reshape(num_probes, -1)
        for name in ("node", "weight")
    )
    about = table.attrs
    return Density(nodes, weights, about["num_parameters"], about["matrix"], len(table))


def _curve(table: pd.DataFrame, grid: torch.Tensor, width: float) -> pd.DataFrame:
    """One density on the grid, behind columns of its provenance."""
    about = table.attrs
    keys = ("experiment", "seed", "step", "matrix", "group", "num_parameters")
    mean, standard_error = read_density(table).evaluate(grid, width)
    return pd.DataFrame(
        {
            **{key: about[key] for key in keys},
            "value": grid.numpy(),
            "density": mean.numpy(),
            "standard_error": standard_error.numpy(),
            "one_eigenvalue": 1 / (about["num_parameters"] * width * math.sqrt(2 * math.pi)),
        }
    )
