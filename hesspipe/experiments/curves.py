"""Stored densities as smooth curves between bounds, for the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from hesspipe.forecasts import curve_bytes
from hesspipe.hardware import require
from hesspipe.linalg.spectral_density import CONFIDENCE, spread_grid
from hesspipe.saving.forms import density_of
from hesspipe.tables.store import Result, read_result

_LABELS = ("experiment", "seed", "step", "matrix", "group", "num_parameters")


def smooth_densities(
    paths_to_densities: Sequence[str | Path],
    *,
    kind: Literal["densities", "layers"],
    relative_width: float,
    num_points: int,
) -> Result:
    """Smooth the densities of one figure by a Gaussian.

    Parameters
    ----------
    paths_to_densities : sequence of path
    kind : {"densities", "layers"}
        Kind of the figure. Densities of several matrices are drawn over each other and share one
        grid; those of a network's layers, which differ by decades in scale, have one each.
    relative_width, num_points
        See `smooth`.

    Returns
    -------
    Result
        Curves.
    """
    densities = [read_result(path, "density") for path in paths_to_densities]
    panels = [densities] if kind == "densities" else [[density] for density in densities]
    table = pd.concat([smooth(panel, relative_width, num_points) for panel in panels])
    settings = {
        "relative_width": relative_width,
        "num_points": num_points,
        "confidence": CONFIDENCE,
    }
    labels = [{key: density.provenance[key] for key in _LABELS} for density in densities]
    return Result("curves", table, {"densities": labels, **settings})


def smooth(densities: Sequence[Result], relative_width: float, num_points: int) -> pd.DataFrame:
    """Smooth one or more densities by the same Gaussian on the same grid.

    Parameters
    ----------
    densities : sequence of Result
    relative_width : float
        Standard deviation of the Gaussian, as a share of the distance between the smallest and
        the largest node of all densities.
    num_points : int
        Number of grid points; the grid spans all nodes and five widths beyond.

    Returns
    -------
    DataFrame
        experiment, seed, step, matrix, group, num_parameters, value, density, standard_error
        (over the probes), low, high (an interval that holds; all per unit of the eigenvalues),
        one_eigenvalue (the height of the peak of a single eigenvalue).

    Raises
    ------
    ValueError
        If all nodes are the same, or the arguments are out of range.
    """
    if not 0 < relative_width <= 1:
        raise ValueError(f"relative_width must be in (0, 1], got {relative_width}")
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}")
    num_nodes = max(int(density.table.groupby("probe").size().max()) for density in densities)
    require(
        curve_bytes(num_points, num_nodes),
        f"a curve of {num_points:,} points from {num_nodes:,} nodes",
        "use fewer points",
    )
    low = min(float(density.table["node"].min()) for density in densities)
    high = max(float(density.table["node"].max()) for density in densities)
    if not low < high:
        raise ValueError(f"a density must have two different nodes to be drawn, got only {low}")
    width = relative_width * (high - low)
    grid = spread_grid(low, high, width, num_points)
    return pd.concat([_curve(density, grid, width) for density in densities], ignore_index=True)


def _curve(result: Result, grid: torch.Tensor, width: float) -> pd.DataFrame:
    """One density on the grid, labeled by its provenance."""
    provenance = result.provenance
    curve = density_of(result).evaluate(grid, width, confidence=CONFIDENCE)
    return pd.DataFrame(
        {
            **{key: provenance[key] for key in _LABELS},
            "value": grid.numpy(),
            "density": curve.estimate.numpy(),
            "standard_error": curve.standard_error.numpy(),
            "low": curve.low.numpy(),
            "high": curve.high.numpy(),
            "one_eigenvalue": 1 / (provenance["num_parameters"] * width * math.sqrt(2 * math.pi)),
        }
    )
