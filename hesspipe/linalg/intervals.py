"""What a spectral density tells, as intervals that hold with a stated confidence.

Numbers of eigenvalues are intervals, too: `hesspipe.linalg.counts.Count`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hesspipe.plots.plotted import Plotted
from hesspipe.summaries import ends, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Distribution(Plotted):
    """Shares of the eigenvalues up to some points, as intervals.

    `plot` draws the shares in the band of their intervals.

    Attributes
    ----------
    low, high : Tensor, shape (n,)
        Each interval holds the share with the stated confidence.
    estimate : Tensor, shape (n,)
    confidence : float
    points : Tensor, shape (n,)
    """

    low: Tensor
    high: Tensor
    estimate: Tensor
    confidence: float
    points: Tensor

    def __repr__(self) -> str:
        return summary(
            "Distribution",
            points=ends(self.points),
            low=ends(self.low),
            high=ends(self.high),
            estimate=ends(self.estimate),
            confidence=self.confidence,
        )

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.densities import plot_distribution

        band = self.low.numpy(), self.high.numpy()
        return plot_distribution(
            ax, self.points.numpy(), self.estimate.numpy(), band, self.confidence
        )


@dataclass(frozen=True)
class Curve(Plotted):
    """A smoothed density on a grid, as intervals.

    `plot` draws it in the band of its intervals, on a logarithmic axis.

    Attributes
    ----------
    low, high : Tensor, shape (n,)
        Each interval holds the smoothed density of the eigenvalues with the stated confidence.
    estimate : Tensor, shape (n,)
        Mean of the probes' quadratures, which integrates to 1. At a single eigenvalue, which the
        interval knows from its converged Ritz value, it may be outside.
    standard_error : Tensor, shape (n,)
        Of that mean, nan for one probe. Three of them hold in 90 % of the cases only for 3 probes.
    confidence : float
    grid : Tensor, shape (n,)
    width : float
        Standard deviation of the Gaussian.
    matrix : str
    dim : int, optional
        P.
    provenance : mapping
        What decided the numbers, as far as it is known, and the labels that it was saved with.
    """

    low: Tensor
    high: Tensor
    estimate: Tensor
    standard_error: Tensor
    confidence: float
    grid: Tensor
    width: float
    matrix: str
    dim: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return summary(
            "Curve",
            matrix=str(self.matrix),
            grid=ends(self.grid),
            width=self.width,
            low=ends(self.low),
            high=ends(self.high),
            estimate=ends(self.estimate),
            standard_error=ends(self.standard_error),
            confidence=self.confidence,
        )

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.densities import plot_density

        band = self.low.numpy(), self.high.numpy()
        values, heights = self.grid.numpy(), self.estimate.numpy()
        return plot_density(ax, values, heights, band, self.confidence, self.matrix)


@dataclass(frozen=True)
class Moment(Plotted):
    """The trace of a power of the matrix, as an interval.

    `plot` draws it in its interval.

    Attributes
    ----------
    low, high : float
        They hold the trace with the stated confidence.
    estimate : float
        Mean of the probes' quadratures, within the interval.
    standard_error : float
        Of that mean, nan for one probe. Three of them hold in 78 to 91 % of the cases only for 3
        probes.
    confidence : float
    """

    low: float
    high: float
    estimate: float
    standard_error: float
    confidence: float

    def __repr__(self) -> str:
        return summary(
            "Moment",
            low=self.low,
            high=self.high,
            estimate=self.estimate,
            standard_error=self.standard_error,
            confidence=self.confidence,
        )

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.estimates import plot_estimates
        from hesspipe.plots.style import interval_label

        what = interval_label(self.confidence)
        bounds = [(self.low, self.high)]
        return plot_estimates(ax, ["moment"], [self.estimate], bounds, what, "trace of the power")
