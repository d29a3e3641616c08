"""Extreme eigenpairs of an operator that changes a little between searches.

One Lanczos run of few products, with full reorthogonalization, whose start vector is

    q = sum of the last eigenvectors, and of the Ritz vectors next to them + a random vector

The eigenvectors of before make it short. The Ritz vectors next to them carry what comes up from
below, and the random part contains everything. An eigenvector u with an eigenvalue l beyond the
Ritz values cannot remain hidden for long: as in `hesspipe.linalg.krylov`, its component along q is
at most h = 1 / |(p_0(l), ..., p_m(l))|, with the polynomials p_j of the Lanczos recursion. The
random part r of relative size d has <u, r> of standard deviation 1 / sqrt(P) and a density that is
largest at zero, so that the probability of this is at most h |q| sqrt(2 P / pi) / d, whatever the
other part of q is.

Residual norms are those of the products that were made: |A V s - value V s|, with A V stored, not
the estimates of the recursion. A run from a single vector sees a multiple eigenvalue once;
`hesspipe.eigenpairs` finds multiplicities.

References
----------
Parlett (1998), The Symmetric Eigenvalue Problem, chapters 11 and 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hesspipe.hardware import require
from hesspipe.linalg.lanczos import breakdown
from hesspipe.linalg.operator import SymmetricProduct, random_unit, symmetric_product
from hesspipe.linalg.orthogonalization import orthogonalize
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.seeding import generator

# Size of the random part of the start vector, relative to each of the last eigenvectors, and of the
# Ritz vectors next to them. Larger parts need more products, smaller ones hide new eigenvalues.
_RANDOM_PART = 0.1
_NEXT_PART = 0.3
# How far beyond an end a hidden eigenvalue is looked for, relative to the largest magnitude.
BEYOND = 0.1
# Error bounds must be below this multiple of the tolerance: gaps are those of Ritz values.
_STRICTER = 0.3


@dataclass(frozen=True, eq=False)
class Tracking:
    """Extreme eigenpairs, and what the next search starts from.

    Attributes
    ----------
    pairs : Eigenpairs
        Including those that did not converge: the residual norms tell.
    is_converged : Tensor of bool, shape (k,)
    missed_probability : float
        Bound on the probability, over the random part of the start, that an eigenvalue lies beyond
        one of the ends by more than 10 % of the largest magnitude, and was missed.
    start : Tensor, shape (P,)
        The next start vector, but for its random part.
    """

    pairs: Eigenpairs
    is_converged: Tensor
    missed_probability: float
    start: Tensor


def track_eigenpairs(
    operator: Any,
    num_smallest: int,
    num_largest: int,
    *,
    start: Tensor | None,
    tolerance: float,
    max_products: int,
    max_missed_probability: float = 1.0,
    random: Tensor | None = None,
) -> Tracking:
    """Compute extreme eigenpairs, from what a search for those of a similar operator found.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_smallest, num_largest : int
        Numbers of pairs from each end of the spectrum, together 1 to P.
    start : Tensor, shape (P,), optional
        `Tracking.start` of the last search.
    tolerance : float
        Relative error of each eigenvalue, as estimated from its residual norm r and its distance g
        from the other Ritz values: at most min(r, r^2 / g).
    max_products : int
        Products after which the search ends, converged or not.
    max_missed_probability : float
        The search goes on until `Tracking.missed_probability` is at most this.
    random : Tensor, shape (P,), optional
        A random unit vector, the random part of the start. Searches of different operators may
        share one; by default it is drawn from a fixed seed.

    Returns
    -------
    Tracking

    Raises
    ------
    TooLargeError
        If the basis and its products do not fit into memory.
    ValueError
        If a product is not finite.

    Examples
    --------
    >>> matrix = torch.diag(torch.linspace(0, 1, 50, dtype=torch.float64) ** 4)
    >>> options = {"tolerance": 1e-9, "max_products": 50}
    >>> first = track_eigenpairs(matrix, 0, 1, start=None, **options)
    >>> again = track_eigenpairs(1.01 * matrix, 0, 1, start=first.start, **options)
    >>> round(float(again.pairs.eigenvalues), 9), first.pairs.num_products > 10
    (1.01, True)
    """
    product = symmetric_product(operator)
    if random is None:
        random = random_unit(product, generator(0, "start of the tracking"))
    run = _Run.begin(product, min(max_products, product.dim), start, random)
    is_over = False
    while not is_over:
        run.extend()
        values, coefficients = run.ritz()
        rests = np.abs(run.beta * coefficients[-1])
        chosen = _ends(len(values), num_smallest, num_largest)
        is_near = (_errors(values, rests) <= _STRICTER * tolerance * np.abs(values))[chosen]
        missed = run.missed_probability(values, num_smallest, num_largest)
        is_complete = len(chosen) == num_smallest + num_largest and missed <= max_missed_probability
        is_over = run.is_over or (is_complete and bool(is_near.all()))
    pairs = run.pairs(values[chosen], coefficients[:, chosen], num_smallest)
    norms = np.array(rests)
    norms[chosen] = pairs.residual_norms.numpy()
    is_converged = (_errors(values, norms) <= tolerance * np.abs(values))[chosen]
    return Tracking(
        pairs,
        torch.from_numpy(is_converged),
        missed,
        run.next_start(coefficients, num_smallest, num_largest),
    )


@dataclass
class _Run:
    """A Lanczos run, with its products."""

    product: SymmetricProduct
    capacity: int
    basis: Tensor  # (capacity + 1, P)
    images: list[Tensor]  # each (P,)
    projected: NDArray[np.float64]  # (capacity, capacity)
    random_part: float  # of the start vector
    size: int = 0
    beta: float = math.inf

    @classmethod
    def begin(
        cls, product: SymmetricProduct, capacity: int, start: Tensor | None, random: Tensor
    ) -> _Run:
        dim = product.dim
        if product.device.type == "cpu":
            require(
                (2 * capacity + 1) * dim * product.dtype.itemsize,
                f"a basis of {capacity} vectors of length P = {dim:,}, and its products,",
                "pass a smaller max_products",
            )
        basis = torch.empty(capacity + 1, dim, dtype=product.dtype, device=product.device)
        vector, part = random, 1.0
        if start is not None:
            vector = start + _RANDOM_PART * random
            norm = float(vector.norm())
            vector, part = vector / norm, _RANDOM_PART / norm
        basis[0] = vector
        return cls(product, capacity, basis, [], np.zeros((capacity, capacity)), part)

    @property
    def is_over(self) -> bool:
        """Whether no further step is possible."""
        return self.size == self.capacity or self.beta == 0

    def extend(self) -> None:
        """Multiply the next vector, and orthogonalize the product."""
        size = self.size
        image = self.product.multiply(self.basis[size])  # (P,)
        norm = float(image.norm())
        _require_ordinary(norm, self.product)
        self.images.append(image)
        vector, coefficients, self.beta = orthogonalize(image, self.basis[: size + 1])
        column = coefficients.double().cpu().numpy()
        self.projected[: size + 1, size] = self.projected[size, : size + 1] = column
        self.size += 1
        norm = max(norm, float(np.abs(self.projected).max()))
        if self.size == self.product.dim or self.beta <= breakdown(norm, self.product):
            self.beta = 0.0
        else:
            self.basis[self.size] = vector / self.beta

    def ritz(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Solve the projected eigenproblem: values (m,) and columns of coefficients (m, m)."""
        values, coefficients = np.linalg.eigh(self.projected[: self.size, : self.size])
        return values, coefficients

    def pairs(
        self, values: NDArray[np.float64], coefficients: NDArray[np.float64], num_smallest: int
    ) -> Eigenpairs:
        """Make pairs of Ritz vectors, with residuals from the products."""
        rotation = torch.from_numpy(coefficients).to(self.basis)  # (m, k)
        vectors = self.basis[: self.size].T @ rotation  # (P, k)
        found = torch.from_numpy(values.copy())
        residuals = -vectors * found.to(vectors)
        for weights, image in zip(rotation, self.images, strict=True):
            for column, weight in enumerate(weights.tolist()):
                residuals[:, column].add_(image, alpha=weight)
        return Eigenpairs(
            eigenvalues=found,
            eigenvectors=vectors,
            residual_norms=residuals.norm(dim=0).double().cpu(),
            num_products=self.size,
            matrix=self.product.name,
            num_smallest=num_smallest,
            num_largest=len(values) - num_smallest,
        )

    def next_start(
        self, coefficients: NDArray[np.float64], num_smallest: int, num_largest: int
    ) -> Tensor:
        """Add the wanted Ritz vectors, and as many next to them with a smaller weight."""
        weights = np.zeros(self.size)
        ends = (2 * num_smallest, 2 * num_largest)
        weights[_ends(self.size, *ends)] = _NEXT_PART
        weights[_ends(self.size, num_smallest, num_largest)] = 1.0
        sums = torch.from_numpy(coefficients @ weights).to(self.basis)  # (m,)
        found: Tensor = sums @ self.basis[: self.size]
        return found

    def missed_probability(
        self, values: NDArray[np.float64], num_smallest: int, num_largest: int
    ) -> float:
        """Bound the probability that an eigenvalue beyond an end was missed."""
        if self.size == self.product.dim:
            return 0.0
        margin = BEYOND * float(np.abs(values).max())
        points = [values[-1] + margin] * (num_largest > 0)
        points += [values[0] - margin] * (num_smallest > 0)
        factor = math.sqrt(2 * self.product.dim / math.pi) / self.random_part
        return min(1.0, factor * sum(self._hidden(point) for point in points))

    def _hidden(self, point: float) -> float:
        """Bound the component along the start of an eigenvector with an eigenvalue from here on."""
        diagonal = self.projected.diagonal()[: self.size]
        beyond = [*self.projected.diagonal(1)[: self.size - 1], self.beta]
        before, last, squares = 0.0, 1.0, 1.0
        for step in range(self.size):
            coupling = beyond[step - 1] if step else 0.0
            if beyond[step] == 0:  # an invariant space: its complement is never seen
                break
            new = ((point - diagonal[step]) * last - coupling * before) / beyond[step]
            before, last, squares = last, new, squares + new**2
            if squares > 1e200:
                return 0.0
        return 1 / math.sqrt(squares)


def _require_ordinary(norm: float, product: SymmetricProduct) -> None:
    """Refuse products whose squares overflow or underflow: `scaled` would cost two more passes."""
    limits = torch.finfo(product.dtype)
    if not math.isfinite(norm):
        raise ValueError(f"a product with the {product.name} must be finite, got norm {norm}")
    if 0 < norm < math.sqrt(limits.tiny) / limits.eps:
        raise ValueError(
            f"products with the {product.name} must not be so small that their squares lose digits "
            f"in {product.dtype}, got one of norm {norm:.1e}; multiply the loss by a constant, or "
            "compute in float64"
        )


def _ends(size: int, num_smallest: int, num_largest: int) -> NDArray[np.int64]:
    """Indices of the smallest and largest values, ascending, each once."""
    low = min(num_smallest, size)
    return np.concatenate([np.arange(low), np.arange(max(size - num_largest, low), size)])


def _errors(values: NDArray[np.float64], rests: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate the errors of Ritz values from residual norms and gaps: min(r, r^2 / gap)."""
    steps = np.diff(values, prepend=-np.inf, append=np.inf)
    gaps = np.minimum(steps[:-1], steps[1:])
    gaps[np.isinf(gaps)] = 0.0  # a single value tells no distance
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.where(rests == 0, 0.0, rests**2 / gaps)
    return np.fmin(rests, squares)
