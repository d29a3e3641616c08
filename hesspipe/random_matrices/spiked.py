"""Spiked models: sample covariances with a few large or small population eigenvalues.

The sample covariance is (1/N) X X^T with P x N entries of variance 1, except in a few directions
with another population eigenvalue (the strength, l in the paper). As in the paper, alpha = P / N.
Theorem 1 is about one spike, Theorem 2 about a bounded number of spikes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur


def separates(strength: float, aspect_ratio: float) -> bool:
    """Check whether a population eigenvalue creates an outlier of the sample covariance.

    Parameters
    ----------
    strength : float
        Population eigenvalue l, at least 0; the others are 1.
    aspect_ratio : float
        alpha = P / N.

    Returns
    -------
    bool
        True above 1 + sqrt(alpha), to the right of the bulk, and, for alpha < 1, below
        1 - sqrt(alpha), to its left. For alpha >= 1 nothing separates to the left.
    """
    _check(strength, aspect_ratio)
    return _room(strength, aspect_ratio) > 0


def sample_position(strength: float, aspect_ratio: float) -> float:
    """Compute the limit of the sample eigenvalue that belongs to a population eigenvalue.

    Parameters
    ----------
    strength : float
        Population eigenvalue l, at least 0; the others are 1.
    aspect_ratio : float
        alpha = P / N.

    Returns
    -------
    float
        l (1 + alpha / (l - 1)) where it separates; otherwise the nearest edge of
        the bulk, (1 + sqrt(alpha))^2 for l >= 1 and (1 - sqrt(alpha))^2 for l < 1.

    References
    ----------
    Baik, Ben Arous, Péché (2005); Baik, Silverstein (2006). The paper's Theorem 1.

    Examples
    --------
    >>> sample_position(3.0, 1.0), sample_position(1.5, 1.0)
    (4.5, 4.0)
    """
    if separates(strength, aspect_ratio):
        level = Fraction(float(strength))
        try:  # exactly: near a hard edge, 1 + alpha / (l - 1) is the rest of a cancellation
            return float(level * (1 + Fraction(float(aspect_ratio)) / (level - 1)))
        except OverflowError:
            raise ValueError(
                "strength and aspect_ratio must give a finite position, got "
                f"{strength} and {aspect_ratio}"
            ) from None
    law = MarchenkoPastur(aspect_ratio)
    return law.upper_edge if strength >= 1 else law.lower_edge


def eigenvector_overlap(strength: float, aspect_ratio: float) -> float:
    """Compute the squared cosine between the eigenvectors of an outlier and of the population.

    Parameters
    ----------
    strength : float
        Population eigenvalue l, at least 0; the others are 1.
    aspect_ratio : float
        alpha = P / N.

    Returns
    -------
    float
        (1 - alpha / (l - 1)^2) / (1 + alpha / (l - 1)), or 0 without an outlier.

    References
    ----------
    Paul (2007); Benaych-Georges, Nadakuditi (2011).

    Examples
    --------
    >>> eigenvector_overlap(3.0, 1.0)
    0.5
    """
    if not separates(strength, aspect_ratio):
        return 0.0
    room, excess = _room(strength, aspect_ratio), Fraction(float(strength)) - 1
    return float(room / (1 + Fraction(float(aspect_ratio)) / excess))


def position_deviation(strength: float, aspect_ratio: float, num_samples: int) -> float:
    """Compute the standard deviation of an outlier's position, to leading order in N.

    Parameters
    ----------
    strength : float
        Population eigenvalue l that separates; the others are 1.
    aspect_ratio : float
        alpha = P / N.
    num_samples : int
        N.

    Returns
    -------
    float
        l sqrt(2 (1 - alpha / (l - 1)^2) / N), for real Gaussian entries; for others it
        depends on the fourth moment.

    Raises
    ------
    ValueError
        If the population eigenvalue does not separate: its fluctuations are then those of an
        edge, see `edge_scaling`.

    References
    ----------
    Paul (2007), Theorem 3.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if not separates(strength, aspect_ratio):
        raise ValueError(
            f"strength must be more than sqrt(alpha) = {math.sqrt(aspect_ratio):g} away from 1, "
            f"got {strength}; below, the fluctuations are those of the edge (edge_scaling)"
        )
    return strength * math.sqrt(2 * float(_room(strength, aspect_ratio)) / num_samples)


def edge_scaling(num_parameters: int, num_samples: int) -> tuple[float, float]:
    """Compute center and width of the largest eigenvalue of a sample covariance without spikes.

    (largest - center) / width tends to the Tracy-Widom law with beta = 1. With the shifts
    by 1/2, the error is of order N^(-2/3) instead of N^(-1/3).

    Parameters
    ----------
    num_parameters, num_samples : int
        P and N, both at least 1; alpha = P / N.

    Returns
    -------
    center, width : float
        The center tends to (1 + sqrt(alpha))^2; the width shrinks as N^(-2/3).

    References
    ----------
    Johnstone (2001); Ma (2012).
    """
    _check_sizes(num_parameters, num_samples)
    root_p, root_n = math.sqrt(num_parameters - 0.5), math.sqrt(num_samples - 0.5)
    center = (root_p + root_n) ** 2 / num_samples
    width = (root_p + root_n) * (1 / root_p + 1 / root_n) ** (1 / 3) / num_samples
    return center, width


@dataclass(frozen=True)
class SpectrumPicture:
    """Parts of the spectrum of a sample covariance with a few spikes (Theorem 2).

    Attributes
    ----------
    num_zeros : int
        P - N if P > N, or the number of strengths that are 0 if there are more of these.
    num_bulk : int
        Eigenvalues distributed by the Marchenko-Pastur law with alpha = P / N.
    left_outliers, right_outliers : ndarray
        Limits of the positions below and above the bulk, ascending, without the zeros.
    """

    num_zeros: int
    num_bulk: int
    left_outliers: NDArray[np.float64]
    right_outliers: NDArray[np.float64]


def spectrum_picture(
    strengths: Sequence[float], num_parameters: int, num_samples: int
) -> SpectrumPicture:
    """Predict the whole spectrum for a perturbation of bounded rank.

    Parameters
    ----------
    strengths : sequence of float
        Population eigenvalues other than 1, at least 0.
    num_parameters, num_samples : int
        P and N; alpha = P / N.

    Returns
    -------
    SpectrumPicture
        Its four numbers of eigenvalues add up to P.

    References
    ----------
    Bloemendal et al. (2016). The paper's Theorem 2.

    Examples
    --------
    >>> picture = spectrum_picture([9.0, 0.25, 1.1], num_parameters=100, num_samples=400)
    >>> picture.num_zeros, picture.num_bulk, picture.left_outliers, picture.right_outliers
    (0, 98, array([0.16666667]), array([9.28125]))
    """
    _check_sizes(num_parameters, num_samples)
    if len(strengths) > min(num_parameters, num_samples):
        raise ValueError(
            f"strengths must be at most min(P, N) = {min(num_parameters, num_samples)}, "
            f"got {len(strengths)}"
        )
    aspect_ratio = num_parameters / num_samples
    found = sorted(
        (strength > 1, sample_position(strength, aspect_ratio))
        for strength in strengths
        if separates(strength, aspect_ratio) and strength > 0
    )
    # A direction of strength 0 has no samples' part: the rank is at most P - their number, and N.
    num_zeros = max(num_parameters - num_samples, sum(strength == 0 for strength in strengths))
    return SpectrumPicture(
        num_zeros,
        num_parameters - num_zeros - len(found),
        np.array([position for is_right, position in found if not is_right]),
        np.array([position for is_right, position in found if is_right]),
    )


def _room(strength: float, aspect_ratio: float) -> Fraction:
    """Evaluate 1 - alpha / (l - 1)^2, positive where l separates, exactly."""
    excess = Fraction(float(strength)) - 1
    if excess == 0:
        return Fraction(-1)
    return 1 - Fraction(float(aspect_ratio)) / excess**2


def _check_sizes(num_parameters: int, num_samples: int) -> None:
    if not (num_parameters >= 1 and num_samples >= 1):
        raise ValueError(
            f"num_parameters and num_samples must be at least 1, got {num_parameters} "
            f"and {num_samples}"
        )
    if num_parameters != int(num_parameters) or num_samples != int(num_samples):
        raise ValueError(
            f"num_parameters and num_samples must be whole numbers, got {num_parameters} "
            f"and {num_samples}"
        )


def _check(strength: float, aspect_ratio: float) -> None:
    if not (strength >= 0 and math.isfinite(strength)):
        raise ValueError(f"strength must be at least 0 and finite, got {strength}")
    if not (aspect_ratio > 0 and math.isfinite(aspect_ratio)):
        raise ValueError(f"aspect_ratio must be positive and finite, got {aspect_ratio}")
