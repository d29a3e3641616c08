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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hesspipe.linalg.following import (
    STRICTER,
    Tracking,
    carried_of,
    ends_of,
    errors_of_ends,
    require_ordinary,
    require_room,
)
from hesspipe.linalg.lanczos import breakdown
from hesspipe.linalg.operator import SymmetricProduct, random_unit, symmetric_product
from hesspipe.linalg.orthogonalization import orthogonalize
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.vector_space import norm
from hesspipe.seeding import generator

# Size of the random part of the start vector, relative to each of the last eigenvectors. A larger
# part needs more products, a smaller one hides new eigenvalues.
_RANDOM_PART = 0.1
# How far beyond an end a hidden eigenvalue is looked for, relative to the largest magnitude.
BEYOND = 0.1


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
    may_go_on: Callable[[], bool] = lambda: True,
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
        Relative error of each eigenvalue, as estimated; see `hesspipe.linalg.following`.
    max_products : int
        Products after which the search ends, converged or not.
    max_missed_probability : float
        The search goes on until `Tracking.missed_probability` is at most this.
    random : Tensor, shape (P,), optional
        A random unit vector, the random part of the start. Searches of different operators may
        share one; by default it is drawn from a fixed seed.
    may_go_on : callable () -> bool, optional
        Asked after each product.

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
        chosen = ends_of(len(values), num_smallest, num_largest)
        rests = np.abs(run.beta * coefficients[-1])[chosen]
        errors = errors_of_ends(values, rests, num_smallest, num_largest)
        is_near = errors <= STRICTER * tolerance * np.abs(values[chosen])
        missed = run.missed_probability(values, num_smallest, num_largest)
        is_complete = len(chosen) == num_smallest + num_largest and missed <= max_missed_probability
        is_over = run.is_over or (is_complete and bool(is_near.all())) or not may_go_on()
    pairs = run.pairs(values[chosen], coefficients[:, chosen], num_smallest)
    norms = pairs.residual_norms.numpy()
    errors = errors_of_ends(values, norms, num_smallest, num_largest)
    next_to_them = carried_of(len(values), num_smallest, num_largest)
    return Tracking(
        pairs=pairs,
        is_converged=torch.from_numpy(errors <= tolerance * np.abs(values[chosen])),
        error_estimates=torch.from_numpy(errors),
        missed_probability=missed,
        carried=run.rows(coefficients[:, next_to_them]),
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
        require_room(product, capacity)
        basis = torch.empty(capacity + 1, dim, dtype=product.dtype, device=product.device)
        vector, part = random, 1.0
        if start is not None:
            vector = start + _RANDOM_PART * random
            length = float(norm(vector))
            vector, part = vector / length, _RANDOM_PART / length
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
        scale = float(norm(image))
        require_ordinary(scale, self.product)
        self.images.append(image)
        vector, coefficients, self.beta = orthogonalize(image, self.basis[: size + 1])
        column = coefficients.double().cpu().numpy()
        self.projected[: size + 1, size] = self.projected[size, : size + 1] = column
        self.size += 1
        scale = max(scale, float(np.abs(self.projected).max()))
        if self.size == self.product.dim or self.beta <= breakdown(scale, self.product):
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
            residual_norms=norm(residuals, 0).double().cpu(),
            num_products=self.size,
            matrix=self.product.name,
            num_smallest=num_smallest,
            num_largest=len(values) - num_smallest,
        )

    def rows(self, coefficients: NDArray[np.float64]) -> Tensor:
        """Combine the basis by columns of coefficients (m, k): rows (k, P)."""
        weights = torch.from_numpy(coefficients.T.copy()).to(self.basis)
        found: Tensor = weights @ self.basis[: self.size]
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
