"""The spectral density of a symmetric operator by stochastic Lanczos quadrature.

A random start vector has, on average, the same share of each eigenvector. The eigenvalues of its
Lanczos matrix, weighted by the squares of the first entries of their eigenvectors, are a Gauss
quadrature of the density with these shares: nodes and weights. Several probes give an average and
a standard error, and bounds on the numbers of eigenvalues (`hesspipe.linalg.counts`).

References
----------
Golub, Meurant (2010), Matrices, Moments and Quadrature, chapter 6; Ubaru, Chen, Saad (2017), Fast
Estimation of tr(f(A)) via Stochastic Lanczos Quadrature; Ghorbani, Krishnan, Xiao (2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.hardware import require
from hesspipe.imports import require_packages
from hesspipe.linalg import means
from hesspipe.linalg.arguments import require_integer, require_number
from hesspipe.linalg.counts import Count, Floats, Sample
from hesspipe.linalg.lanczos import Tridiagonalization, tridiagonalize
from hesspipe.linalg.operator import SymmetricProduct, random_normal, symmetric_product
from hesspipe.linalg.radau import Rules
from hesspipe.progress import bar_options
from hesspipe.seeding import generator
from hesspipe.summaries import ends, layout, summary
from hesspipe.tolerances import NUM_ROUNDINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Defaults for a quick look; Ghorbani, Krishnan, Xiao (2019) took 10 probes of 90 steps.
NUM_PROBES = 3
NUM_STEPS = 80
# Default: one interval of a thousand fails, so that a table of a hundred rarely has one that does.
CONFIDENCE = 0.999
# Shift of an eigenvalue over the largest asymmetry of a step: the norm of a matrix of as many
# columns, if they are independent, is a few times the largest.
_ASYMMETRIES = 4.0
# A Gaussian has fallen to 1e-5 of its peak at five widths, so that peaks at the ends of a grid
# are not cut off.
_MARGIN_IN_WIDTHS = 5.0
# Of a plot: the width that the gallery's figures have, and a few points in each.
RELATIVE_WIDTH = 0.01
NUM_POINTS = 500


@dataclass(frozen=True)
class Distribution:
    """Shares of the eigenvalues up to some points, as intervals.

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

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the shares in the band of their intervals.

        Parameters
        ----------
        ax : Axes of matplotlib, optional
            By default those of a new figure.

        Returns
        -------
        Axes
        """
        require_packages("matplotlib", purpose="plot")
        from hesspipe.plots.densities import plot_distribution

        band = self.low.numpy(), self.high.numpy()
        return plot_distribution(
            ax, self.points.numpy(), self.estimate.numpy(), band, self.confidence
        )


@dataclass(frozen=True)
class Curve:
    """A smoothed density on a grid, as intervals.

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
    """

    low: Tensor
    high: Tensor
    estimate: Tensor
    standard_error: Tensor
    confidence: float
    grid: Tensor
    width: float
    matrix: str

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

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the smoothed density in the band of its intervals, on a logarithmic axis.

        Parameters
        ----------
        ax : Axes of matplotlib, optional
            By default those of a new figure.

        Returns
        -------
        Axes
        """
        require_packages("matplotlib", purpose="plot")
        from hesspipe.plots.densities import plot_density

        band = self.low.numpy(), self.high.numpy()
        values, heights = self.grid.numpy(), self.estimate.numpy()
        return plot_density(ax, values, heights, band, self.confidence, self.matrix)


@dataclass(frozen=True)
class Moment:
    """The trace of a power of the matrix, as an interval.

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


@dataclass(frozen=True)
class Density:
    """A spectral density as quadrature nodes and weights, one row per probe.

    Densities, counts and moments are computed from them, so that a width or a threshold can be
    chosen later. All of them come as intervals.

    Attributes
    ----------
    nodes : Tensor, shape (probes, steps)
        float64, on the CPU, ascending in each row.
    weights : Tensor, shape (probes, steps)
        Shares of the P eigenvalues; each row sums to 1. If the Krylov space of a probe is smaller
        than num_steps, its row is padded with weights of 0.
    couplings : Tensor, shape (probes, steps)
        See `hesspipe.linalg.radau.Rules`; their absolute values are the residual norms of the
        Ritz vectors.
    squared_lengths : Tensor, shape (probes,)
        Of the Gaussian vectors whose directions the start vectors are.
    overlaps : Tensor, shape (probes - 1, steps)
        Scalar products of the other start vectors with the Ritz vectors of the last probe.
    dim : int
        P.
    matrix : str
        Name of the operator: "hessian", "ggn" or "residual", or "operator" for any other.
    num_products : int
    eps : float
        Machine epsilon of the dtype of the products.
    asymmetry : float
        Rounding of the products as Lanczos saw it; see
        `hesspipe.linalg.lanczos.Tridiagonalization`.
    provenance : mapping
        What decided the numbers, as far as it is known, for `hesspipe.save`: the settings, the
        dtype, and of an objective the number of samples.
    """

    nodes: Tensor
    weights: Tensor
    couplings: Tensor
    squared_lengths: Tensor
    overlaps: Tensor
    dim: int
    matrix: str
    num_products: int
    eps: float = torch.finfo(torch.float64).eps
    asymmetry: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return summary(
            "Density",
            matrix=str(self.matrix),
            num_parameters=self.dim,
            num_probes=len(self.nodes),
            nodes=layout(self.nodes),
            smallest_node=float(self.nodes.min()),
            largest_node=float(self.nodes.max()),
            resolution=self.resolution,
            num_products=self.num_products,
        )

    def plot(
        self,
        ax: Axes | None = None,
        *,
        width: float | None = None,
        num_points: int = NUM_POINTS,
        confidence: float = CONFIDENCE,
    ) -> Axes:
        """Draw the density, smoothed by a Gaussian, in the band of its intervals.

        Parameters
        ----------
        ax : Axes of matplotlib, optional
            By default those of a new figure.
        width : float, optional
            Standard deviation of the Gaussian, by default a hundredth of the distance between the
            smallest and the largest node; a larger one has a narrower band.
        num_points : int
            Of the grid, which spans all nodes and five widths beyond.
        confidence : float
            Of the interval at each point by itself.

        Returns
        -------
        Axes
            Logarithmic densities; a dashed line marks the peak of a single eigenvalue.
        """
        require_packages("matplotlib", purpose="plot")
        from hesspipe.plots.densities import plot_density

        num_points = require_integer("num_points", num_points, 2)
        low, high = float(self.nodes.min()), float(self.nodes.max())
        if width is None:
            # A single node has no spread: its own size, or that of the unit, takes its place.
            width = RELATIVE_WIDTH * ((high - low) or abs(high) or 1.0)
        curve = self.evaluate(
            spread_grid(low, high, width, num_points), width, confidence=confidence
        )
        return plot_density(
            ax,
            curve.grid.numpy(),
            curve.estimate.numpy(),
            (curve.low.numpy(), curve.high.numpy()),
            confidence,
            self.matrix,
            single=1 / (self.dim * width * math.sqrt(2 * math.pi)),
            title=f"{self.dim:,} eigenvalues, smoothed by {width:.2g}",
        )

    def evaluate(self, grid: Tensor, width: float, *, confidence: float = CONFIDENCE) -> Curve:
        """Smooth the density by a Gaussian.

        The interval at a point has bounds for the quadrature, which resolves a bulk to the distance
        of its nodes only, and for the randomness of the probes; see `hesspipe.linalg.means`.

        Parameters
        ----------
        grid : Tensor, shape (n,)
            Points at which to evaluate it.
        width : float
            Standard deviation of the Gaussian, in the unit of the eigenvalues.
        confidence : float
            Probability that the interval at a point holds, for each point by itself.

        Returns
        -------
        Curve
            Per unit of the eigenvalues.
        """
        if not 0 < width < math.inf:
            raise ValueError(f"width must be positive and finite, got {width}")
        points = _vector("grid", grid)
        risk = 1 - require_confidence(confidence)
        rows = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            distances = (points.unsqueeze(1) - nodes) / width
            rows.append(torch.exp(-0.5 * distances.square()) @ weights)
        peak = 1 / (width * math.sqrt(2 * math.pi))
        mean, error = _summarize(torch.stack(rows) * peak)
        low, high = means.gaussian_means(self.sample, points.numpy(), width, risk)
        least, most = torch.from_numpy(low * peak), torch.from_numpy(high * peak)
        return Curve(
            least, most, mean, error, confidence, grid=points, width=width, matrix=self.matrix
        )

    def count(
        self,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        confidence: float = CONFIDENCE,
    ) -> Count:
        """Count the eigenvalues in (low, high], between bounds.

        Over 300 seeds on four spectra, the intervals held in 100 % of the cases at 99.9 %, and
        in 97 to 100 % at 90 % (benchmarks/coverage.md).

        Where both thresholds lie in gaps between converged eigenvalues that no other probe
        contradicts, the number is exact. Elsewhere the bounds hold two errors: the quadrature,
        which resolves a bulk to the distance of its nodes only, and the randomness of the
        probes; see `hesspipe.linalg.counts`.

        Parameters
        ----------
        low, high : float
            By default unbounded.
        confidence : float
            Probability that the interval holds, between 0 and 1.

        Returns
        -------
        Count

        Raises
        ------
        ValueError
            If a threshold is within rounding of a node: on which side the eigenvalues lie is
            then noise, as for zero eigenvalues at a threshold of 0.
        """
        low, high = require_number("low", low), require_number("high", high)
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        points = np.array([low, high], dtype=np.float64)
        self._require_apart(points)
        risk = 1 - require_confidence(confidence)
        finite = np.isfinite(points)
        below, up_to = self.sample.numbers_up_to(points, 1 - risk / max(1, finite.sum()))
        least, most = max(int(below[1] - up_to[0]), 0), int(up_to[1] - below[0])
        if finite.all() and least < most:
            # The share between the thresholds says more than the two shares below them.
            below, up_to = self.sample.numbers_up_to(points, 1 - risk / 4)
            direct = self.sample.numbers_between(low, high, risk / 2)
            least = max(int(below[1] - up_to[0]), direct[0])
            most = min(int(up_to[1] - below[0]), direct[1])
        inside = (self.nodes > low) & (self.nodes <= high)
        estimate = self.dim * float((self.weights * inside).sum(1).mean())
        return Count(least, most, min(max(estimate, least), most), confidence)

    def distribution(self, points: Tensor, *, confidence: float = CONFIDENCE) -> Distribution:
        """Bound the distribution function: the share of eigenvalues up to each point.

        Parameters
        ----------
        points : Tensor, shape (n,)
        confidence : float
            Probability that the interval at a point holds, for each point by itself.

        Returns
        -------
        Distribution

        Raises
        ------
        ValueError
            As for `count`.
        """
        grid = _vector("points", points)
        if grid.isnan().any():
            raise ValueError("points must be numbers, got nan")
        thresholds = grid.numpy()
        self._require_apart(thresholds)
        least, most = self.sample.numbers_up_to(thresholds, require_confidence(confidence))
        low, high = (torch.from_numpy(number / self.dim) for number in (least, most))
        is_below = self.nodes.unsqueeze(1) <= grid.unsqueeze(1)  # (probes, n, steps)
        shares = (is_below.to(torch.float64) @ self.weights.unsqueeze(2)).squeeze(2).mean(0)
        return Distribution(low, high, shares.clamp(low, high), confidence, points=grid)

    @cached_property
    def sample(self) -> Sample:
        """What the probes tell of the numbers of eigenvalues."""
        return Sample(
            Rules(self.nodes, self.weights, self.couplings),
            self.squared_lengths.numpy(),
            self.overlaps.numpy(),
            self.dim,
            self.resolution,
        )

    @property
    def resolution(self) -> float:
        """Distance by which rounding of the products may shift eigenvalues."""
        assumed = min(self.dim, NUM_ROUNDINGS) * self.eps * float(self.nodes.abs().max())
        return max(assumed, _ASYMMETRIES * self.asymmetry)

    def _require_apart(self, thresholds: Floats) -> None:
        nodes = self.nodes[self.weights > 0].sort().values.numpy()
        for threshold in thresholds[np.isfinite(thresholds)]:
            if (np.abs(nodes - threshold) <= self.resolution).any():
                raise ValueError(
                    f"thresholds must be apart from eigenvalues, got {threshold} with a node "
                    f"within the rounding of {self.resolution:.1e}; use one farther away, or "
                    "float64"
                )

    def moment(self, power: int, *, confidence: float = CONFIDENCE) -> Moment:
        """Estimate tr(A^power).

        The quadrature is exact for the start vector of each probe, so that the only error is
        that of few probes, for which the interval has a bound; see `hesspipe.linalg.means`. Over
        300 seeds on five spectra it held in 100 % of the cases at 99.9 %, and in 95 to 100 % at
        90 % (benchmarks/coverage.md).
        `hesspipe.estimate_norms` knows the trace better.

        Parameters
        ----------
        power : int
            0 to 2 num_steps - 1; any, if the Krylov spaces of all probes are invariant.
        confidence : float
            Probability that the interval holds, between 0 and 1.

        Returns
        -------
        Moment

        Raises
        ------
        TypeError
            If the power is not an integer: of negative eigenvalues there is no other power.
        ValueError
            If it is out of range.
        """
        power = require_integer("power", power, 0)
        risk = 1 - require_confidence(confidence)
        most = 2 * self.nodes.shape[1] - 1
        if power > most and bool((self.couplings != 0).any()):
            raise ValueError(
                f"power must be at most 2 num_steps - 1 = {most}, up to which the quadrature is "
                f"exact, got {power}; make more steps"
            )
        mean, error = _summarize(self.dim * (self.weights * self.nodes**power).sum(1))
        if not math.isfinite(mean):
            raise ValueError(f"power must be smaller for eigenvalues of this size, got {power}")
        low, high = self._bounds_of_moment(power, risk)
        return Moment(low, high, min(max(float(mean), low), high), float(error), confidence)

    def _bounds_of_moment(self, power: int, risk: float) -> tuple[float, float]:
        """Bound tr(A^power), by bounds of the eigenvalues and the randomness of the probes."""
        if power == 0:
            return float(self.dim), float(self.dim)
        ends = means.eigenvalue_range(self.sample, risk / 4)
        if not math.isfinite(ends[0]):
            return (-math.inf if power % 2 else 0.0), math.inf
        share, least, most = means.power_shares(self.sample, power, ends)
        low, high = means.invert_mean(share, share, self.dim, len(self.nodes), 3 * risk / 4)
        # Rounding of the moments themselves.
        slack = self.dim * power * self.resolution * max(map(abs, ends)) ** (power - 1)
        below, above = (
            self.dim * (least + (most - least) * float(part[0])) for part in (low, high)
        )
        return below - slack, above + slack


def spread_grid(low: float, high: float, width: float, num_points: int) -> Tensor:
    """Spread points over an interval and five widths of a Gaussian beyond its ends, (n,)."""
    margin = _MARGIN_IN_WIDTHS * width
    return torch.linspace(low - margin, high + margin, num_points, dtype=torch.float64)


def density(
    operator: Any,
    *,
    num_probes: int = NUM_PROBES,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
    progress: bool | None = None,
) -> Density:
    """Estimate the spectral density of a symmetric operator.

    Full reorthogonalization is used, at the cost of storing num_steps vectors of length P:
    without it, copies of the extreme eigenvalues would replace nodes of the bulk.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_probes : int
        Random vectors; at least 2 are needed for standard errors, which are nan for 1, and 3
        for exact counts. Errors decrease as 1 / sqrt(num_probes * P).
    num_steps : int
        Lanczos steps of each probe, at most P. The resolution is about the spectrum's spread
        divided by num_steps, and finer at its ends.
    seed : int
        Each probe derives its own generator from it, so that more probes only add rows.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    Density

    Raises
    ------
    TooLargeError
        Before allocating, if the vectors do not fit into memory.
    ValueError
        If num_probes or num_steps is out of range.

    Examples
    --------
    >>> diagonal = torch.tensor([1.0] * 900 + [5.0] * 100, dtype=torch.float64)
    >>> found = density(torch.diag(diagonal), num_probes=10, num_steps=2)
    >>> found.count(low=3.0).low <= 100 <= found.count(low=3.0).high
    True
    """
    product = symmetric_product(operator)
    num_probes, num_steps = _require_numbers(product, num_probes, num_steps)
    rows, squared_lengths, num_products, asymmetry = [], [], 0, 0.0
    for probe in range(num_probes):
        label = f"density, probe {probe + 1}/{num_probes}"
        steps = tqdm(range(num_steps), desc=label, **bar_options(progress), unit="step")
        start = random_normal(product, _stream(seed, probe))
        squared_lengths.append(float(start.double().square().sum()))
        found = tridiagonalize(product, start / start.norm(), num_steps, steps=steps)
        row, vectors = _quadrature(found, num_steps)
        rows.append(row)
        num_products += len(vectors)
        asymmetry = max(asymmetry, found.asymmetry)
        if probe < num_probes - 1:
            del found  # its basis, before the next one is allocated
    overlaps = torch.zeros(num_probes - 1, num_steps, dtype=torch.float64)
    for probe in range(num_probes - 1):
        start = random_normal(product, _stream(seed, probe))
        overlaps[probe, : len(vectors)] = _components(start, found) @ vectors
    nodes, weights, couplings = torch.stack(rows).unbind(1)
    return Density(
        nodes=nodes,
        weights=weights,
        couplings=couplings,
        squared_lengths=torch.tensor(squared_lengths, dtype=torch.float64),
        overlaps=overlaps,
        dim=product.dim,
        matrix=product.name,
        num_products=num_products,
        eps=torch.finfo(product.dtype).eps,
        asymmetry=asymmetry,
        provenance=product.origin
        | {"density": {"num_probes": num_probes, "num_steps": num_steps, "seed": seed}},
    )


def _require_numbers(product: SymmetricProduct, num_probes: int, num_steps: int) -> tuple[int, int]:
    """Raise an error for numbers that are out of range, or steps too many for memory."""
    num_probes = require_integer("num_probes", num_probes, 1)
    num_steps = require_integer("num_steps", num_steps)
    if not 1 <= num_steps <= product.dim:
        raise ValueError(f"num_steps must be 1 to P = {product.dim}, got {num_steps}")
    if product.device.type == "cpu":
        require(
            (num_steps + 2) * product.dim * torch.finfo(product.dtype).bits // 8,
            f"a Lanczos basis of {num_steps} vectors of length P = {product.dim:,}",
            "use fewer steps, or float32",
        )
    return num_probes, num_steps


def _quadrature(found: Tridiagonalization, num_steps: int) -> tuple[Tensor, Tensor]:
    """Compute nodes, weights and couplings (3, num_steps), and the eigenvectors (k, k) of T."""
    tridiagonal = found.matrix.double().cpu()
    unit = math.ldexp(1.0, math.frexp(float(tridiagonal.abs().max()))[1] - 1)
    nodes, vectors = torch.linalg.eigh(tridiagonal / unit)
    nodes *= unit
    vectors *= torch.where(vectors[0] < 0, -1.0, 1.0)
    size, row = len(nodes), torch.zeros(3, num_steps, dtype=torch.float64)
    row[0, :size], row[0, size:] = nodes, nodes[-1]
    row[1, :size] = vectors[0].square()
    row[2, :size] = found.residual_norm * vectors[-1]
    return row, vectors


def _components(start: Tensor, found: Tridiagonalization) -> Tensor:
    """Scalar products (k,) of a start vector, normalized, with the basis of another."""
    components: Tensor = (found.basis @ (start / start.norm())).double().cpu()
    return components


def require_confidence(confidence: float) -> float:
    """Return the argument if it is a probability below 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    return confidence


def _stream(seed: int, probe: int) -> torch.Generator:
    return generator(require_integer("seed", seed, 0), f"density probe {probe}")


def _vector(name: str, values: Tensor) -> Tensor:
    if values.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {tuple(values.shape)}")
    return values.detach().cpu().to(torch.float64)


def _summarize(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the first dimension and its standard error, nan for one row."""
    mean = rows.mean(0)
    if len(rows) == 1:
        return mean, torch.full_like(mean, math.nan)
    return mean, rows.std(0) / math.sqrt(len(rows))
