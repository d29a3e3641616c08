"""Sampled spiked models: the experiments behind Theorems 1 and 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hesspipe.forecasts import spiked_spectra_bytes, spikes_bytes
from hesspipe.hardware import require
from hesspipe.seeding import derive_seed

if TYPE_CHECKING:
    import pandas as pd

# The largest eigenvector of the tridiagonal matrix decays within a few times N^(1/3) entries;
# with this factor, the eigenvalue is exact to rounding (a test).
_NUM_DECAY_LENGTHS = 30


def largest_eigenpair(
    strength: float,
    num_parameters: int,
    num_samples: int,
    rng: np.random.Generator,
    num_rows: int | None = None,
) -> tuple[float, float]:
    """Draw the largest eigenvalue of a sample covariance with one spike.

    Householder reflections turn a Gaussian matrix, spiked in its first row, into a bidiagonal
    one whose entries are independent chi variables, and leave the first direction in place.
    So a draw from the exact distribution costs O(N^(1/3)) instead of O(N^3), and thousands of
    draws at large N show fluctuations that a few dense matrices cannot.

    Parameters
    ----------
    strength : float
        Population eigenvalue l of the first direction; the others are 1.
    num_parameters, num_samples : int
        P and N; alpha = P / N.
    rng : numpy Generator
    num_rows : int, optional
        Kept rows of the tridiagonal matrix; by default enough for full accuracy.

    Returns
    -------
    eigenvalue : float
    overlap : float
        Squared cosine between its eigenvector and the first direction.

    References
    ----------
    Dumitriu, Edelman (2002), for the bidiagonal form; Edelman, Persson (2005), for the number
    of rows; Bloemendal, Virág (2013), for the spike.
    """
    from scipy.linalg import eigh_tridiagonal

    _check(num_parameters, num_samples, [strength])
    if num_rows is None:
        num_rows = math.ceil(_NUM_DECAY_LENGTHS * num_samples ** (1 / 3))
    if num_rows < 1:
        raise ValueError(f"num_rows must be at least 1, got {num_rows}")
    num_rows = min(num_rows, num_parameters, num_samples)
    diagonal = np.sqrt(rng.chisquare(num_samples - np.arange(num_rows)))
    below = np.zeros(num_rows)
    # Where P > N, the last row of all has an entry below the diagonal and none on it.
    freedoms = num_parameters - 1 - np.arange(num_rows)
    below[freedoms > 0] = np.sqrt(rng.chisquare(freedoms[freedoms > 0]))
    diagonal[0] *= math.sqrt(strength)
    squares = diagonal**2
    if num_parameters > num_samples == num_rows:
        squares, diagonal = np.append(squares, 0.0), np.append(diagonal, 0.0)
        below = np.append(below, 0.0)
    last = len(squares) - 1
    squares[1:] += below[:-1] ** 2
    values, vectors = eigh_tridiagonal(
        squares / num_samples,
        (diagonal * below)[:-1] / num_samples,
        select="i",
        select_range=(last, last),
    )
    return float(values[0]), float(vectors[0, 0] ** 2)


def sample_largest(
    *,
    strengths: Sequence[float],
    num_samples: Sequence[int],
    aspect_ratio: float,
    num_repeats: int,
    seed: int,
) -> pd.DataFrame:
    """Draw the largest eigenvalue for several strengths and sizes.

    Parameters
    ----------
    strengths : sequence of float
        Population eigenvalues l.
    num_samples : sequence of int
        N; P = alpha N, rounded.
    aspect_ratio : float
        alpha = P / N.
    num_repeats : int
        Draws for each.
    seed : int

    Returns
    -------
    DataFrame
        num_parameters, num_samples, strength, repeat, eigenvalue, overlap.
    """
    import pandas as pd  # of the extra "workflow": only the pipeline needs tables

    num_draws = len(num_samples) * len(strengths) * num_repeats
    require(
        spikes_bytes(num_draws),
        f"a table of {num_draws:,} draws",
        "use fewer repeats, strengths or sizes",
    )
    rows = []
    for size in num_samples:
        num_parameters = round(aspect_ratio * size)
        _check(num_parameters, size, strengths)
        for strength in strengths:
            rng = np.random.default_rng(derive_seed(seed, f"spike {strength} of {size} samples"))
            for repeat in range(num_repeats):
                pair = largest_eigenpair(strength, num_parameters, size, rng)
                rows.append((num_parameters, size, strength, repeat, *pair))
    columns = ["num_parameters", "num_samples", "strength", "repeat", "eigenvalue", "overlap"]
    return pd.DataFrame(rows, columns=columns)


def sample_spectra(
    *,
    strengths: Sequence[float],
    num_parameters: int,
    num_samples: int,
    num_repeats: int,
    seed: int,
) -> pd.DataFrame:
    """Draw whole spectra of a sample covariance with several spikes.

    Parameters
    ----------
    strengths : sequence of float
        Population eigenvalues other than 1, of the first directions.
    num_parameters, num_samples : int
        P and N; alpha = P / N.
    num_repeats : int
        Independent matrices.
    seed : int

    Returns
    -------
    DataFrame
        repeat, rank (0 = smallest), eigenvalue; P rows per repeat; zeros as computed.
    """
    import pandas as pd

    _check(num_parameters, num_samples, strengths)
    if len(strengths) > num_parameters or num_repeats < 1:
        raise ValueError(
            f"strengths must be at most P = {num_parameters} and num_repeats at least 1, got "
            f"{len(strengths)} and {num_repeats}"
        )
    require(
        spiked_spectra_bytes(num_parameters, num_samples, num_repeats),
        f"{num_repeats:,} spectra of {num_parameters:,} parameters and {num_samples:,} samples",
        "use fewer parameters, samples or repeats",
    )
    rng = np.random.default_rng(derive_seed(seed, "spiked spectra"))
    roots = np.ones(num_parameters)
    roots[: len(strengths)] = np.sqrt(strengths)
    parts = []
    for repeat in range(num_repeats):
        entries: NDArray[np.float64] = rng.standard_normal((num_parameters, num_samples))
        entries *= roots[:, None]
        values = np.linalg.eigvalsh(entries @ entries.T / num_samples)
        parts.append(
            pd.DataFrame(
                {"repeat": repeat, "rank": np.arange(num_parameters), "eigenvalue": values}
            )
        )
    return pd.concat(parts, ignore_index=True)


def _check(num_parameters: int, num_samples: int, strengths: Sequence[float]) -> None:
    if not (num_parameters >= 1 and num_samples >= 1):
        raise ValueError(
            "num_parameters (alpha N, rounded) and num_samples must be at least 1, got "
            f"{num_parameters} and {num_samples}"
        )
    for strength in strengths:
        if not (strength >= 0 and math.isfinite(strength)):
            raise ValueError(f"strengths must be at least 0 and finite, got {strength}")
