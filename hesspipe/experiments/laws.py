"""The laws that predict a linear model's spectrum, against the spectrum: Figure 10.

Nothing is fitted: the laws follow from the samples' curvatures alone.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hesspipe.random_matrices.generalized import GeneralizedLaw, outlier_positions
from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur
from hesspipe.tables.store import Result

Real = NDArray[np.float64]


def compare_with_laws(
    spectrum: Result,
    samples: Result,
    *,
    num_groups: int,
    num_positions: int,
    num_bins: int,
) -> tuple[Result, Result, Result]:
    """Predict a linear model's spectrum from its samples' curvatures, and measure the error.

    The generalized law is that of noise whose samples are weighted by their curvatures d_n; the
    outliers are those of the two directions in which the inputs are not noise. The plain law is
    that of Marchenko and Pastur scaled by the mean curvature, so that the two means agree.
    Softmax has one direction per feature without curvature: as many eigenvalues are zero, and
    the laws are those of the others.

    Parameters
    ----------
    spectrum, samples : Result
        From `hesspipe.experiments.linear_models.extract_linear_model`.
    num_groups : int
        Samples with neighboring curvatures are replaced by this many groups and their means; it
        must divide the number of samples.
    num_positions : int
        Rows of `law`, and the largest number of eigenvalues at which the distributions are
        compared.
    num_bins : int
        Rows of `histogram`.

    Returns
    -------
    law : Result
        position, density, cdf, plain_density, plain_cdf: over the bulk, of the d eigenvalues
        that softmax leaves, zeros included. The provenance adds num_zero_predicted, lower_edge,
        upper_edge, smallest, largest (of the bulk), distance and plain_distance
        (Kolmogorov-Smirnov, over the bulk).
    outliers : Result
        side, predicted, measured; ascending.
    histogram : Result
        lower, upper (a bin, in roots of eigenvalues), measured, density, plain_density: means
        over the bin, of the density of the root. See `_histogram`.
    """
    num_features = spectrum.provenance["num_features"]
    num_samples = spectrum.provenance["num_samples"]
    curvatures = samples.table["curvature"].to_numpy()
    law = GeneralizedLaw(
        num_features / num_samples, group_means(curvatures, num_groups), np.ones(1)
    )
    plain = MarchenkoPastur(num_features / num_samples, float(curvatures.mean()))
    left, right = outlier_positions(
        law, curvatures, samples.table[["along_data", "along_weights"]].to_numpy()
    )
    eigenvalues = spectrum.table["eigenvalue"].to_numpy()
    num_zero = len(eigenvalues) - min(num_features, num_samples)
    nonzero = eigenvalues[num_zero:]
    bulk = nonzero[len(left) : len(nonzero) - len(right)]
    lower, upper = law.edges()
    provenance = {
        **spectrum.provenance,
        "num_zero_predicted": num_zero,
        "lower_edge": lower,
        "upper_edge": upper,
        **_summarize(bulk, law, plain, num_positions),
    }
    low, high = max(lower, 1e-6 * upper), max(upper, plain.upper_edge)
    return (
        Result("law", _law_table(law, plain, low, high, num_positions), provenance),
        Result("law_outliers", _outlier_table(nonzero, left, right), provenance),
        Result(
            "law_histogram",
            _histogram(nonzero, law, plain, (lower, high), num_features, num_bins),
            provenance,
        ),
    )


def group_means(values: Real, num_groups: int) -> Real:
    """Average neighboring values, in groups of equal size.

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


def _summarize(
    bulk: Real, law: GeneralizedLaw, plain: MarchenkoPastur, num_positions: int
) -> dict[str, float]:
    """Give the ends of the measured bulk, and its Kolmogorov-Smirnov distances from the laws."""
    chosen = np.unique(np.linspace(0, len(bulk) - 1, num_positions).round().astype(int))
    return {
        "smallest": float(bulk[0]),
        "largest": float(bulk[-1]),
        "distance": _distance(law.cdf(bulk[chosen]), chosen, len(bulk), law.mass_at_zero),
        "plain_distance": _distance(plain.cdf(bulk[chosen]), chosen, len(bulk), plain.mass_at_zero),
    }


def _distance(cdf: Real, ranks: NDArray[np.int64], num_bulk: int, mass_at_zero: float) -> float:
    """Largest difference from the empirical distribution function, before or after its steps."""
    expected = (cdf - mass_at_zero) / (1 - mass_at_zero)
    return float(
        max(
            np.abs(expected - ranks / num_bulk).max(),
            np.abs(expected - (ranks + 1) / num_bulk).max(),
        )
    )


def _law_table(
    law: GeneralizedLaw, plain: MarchenkoPastur, low: float, high: float, num_positions: int
) -> pd.DataFrame:
    # Evenly spaced roots: dense toward zero, where a bulk may diverge as 1 / sqrt.
    position = np.linspace(math.sqrt(low), math.sqrt(high), num_positions) ** 2
    return pd.DataFrame(
        {
            "position": position,
            "density": law.density(position),
            "cdf": law.cdf(position),
            "plain_density": plain.density(position),
            "plain_cdf": plain.cdf(position),
        }
    )


def _outlier_table(nonzero: Real, left: Real, right: Real) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "side": ["left"] * len(left) + ["right"] * len(right),
            "predicted": np.concatenate([left, right]),
            "measured": np.concatenate(
                [nonzero[: len(left)], nonzero[len(nonzero) - len(right) :]]
            ),
        }
    )


def _histogram(
    nonzero: Real,
    law: GeneralizedLaw,
    plain: MarchenkoPastur,
    bulk: tuple[float, float],
    num_features: int,
    num_bins: int,
) -> pd.DataFrame:
    """Bin the roots of the eigenvalues that are not exactly zero, and what the laws predict.

    A law's exact mass in each bin, not its density at some points: where the curvatures of
    single samples are far apart, as the smallest ones for alpha > 1 are, the support has a
    narrow piece for each of them, with a mass of 1/N (Bai and Silverstein's exact separation).
    Such pieces are far narrower than a bin, and points miss them or meet their peaks by chance.
    All densities count per eigenvalue of the law, zeros included.
    """
    low, high = min(nonzero[0], bulk[0]), max(nonzero[-1], bulk[1])
    ends = np.linspace(math.sqrt(low), math.sqrt(high), num_bins + 1)
    widths = np.diff(ends)
    counts, _ = np.histogram(np.sqrt(nonzero), bins=ends)
    return pd.DataFrame(
        {
            "lower": ends[:-1],
            "upper": ends[1:],
            "measured": counts / (num_features * widths),
            "density": np.diff(law.cdf(ends**2)) / widths,
            "plain_density": np.diff(plain.cdf(ends**2)) / widths,
        }
    )
