"""A linear model's spectrum beside the laws that predict it, with nothing fitted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hesspipe.random_matrices.generalized import GeneralizedLaw, outlier_positions
from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur

Real = NDArray[np.float64]


def compare_with_laws(
    spectrum: pd.DataFrame, samples: pd.DataFrame, *, num_groups: int, num_positions: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Predict a spectrum from the samples' curvatures and say how far it is off.

    The generalized law is that of noise whose samples count with the curvatures; the outliers
    are those of the two directions in which the inputs are not noise. The plain law is
    Marchenko and Pastur's with the mean curvature as scale, so that it has the same mean.
    Softmax has one direction per feature without curvature: as many eigenvalues are zero, and
    the laws are those of the others.

    Parameters
    ----------
    spectrum : DataFrame
        rank, eigenvalue, with num_features and num_samples among the provenance in `attrs`.
    samples : DataFrame
        curvature, along_data, along_weights: a row for each sample.
    num_groups : int
        Of samples with neighboring curvatures, whose mean stands for them in the law; it must
        divide the number of samples.
    num_positions : int
        Of the laws' table, and, at most, eigenvalues at which the distributions are compared.

    Returns
    -------
    law : DataFrame
        position, density, cdf, plain_density, plain_cdf: over the bulk, of the d eigenvalues
        that softmax leaves, zeros included.
    outliers : DataFrame
        side, predicted, measured; ascending.
    summary : dict
        num_zero_predicted, lower_edge, upper_edge, smallest, largest (of the bulk), distance and
        plain_distance: Kolmogorov and Smirnov's, over the bulk.
    """
    num_features, num_samples = spectrum.attrs["num_features"], spectrum.attrs["num_samples"]
    curvatures = samples["curvature"].to_numpy()
    law = GeneralizedLaw(
        num_features / num_samples, group_means(curvatures, num_groups), np.ones(1)
    )
    plain = MarchenkoPastur(num_features / num_samples, float(curvatures.mean()))
    left, right = outlier_positions(
        law, curvatures, samples[["along_data", "along_weights"]].to_numpy()
    )
    eigenvalues = spectrum["eigenvalue"].to_numpy()
    num_zero = len(eigenvalues) - min(num_features, num_samples)
    nonzero = eigenvalues[num_zero:]
    bulk = nonzero[len(left) : len(nonzero) - len(right)]
    lower, upper = law.edges()
    chosen = np.unique(np.linspace(0, len(bulk) - 1, num_positions).round().astype(int))
    summary = {
        "num_zero_predicted": num_zero,
        "lower_edge": lower,
        "upper_edge": upper,
        "smallest": float(bulk[0]),
        "largest": float(bulk[-1]),
        "distance": _distance(law.cdf(bulk[chosen]), chosen, len(bulk), law.mass_at_zero),
        "plain_distance": _distance(plain.cdf(bulk[chosen]), chosen, len(bulk), plain.mass_at_zero),
    }
    # Even in their square root: dense toward zero, where a bulk may diverge as 1 / sqrt.
    low, high = max(lower, 1e-6 * upper), max(upper, plain.upper_edge)
    position = np.linspace(math.sqrt(low), math.sqrt(high), num_positions) ** 2
    table = pd.DataFrame(
        {
            "position": position,
            "density": law.density(position),
            "cdf": law.cdf(position),
            "plain_density": plain.density(position),
            "plain_cdf": plain.cdf(position),
        }
    )
    outliers = pd.DataFrame(
        {
            "side": ["left"] * len(left) + ["right"] * len(right),
            "predicted": np.concatenate([left, right]),
            "measured": np.concatenate(
                [nonzero[: len(left)], nonzero[len(nonzero) - len(right) :]]
            ),
        }
    )
    return table, outliers, summary


def group_means(values: Real, num_groups: int) -> Real:
    """Replace neighboring values by their mean, in groups of equal size.

    Parameters
    ----------
    values : ndarray, shape (n,)
    num_groups : int
        A divisor of n.

    Returns
    -------
    ndarray, shape (num_groups,)
        Ascending.
    """
    if num_groups < 1 or len(values) % num_groups:
        raise ValueError(
            f"num_groups must divide the number of samples ({len(values)}), got {num_groups}"
        )
    return np.asarray(np.sort(values).reshape(num_groups, -1).mean(1))


def _distance(cdf: Real, ranks: NDArray[np.int64], num_bulk: int, mass_at_zero: float) -> float:
    """Largest difference from the empirical distribution function, before or after its steps."""
    expected = (cdf - mass_at_zero) / (1 - mass_at_zero)
    return float(
        max(
            np.abs(expected - ranks / num_bulk).max(),
            np.abs(expected - (ranks + 1) / num_bulk).max(),
        )
    )
