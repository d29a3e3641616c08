"""The spectral density of a symmetric operator by stochastic Lanczos quadrature.

A random start vector has, on average, the same share of each eigenvector. The eigenvalues of its
Lanczos matrix, weighted by the squares of the first entries of their eigenvectors, are a Gauss
quadrature of the density with these shares: nodes and weights. Several probes give an average and
a standard error.

References
----------
Golub, Meurant (2010), Matrices, Moments and Quadrature, chapter 6; Ubaru, Chen, Saad (2017), Fast
Estimation of tr(f(A)) via Stochastic Lanczos Quadrature; Ghorbani, Krishnan, Xiao (2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.hardware import require
from hesspipe.linalg.lanczos import tridiagonalize
from hesspipe.linalg.operator import SymmetricProduct, random_unit, symmetric_product
from hesspipe.seeding import generator

# Defaults for a quick look; Ghorbani, Krishnan, Xiao (2019) took 10 probes of 90 steps.
NUM_PROBES = 3
NUM_STEPS = 80


@dataclass(frozen=True)
class Density:
    """A spectral density as quadrature nodes and weights, one row per probe.

    Densities, counts and moments are computed from them, so that a width or a threshold can be
    chosen later.

    Attributes
    ----------
    nodes : Tensor, shape (probes, steps)
        float64, on the CPU, ascending in each row.
    weights : Tensor, shape (probes, steps)
        Shares of the P eigenvalues; each row sums to 1. If the Krylov space of a probe is smaller
        than num_steps, its row is padded with weights of 0.
    dim : int
        P.
    matrix : str
        Name of the operator: "hessian", "ggn" or "residual", or "operator" for any other.
    num_products : int
    eps : float
        Machine epsilon of the dtype of the products.
    """

    nodes: Tensor
    weights: Tensor
    dim: int
    matrix: str
    num_products: int
    eps: float = torch.finfo(torch.float64).eps

    def evaluate(self, grid: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Smooth the density by a Gaussian.

        Parameters
        ----------
        grid : Tensor, shape (n,)
            Points at which to evaluate it.
        width : float
            Standard deviation of the Gaussian, in the unit of the eigenvalues.

        Returns
        -------
        mean, standard_error : Tensor, shape (n,)
            Over the probes. Per unit of the eigenvalues; the mean integrates to 1.
        """
        if not 0 < width < math.inf:
            raise ValueError(f"width must be positive and finite, got {width}")
        if grid.ndim != 1:
            raise ValueError(f"grid must be a vector, got shape {tuple(grid.shape)}")
        points = grid.detach().cpu().to(torch.float64)
        rows = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            distances = (points.unsqueeze(1) - nodes) / width
            rows.append(torch.exp(-0.5 * distances.square()) @ weights)
        return _summarize(torch.stack(rows) / (width * math.sqrt(2 * math.pi)))

    def count(self, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
        """Estimate how many eigenvalues lie in (low, high].

        The quadrature counts nodes: an isolated eigenvalue is a node by itself once Lanczos has
        found it, but a threshold inside the bulk is only resolved to the distance of the nodes.

        Parameters
        ----------
        low, high : float
            By default unbounded.

        Returns
        -------
        mean, standard_error : float
            Over the probes.

        Raises
        ------
        ValueError
            If a threshold is within rounding, P eps max |node|, of a node: on which side the
            eigenvalues lie is then noise, as for zero eigenvalues at a threshold of 0.
        """
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        resolution = self.dim * self.eps * float(self.nodes.abs().max())
        for threshold in (low, high):
            if (((self.nodes - threshold).abs() <= resolution) & (self.weights > 0)).any():
                raise ValueError(
                    f"thresholds must be apart from eigenvalues, got {threshold} with a node "
                    f"within the rounding of {resolution:.1e}; use one farther away, or float64"
                )
        is_inside = (self.nodes > low) & (self.nodes <= high)
        mean, error = _summarize(self.dim * (self.weights * is_inside).sum(1))
        return float(mean), float(error)

    def moment(self, power: int) -> tuple[float, float]:
        """Estimate tr(A^power), exact for each probe's vector up to a power of 2 steps - 1.

        Parameters
        ----------
        power : int
            At least 0.

        Returns
        -------
        mean, standard_error : float
            Over the probes.
        """
        if power < 0:
            raise ValueError(f"power must be at least 0, got {power}")
        mean, error = _summarize(self.dim * (self.weights * self.nodes**power).sum(1))
        return float(mean), float(error)


def density(
    operator: Any,
    *,
    num_probes: int = NUM_PROBES,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
    progress: bool = False,
) -> Density:
    """Estimate the spectral density of a symmetric operator.

    Full reorthogonalization is used, at the cost of storing num_steps vectors of length P:
    without it, copies of the extreme eigenvalues would replace nodes of the bulk.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_probes : int
        Random vectors; at least 2 are needed for standard errors, which are nan for 1. Errors
        decrease as 1 / sqrt(num_probes * P).
    num_steps : int
        Lanczos steps of each probe, at most P. The resolution is about the spectrum's spread
        divided by num_steps, and finer at its ends.
    seed : int
        Each probe derives its own generator from it, so that more probes only add rows.
    progress : bool
        Show a progress bar.

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
    >>> share, error = found.count(low=3.0)
    >>> abs(share - 100) < 4 * error
    True
    """
    if num_probes < 1:
        raise ValueError(f"num_probes must be at least 1, got {num_probes}")
    product = symmetric_product(operator)
    if not 1 <= num_steps <= product.dim:
        raise ValueError(f"num_steps must be 1 to P = {product.dim}, got {num_steps}")
    if product.device.type == "cpu":
        require(
            (num_steps + 2) * product.dim * torch.finfo(product.dtype).bits // 8,
            f"a Lanczos basis of {num_steps} vectors of length P = {product.dim:,}",
            "use fewer steps, or float32",
        )
    nodes = torch.zeros(num_probes, num_steps, dtype=torch.float64)
    weights = torch.zeros(num_probes, num_steps, dtype=torch.float64)
    num_products = 0
    for probe in range(num_probes):
        label = f"density, probe {probe + 1}/{num_probes}"
        steps = tqdm(range(num_steps), desc=label, disable=not progress, unit="step")
        start = random_unit(product, generator(seed, f"density probe {probe}"))
        found, shares = _quadrature(product, start, steps)
        num_products += len(found)
        nodes[probe] = found[-1]
        nodes[probe, : len(found)] = found
        weights[probe, : len(found)] = shares
    eps = torch.finfo(product.dtype).eps
    return Density(nodes, weights, product.dim, product.name, num_products, eps)


def _quadrature(product: SymmetricProduct, start: Tensor, steps: Any) -> tuple[Tensor, Tensor]:
    """Compute nodes and weights (k,) from one start vector."""
    tridiagonal = tridiagonalize(product, start, len(steps), steps=steps).matrix
    nodes, vectors = torch.linalg.eigh(tridiagonal.double().cpu())
    return nodes, vectors[0].square()


def _summarize(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the first dimension and its standard error, nan for one row."""
    mean = rows.mean(0)
    if len(rows) == 1:
        return mean, torch.full_like(mean, math.nan)
    return mean, rows.std(0) / math.sqrt(len(rows))
