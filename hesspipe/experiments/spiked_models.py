"""Spiked models sampled and compared with Theorems 1 and 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hesspipe.random_matrices.sampling import sample_largest, sample_spectra
from hesspipe.random_matrices.spiked import (
    edge_scaling,
    eigenvector_overlap,
    position_deviation,
    sample_position,
    separates,
    spectrum_picture,
)
from hesspipe.random_matrices.tracy_widom import tracy_widom_cdf
from hesspipe.tables.store import Result

Real = NDArray[np.float64]

_TRACY_WIDOM_MEAN = -1.2065335745820  # Bornemann (2010), Table 3, beta = 1
_TRACY_WIDOM_VARIANCE = 1.607781034581  # the same table


def sample_spikes(*, name: str, entry: Mapping[str, Any]) -> tuple[Result, Result, Result]:
    """Draw the largest eigenvalue across the transition, and compare it with Theorem 1.

    Parameters
    ----------
    name : str
        Of the entry of random_matrices in config.yaml.
    entry : mapping
        The arguments of `hesspipe.random_matrices.sampling.sample_largest`, and `kind`.

    Returns
    -------
    spikes : Result
        num_parameters, num_samples, strength, repeat, eigenvalue, overlap.
    positions : Result
        See `compare_positions`.
    fluctuations : Result
        See `standardize_largest`.
    """
    spikes = sample_largest(**{key: entry[key] for key in entry if key != "kind"})
    provenance = {"name": name, "entry": dict(entry)}
    return (
        Result("spikes", spikes, provenance),
        Result("positions", compare_positions(spikes), provenance),
        Result("fluctuations", standardize_largest(spikes), provenance),
    )


def sample_spiked_spectra(*, name: str, entry: Mapping[str, Any]) -> tuple[Result, Result]:
    """Draw whole spectra with a few spikes, and compare them with Theorem 2.

    Parameters
    ----------
    name : str
        Of the entry of random_matrices in config.yaml.
    entry : mapping
        The arguments of `hesspipe.random_matrices.sampling.sample_spectra`, and `kind`.

    Returns
    -------
    spectra : Result
        repeat, rank (0 = smallest), eigenvalue.
    parts : Result
        See `compare_parts`.
    """
    settings = {key: entry[key] for key in entry if key != "kind"}
    provenance = {**settings, "name": name}
    spectra = Result("spiked_spectra", sample_spectra(**settings), provenance)
    return spectra, Result("parts", compare_parts(spectra), provenance)


def compare_positions(samples: pd.DataFrame) -> pd.DataFrame:
    """Compare the largest eigenvalue with Theorem 1, for each size and strength.

    The tests are Kolmogorov-Smirnov's, one-sample, two-sided, against laws in which nothing is
    fitted: below the transition the Tracy-Widom law with Johnstone's centering and scaling,
    above it the Gaussian of Paul's theorem.

    Parameters
    ----------
    samples : DataFrame
        num_parameters, num_samples, strength, repeat, eigenvalue, overlap.

    Returns
    -------
    DataFrame
        num_parameters, num_samples, strength, separates, predicted, mean, standard_error,
        finite_size_error (what the mean may differ by at this size: below the transition the
        Tracy-Widom law's mean, of order N^(-2/3); above, the fluctuation of one matrix, of
        order N^(-1/2)), deviation, deviation_predicted, overlap, overlap_predicted, law,
        distance, p_value, other_distance (from the other law).
    """
    keys = ["num_parameters", "num_samples", "strength"]
    return pd.DataFrame([_position(group) for _, group in samples.groupby(keys, sort=False)])


def standardize_largest(samples: pd.DataFrame) -> pd.DataFrame:
    """Standardize the draws at the largest size, for each strength.

    Parameters
    ----------
    samples : DataFrame
        As in `compare_positions`.

    Returns
    -------
    DataFrame
        strength, law, standardized (ascending for each strength), cdf (of the law that they
        should follow).
    """
    from scipy.stats import norm

    largest = samples[samples["num_samples"] == samples["num_samples"].max()]
    parts = []
    for strength in map(float, largest["strength"].unique()):
        draws = largest[largest["strength"] == strength].sort_values("eigenvalue")
        sizes = int(draws["num_parameters"].iloc[0]), int(draws["num_samples"].iloc[0])
        ratio = sizes[0] / sizes[1]
        is_outlier = separates(strength, ratio)
        middle, scale = edge_scaling(*sizes)
        if is_outlier:
            middle = sample_position(strength, ratio)
            scale = position_deviation(strength, ratio, sizes[1])
        standardized = (draws["eigenvalue"].to_numpy() - middle) / scale
        parts.append(
            pd.DataFrame(
                {
                    "strength": strength,
                    "law": "gaussian" if is_outlier else "tracy_widom",
                    "standardized": standardized,
                    "cdf": norm.cdf(standardized) if is_outlier else _tracy_widom()(standardized),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def compare_parts(spectra: Result) -> pd.DataFrame:
    """Compare the parts of whole spectra with Theorem 2.

    Parameters
    ----------
    spectra : Result
        repeat, rank, eigenvalue, with name, strengths, num_parameters and num_samples in the
        provenance.

    Returns
    -------
    DataFrame
        name, num_parameters, num_samples, part, predicted, mean, standard_error, spread. For
        part "zeros", the number of them; "left_outlier" and "right_outlier", one row each, their
        positions; "lower_edge" and "upper_edge", the ends of the rest.
    """
    about = spectra.provenance
    return pd.DataFrame(
        [
            {
                "name": about["name"],
                "num_parameters": about["num_parameters"],
                "num_samples": about["num_samples"],
                "part": part,
                "predicted": predicted,
                "mean": float(np.mean(values)),
                "standard_error": float(np.std(values, ddof=1) / len(values) ** 0.5),
                "spread": float(np.std(values, ddof=1)),
            }
            for part, predicted, values in _parts(spectra)
        ]
    )


def _position(group: pd.DataFrame) -> dict[str, object]:
    from scipy.stats import kstest

    num_parameters = int(group["num_parameters"].iloc[0])
    num_samples = int(group["num_samples"].iloc[0])
    strength, ratio = float(group["strength"].iloc[0]), num_parameters / num_samples
    values = group["eigenvalue"].to_numpy()
    center, width = edge_scaling(num_parameters, num_samples)
    is_outlier = separates(strength, ratio)
    predicted = sample_position(strength, ratio)
    deviation = (
        position_deviation(strength, ratio, num_samples)
        if is_outlier
        else _TRACY_WIDOM_VARIANCE**0.5 * width
    )
    edge_test = kstest((values - center) / width, _tracy_widom())
    scale = deviation if is_outlier else values.std(ddof=1)
    middle = predicted if is_outlier else values.mean()
    gaussian_test = kstest((values - middle) / scale, "norm")
    test, other = (gaussian_test, edge_test) if is_outlier else (edge_test, gaussian_test)
    return {
        "num_parameters": num_parameters,
        "num_samples": num_samples,
        "strength": strength,
        "separates": is_outlier,
        "predicted": predicted,
        "mean": values.mean(),
        "standard_error": values.std(ddof=1) / len(values) ** 0.5,
        "finite_size_error": deviation if is_outlier else -_TRACY_WIDOM_MEAN * width,
        "deviation": values.std(ddof=1),
        "deviation_predicted": deviation,
        "overlap": group["overlap"].mean(),
        "overlap_predicted": eigenvector_overlap(strength, ratio),
        "law": "gaussian" if is_outlier else "tracy_widom",
        "distance": test.statistic,
        "p_value": test.pvalue,
        "other_distance": other.statistic,
    }


@cache
def _tracy_widom() -> Callable[[Any], Any]:
    """The law on a grid, 1e-5 from its determinant: a determinant a draw would cost minutes."""
    from scipy.interpolate import PchipInterpolator

    # Outside, the law is 0 or 1 to ten digits.
    grid = np.linspace(-10, 8, 241)
    values = PchipInterpolator(grid, tracy_widom_cdf(grid))
    return lambda s: np.asarray(values(np.clip(s, grid[0], grid[-1])))


def _parts(spectra: Result) -> list[tuple[str, float, Real]]:
    """List each part's prediction, and its value in each repeat."""
    about = spectra.provenance
    num_parameters, num_samples = about["num_parameters"], about["num_samples"]
    picture = spectrum_picture(about["strengths"], num_parameters, num_samples)
    values = spectra.table["eigenvalue"].to_numpy().reshape(-1, num_parameters)  # (repeats, P)
    # The backward error of a dense symmetric solver, as for the spectra of networks.
    noise = np.finfo(np.float64).eps * num_parameters * values.max(1, keepdims=True)
    zeros = (np.abs(values) <= noise).sum(1).astype(np.float64)
    root = (num_parameters / num_samples) ** 0.5
    first = picture.num_zeros + len(picture.left_outliers)
    last = num_parameters - len(picture.right_outliers)
    return [
        ("zeros", float(picture.num_zeros), zeros),
        *(
            ("left_outlier", float(position), values[:, picture.num_zeros + index])
            for index, position in enumerate(picture.left_outliers)
        ),
        ("lower_edge", (1 - root) ** 2, values[:, first]),
        ("upper_edge", (1 + root) ** 2, values[:, last - 1]),
        *(
            ("right_outlier", float(position), values[:, last + index])
            for index, position in enumerate(picture.right_outliers)
        ),
    ]
