"""Counts of outlier eigenvalues above the bulk of a spectrum, by three rules.

The paper counts outliers by the "largest consecutive gap, largest consecutive ratio, and a
heuristic method of determining the threshold by searching for the elbow in the scree plot"
(Appendix A), and does not specify them further. Here, with the eigenvalues in descending order
mu_1 >= mu_2 >= ...:

candidates  The `num_candidates` largest eigenvalues, and of these only the positive ones
            above eps * P * max|eigenvalue|. Without the first limit the largest ratio lies
            where a positive tail meets the rounding around zero, three thousand ranks away
            from any outlier; without the second it may be infinite.
gap         the i that maximizes mu_i - mu_(i+1); the cutoff is the middle of the gap
ratio       the i that maximizes mu_i / mu_(i+1); the cutoff is their geometric mean
elbow       the scree plot's point i + 1 farthest below the straight line from its first to its
            last candidate, which is where the difference curve of Satopaa et al. (2011) has its
            maximum; the cutoff is mu_(i+1) itself, as Cattell (1966) counts the factors before
            the elbow

The number of outliers is always the number of eigenvalues strictly above the cutoff. Of equal
gaps, ratios or distances the first one wins: the fewest outliers. Where all candidates are
equal, or fewer than two are left, there are none. Equal means up to rounding, so that counts do
not depend on the unit: 0.1, 0.2, 0.3 have two equal gaps, as 1, 2, 3 have.

Zeros, and what is not told apart from them, are not candidates: nothing of a spectrum of zeros
and equal eigenvalues says how far apart they are, and 0, ..., 0, 5, 5, 5 has no outliers by any
rule. A bulk that is small but not zero is one: 1e-9, ..., 1e-9, 5, 5, 5 has three.

References
----------
Cattell (1966), The scree test for the number of factors, Multivariate Behavioral Research 1.
Satopaa, Albrecht, Irwin, Raghavan (2011), Finding a "kneedle" in a haystack, ICDCS Workshops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hesspipe.plots.plotted import Plotted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hesspipe.linalg.spectrum import Spectrum

OutlierRule = Literal["gap", "ratio", "elbow"]

# As many as Figure 3 of the paper shows; no network of the paper has more outliers.
NUM_CANDIDATES = 120
# Numbers that are equal in exact arithmetic differ by less, relative to the largest.
_ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class OutlierCount(Plotted):
    """The number of outliers by a rule, and its cutoff.

    `plot` draws the largest eigenvalues, those above the cutoff in another color, and the cutoff.

    Attributes
    ----------
    num_outliers : int
        Eigenvalues strictly above the cutoff.
    cutoff : float
        In the eigenvalues' unit.
    rule : str
    largest : array, shape (n,)
        The eigenvalues that were considered, descending: at most num_candidates.
    matrix : str
        That of the spectrum: "hessian", "ggn" or "residual", or "operator" if it is not known.
    provenance : mapping
        What decided the numbers, as far as it is known, and the labels that it was saved with.
    """

    num_outliers: int
    cutoff: float
    rule: str
    largest: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros(0), repr=False, compare=False
    )
    matrix: str = field(default="operator", repr=False, compare=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.spectra import plot_outliers

        return plot_outliers(ax, self.largest, self.cutoff, self.num_outliers, self.rule)


def count_outliers(
    eigenvalues: ArrayLike | Spectrum,
    rule: OutlierRule = "gap",
    *,
    num_candidates: int = NUM_CANDIDATES,
) -> OutlierCount:
    """Count the eigenvalues that stand apart above the bulk.

    Parameters
    ----------
    eigenvalues : Spectrum, or array_like, shape (P,)
        Finite, ascending: a whole spectrum.
    rule : {"gap", "ratio", "elbow"}
        Whether the cutoff is in the largest gap, in the largest ratio of two consecutive
        eigenvalues, or at the elbow of the scree plot; the docstring of `hesspipe.outliers` has
        the definitions. The outliers of a network's Hessian spread over
        decades; the largest gap is then often one between outliers, where the largest ratio is
        the one below them.
    num_candidates : int
        Number of the largest eigenvalues that are considered, at least 2.

    Returns
    -------
    OutlierCount

    Raises
    ------
    ValueError
        If the eigenvalues are not one-dimensional, finite and ascending, or the rule is
        unknown.

    Examples
    --------
    >>> count_outliers([0.0, 0.01, 0.02, 0.03, 2.0, 3.0], rule="ratio").num_outliers
    2
    """
    if not isinstance(rule, str) or rule not in _RULES:
        raise ValueError(f"rule must be one of {sorted(_RULES)}, got {rule!r}")
    if not isinstance(num_candidates, int | np.integer):
        raise TypeError(f"num_candidates must be a whole number, got {num_candidates}")
    if num_candidates < 2:
        raise ValueError(f"num_candidates must be at least 2, got {num_candidates}")
    given: Any = eigenvalues
    matrix = str(getattr(given, "matrix", "operator"))
    values = _checked(getattr(given, "eigenvalues", given))
    descending = _candidates(values, num_candidates)
    if len(descending) < 2 or descending[0] - descending[-1] <= _ROUNDING * descending[0]:
        cutoff = float(values[-1]) if len(values) else 0.0
    else:
        cutoff = _RULES[rule](descending)
    largest = values[::-1][:num_candidates].copy()
    return OutlierCount(int((values > cutoff).sum()), cutoff, rule, largest, matrix)


def _checked(eigenvalues: ArrayLike) -> NDArray[np.float64]:
    if np.iscomplexobj(eigenvalues):
        raise ValueError("eigenvalues must be real, got complex numbers; pass their real parts")
    values = np.asarray(eigenvalues, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"eigenvalues must have shape (P,), got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(
            f"eigenvalues must be finite, got {np.sum(~np.isfinite(values))} that are not"
        )
    if (np.diff(values) < 0).any():
        raise ValueError("eigenvalues must be in ascending order; sort them first")
    return values


def _candidates(values: NDArray[np.float64], num_candidates: int) -> NDArray[np.float64]:
    """The largest eigenvalues that are positive beyond rounding, descending."""
    if len(values) == 0:
        return values
    floor = np.finfo(np.float64).eps * len(values) * np.abs(values).max()
    largest = values[::-1][:num_candidates]
    return np.extract(largest > floor, largest)


def _gap_cutoff(descending: NDArray[np.float64]) -> float:
    last = _first_largest(descending[:-1] - descending[1:], descending[0])
    upper, lower = descending[last : last + 2]
    return _below(upper, lower + (upper - lower) / 2, lower)


def _ratio_cutoff(descending: NDArray[np.float64]) -> float:
    ratios = descending[:-1] / descending[1:]
    last = _first_largest(ratios, ratios.max())
    upper, lower = descending[last : last + 2]
    return _below(upper, np.sqrt(upper) * np.sqrt(lower), lower)


def _below(upper: float, middle: float, lower: float) -> float:
    """The middle of two neighbors; the lower one if rounding makes it equal to the upper."""
    return float(middle if middle < upper else lower)


def _elbow_cutoff(descending: NDArray[np.float64]) -> float:
    chord = np.linspace(descending[0], descending[-1], len(descending))
    return float(descending[_first_largest(chord - descending, descending[0])])


def _first_largest(values: NDArray[np.float64], scale: float) -> int:
    """The first of those that are the largest up to rounding."""
    return int(np.argmax(values >= values.max() - _ROUNDING * scale))


_RULES = {"gap": _gap_cutoff, "ratio": _ratio_cutoff, "elbow": _elbow_cutoff}
