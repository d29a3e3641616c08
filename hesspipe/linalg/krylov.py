"""A Krylov basis that can be extended, restarted with Ritz vectors, deflated and saved.

The basis V has orthonormal rows, of which the first `num_locked` are locked as known eigenvectors.
The rest spans a Krylov space of the operator, orthogonal to the locked ones:

    A V^T = V^T T + beta r e_last^T

T is computed as V A V^T during the orthogonalization. Until vectors are locked, it is known to be
tridiagonal, apart from the row and column where a restart continues, and every second product need
not be made orthogonal to the whole basis (see `hesspipe.linalg.orthogonalization`). So is its part
of a Krylov space that starts from a random vector orthogonal to the locked ones y_i: their
residuals are c_i r, so that the product with v has the components c_i <r, v> along them. Otherwise
T is computed entry by entry, and is the Rayleigh-Ritz matrix whichever vector extends the basis.
A thick restart keeps some Ritz vectors and the residual direction r, and the relation then holds
with a smaller V.

An eigenvector u orthogonal to the locked ones, with an eigenvalue l beyond all Ritz values, cannot
remain hidden: the relation gives its components x = V u from x_0, the one along the random start,

    x_next = (l x_last - T[:, last] . x) / beta,

and |x| <= 1. So |x_0| is at most 1 / |x / x_0|, which decreases with every step, and faster for a
larger l. A random start in P dimensions has |x_0| < d / sqrt(P) with a probability below d. `watch`
tracks this bound for given l.

Ritz vectors Y that have not converged may be locked, too. With Theta their values and beta c_i r
their residuals, the eigenvectors that remain are bounded for A', which is A on the complement of Y:
with this probability it has no eigenvalue beyond l. Then A has as many eigenvalues above a t > l as
Theta + beta^2 c c^T / (t - l) at most (Haynsworth; see `hesspipe.linalg.hidden`), which are those
of Theta above t if the sum of (beta c_i)^2 / (t - theta_i) is at most t - l.

References
----------
Wu, Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hesspipe.hardware import require
from hesspipe.linalg.lanczos import breakdown
from hesspipe.linalg.operator import Scaling, SymmetricProduct, random_unit
from hesspipe.linalg.orthogonalization import orthogonalize, orthogonalize_product
from hesspipe.seeding import generator

# Columns that a restart rotates at once: they stay in the cache meanwhile.
_COLUMNS_AT_ONCE = 2**13
# Norm of the sum of two unit vectors below which they cancel, as in very few dimensions.
_NOT_CANCELED = 0.1
# Loss of orthogonality up to which the basis need not be gone over, as a power of eps.
# Semiorthogonality allows 1/2; residuals are confirmed to less.
_LOSS = 0.75
# Times that the rounding of a step may grow in the next vector.
_MOST_GROWN = 64.0
# Bound on a start's component below which no random start falls.
_SURELY_SEEN = 1e-30
# Whole numbers of a saved state, and the least that each can be.
LEAST_NUMBERS = {
    "size": 1, "num_locked": 0, "num_steps": 0, "num_products": 1, "num_starts": 1,
    "start_of_run": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Ritz:
    """Ritz pairs of the unlocked part of the basis.

    Attributes
    ----------
    values : array, shape (k,)
        Ascending.
    coefficients : array, shape (k, k)
        Columns: coefficients of the Ritz vectors with respect to that part of the basis.
    rests : array, shape (k,)
        Residual norms |A y - value y|, up to a contribution of the residuals of locked vectors.
    """

    values: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    rests: NDArray[np.float64]


class KrylovBasis:
    """An orthonormal basis of locked eigenvectors and a Krylov space; see the module docstring.

    Parameters
    ----------
    product : SymmetricProduct
    capacity : int
        Maximum number of vectors, at most P.
    seed : int
        Seed of the random start vectors.
    scaling : Scaling, optional
        The power of two that the product is divided by, for messages and the state.

    Attributes
    ----------
    space : VectorSpace
        Of the operator.
    vectors : Tensor, shape (capacity + 1, P)
        Row `size` is multiplied next.
    size, num_locked : int
    num_steps : int
        Products since the last restart or random vector.
    num_products, num_starts : int
        Products made, and random vectors drawn.
    start_of_run : int
        `num_starts` when the present Krylov space began, if its products are known to be orthogonal
        to all but their neighbors and the locked vectors; 0 if they are not.
    watched, hidden : array, shape (w,)
        Values l, and for each a bound on the component along the random start of any eigenvector
        with eigenvalue l or beyond.
    couplings : array, shape (num_locked,)
    rest : Tensor, shape (1, P) or (0, P)
        The residuals of the locked vectors are couplings[i] * rest, unless there is none: then
        they are not known.
    beta : float
        Norm of the part of the last product outside the basis; 0 in an invariant space.
    scale : float
        Largest absolute Ritz value so far: a lower bound of the norm of the operator.
    """

    def __init__(
        self,
        product: SymmetricProduct,
        capacity: int,
        seed: int,
        scaling: Scaling | None = None,
    ) -> None:
        element_bytes = torch.finfo(product.dtype).bits // 8
        self.space = product.space
        num_bytes = (capacity + 1) * self.space.length * element_bytes
        require(
            num_bytes,
            f"a basis of {capacity + 1} vectors of length P = {self.space.length:,}",
            "compute fewer eigenpairs, or pass a smaller basis_size",
            device=product.device,
        )
        self.product, self.capacity, self.seed = product, capacity, seed
        self.scaling = scaling or Scaling()
        self._allocate()
        self.projected = np.zeros((capacity, capacity))
        self.size = self.num_locked = self.num_steps = self.num_products = self.num_starts = 0
        self.beta = self.scale = 0.0
        self.watched = np.zeros(0)
        self._components = np.zeros((0, capacity + 1))
        self.hidden, self._rests = np.zeros(0), np.zeros(0)
        self._last_lost = np.inf
        self._forget_residuals()
        self._draw()
        self.start_of_run = self.num_starts

    def _forget_residuals(self) -> None:
        self.couplings, self.rest = np.zeros(0), self.vectors.new_empty(0, self.space.length)
        self._coupled: Tensor | None = None
        self.start_of_run = 0

    def _allocate(self) -> None:
        # Not zeros: memory that is not written is not taken.
        shape = self.capacity + 1, self.space.length
        self.vectors = torch.empty(shape, dtype=self.product.dtype, device=self.product.device)

    @property
    def is_full(self) -> bool:
        """Whether the basis has reached its capacity."""
        return self.size == self.capacity

    @property
    def spans_everything(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.size == self.product.dim

    def extend(self) -> None:
        """Multiply the next vector and orthogonalize the product: one Lanczos step."""
        size = self.size
        image = self.vectors[size + 1]  # (P,)
        self.product.write(self.vectors[size], image)
        self._orthogonalize(image)
        used = self.projected[: size + 1, : size + 1]
        norm = float(np.hypot(np.linalg.norm(used[-1]), self.beta))
        if not np.isfinite(norm):
            raise ValueError(f"a product with the {self.product.name} must be finite, got {norm}")
        self.size += 1
        self.num_steps += 1
        self.num_products += 1
        if self.spans_everything:
            self.beta = 0.0
        elif self.beta <= breakdown(max(norm, np.abs(used).max()), self.product):
            self.beta = 0.0  # an invariant space: continue in its complement
            self._draw()
        else:
            image /= self.beta
            if len(self.watched):
                self._follow()

    def _orthogonalize(self, image: Tensor) -> None:
        """Make the last product orthogonal to the basis, and add a column to the projection."""
        size, along = self.size, self._subtract_coupled(image)
        # A thick restart couples the next vector to all that it keeps, other steps to the last one.
        first = size - 1 if self.num_steps else self.num_locked
        coefficients, self.beta, is_partial = orthogonalize_product(
            image, self.vectors[: size + 1], self.space, first_row=first, enough=self._enough()
        )
        column = coefficients.double().cpu().numpy()  # (size + 1,)
        self._last_lost = np.inf
        if self._is_tridiagonal:
            if not is_partial:
                self._last_lost = float(np.linalg.norm(column[:first]))
            column[:first] = 0.0
            column[: len(self.couplings)] += along * self.couplings
        self.projected[: size + 1, size] = self.projected[size, : size + 1] = column

    def _subtract_coupled(self, image: Tensor) -> float:
        """Subtract from a product what it has along locked vectors; return <r, v>."""
        if not (self._is_tridiagonal and len(self.couplings)):
            return 0.0
        if self._coupled is None:
            weights = torch.from_numpy(self.couplings).to(self.vectors)
            self._coupled = weights @ self.vectors[: len(weights)]  # (P,)
        along = float(self.space.inner(self.rest, self.vectors[self.size], is_rough=True))
        image.add_(self._coupled, alpha=-along)
        return along

    @property
    def _is_tridiagonal(self) -> bool:
        """Whether products have only rounding along all vectors but the last two.

        That is, but for what they are known to have along locked ones.
        """
        return self.start_of_run == self.num_starts and self.num_steps > 1

    def _enough(self) -> float:
        """Norm of the new part of a product from which on its loss of orthogonality is small.

        Infinite unless the last vector was made orthogonal to all others, and for the vector that
        a restart continues with.
        """
        if not self._is_tridiagonal or self.size + 1 == self.capacity:
            return np.inf
        lost: float = self._last_lost / torch.finfo(self.product.dtype).eps ** _LOSS
        used = self.projected[: self.size, : self.size]
        return max(lost, float(np.abs(used).max()) / _MOST_GROWN)

    def watch(self, points: NDArray[np.float64]) -> None:
        """Track the bound on hidden eigenvectors at these values (w,); see the module docstring."""
        self.watched = points
        self._components = np.zeros((len(points), self.capacity + 1))
        self._components[:, self.size] = 1.0
        self.hidden = np.ones(len(points))

    def _follow(self) -> None:
        part = slice(self.num_locked, self.size)
        known, last = self._components[:, part], self.size - 1  # (w, size - num_locked)
        new = self.watched * self._components[:, last] - known @ self.projected[part, last]  # (w,)
        # Once a bound is far below any threshold its recursion would overflow: it is frozen.
        new = np.where(self.hidden > _SURELY_SEEN, new / self.beta, 0.0)
        self._components[:, self.size] = new
        norms = np.linalg.norm(self._components[:, self.num_locked : self.size + 1], axis=1)
        self.hidden = np.minimum(self.hidden, 1 / np.maximum(norms, 1.0))

    def ritz(self) -> Ritz:
        """Solve the projected eigenproblem."""
        part = slice(self.num_locked, self.size)
        values, coefficients = self._eigh(self.projected[part, part])
        self.scale = max(self.scale, float(np.abs(values).max()))
        if self.num_steps == 0 and len(self._rests) == len(values):  # just restarted
            return Ritz(values, coefficients, self._rests)
        return Ritz(values, coefficients, np.abs(self.beta * coefficients[-1]))

    def _eigh(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Eigenvalues and eigenvectors, of one process: all must decide by the same numbers."""
        found = self.space.agreed(*map(torch.from_numpy, np.linalg.eigh(matrix)))
        return tuple(part.numpy() for part in found)

    def restart(self, ritz: Ritz, kept: NDArray[np.int64]) -> None:
        """Keep some Ritz vectors, and continue with the residual direction: a thick restart."""
        # A u = l u gives (l - value) <u, y> = beta c_last <u, r>: no cancellation.
        gaps = self.watched[:, None] - ritz.values[kept]  # (w, k)
        following = self._components[:, [self.size]]  # (w, 1)
        components = following * self.beta * ritz.coefficients[-1, kept] / gaps
        self._rotate(ritz.coefficients[:, kept], ritz.values[kept])
        self._components[:, self.num_locked : self.size] = components
        self._components[:, [self.size]] = following
        self._rests = ritz.rests[kept]

    def lock(self, ritz: Ritz, kept: NDArray[np.int64]) -> None:
        """Lock some Ritz vectors, and continue with a random direction."""
        self.couplings = self.beta * ritz.coefficients[-1, kept]
        self._rotate(ritz.coefficients[:, kept], ritz.values[kept])
        self.rest = self.vectors[[self.size]]
        self._continue_locked()

    def lock_fewer(self, num_rows: int) -> None:
        """Keep the first of the locked vectors, and continue with another random direction."""
        self._cut(num_rows)
        self.couplings = self.couplings[:num_rows]
        self._continue_locked()

    def _continue_locked(self) -> None:
        self.num_locked = self.size
        self.beta = 0.0
        self._coupled = None
        self._draw()
        self.start_of_run = self.num_starts

    def unlock(self) -> None:
        """Make the locked vectors part of the search again."""
        self.num_locked = 0
        self._forget_residuals()
        self.watch(np.zeros(0))

    def unlock_some(self, num_rows: int, coefficients: NDArray[np.float64]) -> None:
        """Keep the first of the locked vectors, and a combination of the others as the next one."""
        part = self.vectors[self.num_locked : self.size]
        vector = torch.from_numpy(coefficients).to(part) @ part  # (P,)
        self._cut(num_rows)
        self.unlock()
        vector, _, norm = orthogonalize(vector, self.vectors[:num_rows], self.space)
        torch.div(vector, norm, out=self.vectors[num_rows])
        self.num_steps, self.beta = 0, 0.0

    def _cut(self, num_rows: int) -> None:
        values = self.projected.diagonal()[:num_rows].copy()
        self.projected[:] = 0.0
        np.fill_diagonal(self.projected[:num_rows, :num_rows], values)
        self.size = num_rows

    def give(self, num_rows: int) -> Tensor:
        """Give the first vectors away, orthonormal columns (P, num_rows), and free the others."""
        rows = self.vectors[:num_rows]
        # They are so nearly orthonormal that the nearest orthonormal ones are known from G^(-1/2).
        gram = self.space.inner(rows, rows.T).double().cpu()  # (num_rows, num_rows)
        values, turn = self.space.agreed(*torch.linalg.eigh(gram))
        columns = ((turn / values.sqrt()) @ turn.T).to(rows) @ rows
        self.vectors = self.vectors.new_empty(0, self.space.length)
        self._coupled = None
        return columns.T

    def begin_with(self, rows: Tensor, values: NDArray[np.float64], vector: Tensor) -> None:
        """Begin again with Ritz vectors (k, P) and the part of a vector (P,) orthogonal to them."""
        self._allocate()
        self.size, self.num_steps = len(rows), 0
        self.unlock()
        self.vectors[: self.size] = rows
        self.projected[:] = 0.0
        np.fill_diagonal(self.projected[: self.size, : self.size], values)
        rest, _, norm = orthogonalize(vector, self.vectors[: self.size], self.space)
        self.vectors[self.size] = rest / norm

    def _draw(self) -> None:
        random = generator(self.seed, f"Krylov start {self.num_starts}")
        vector = random_unit(self.product, random, self.vectors[: self.size])
        self.vectors[self.size] = self._led(vector) if self.num_starts == 0 else vector
        self.num_starts += 1
        self.num_steps = 0

    def _led(self, vector: Tensor) -> Tensor:
        """Add what the operator knows of its eigenvectors to the first random vector."""
        known = None if self.product.start is None else self.product.start()
        if known is None:
            return vector
        largest = self.space.largest_entry(known)
        if not 0 < largest < np.inf:
            return vector
        known = known / largest  # squares of tiny entries are zero
        both = vector + known / self.space.norm(known)
        norm = float(self.space.norm(both))
        return both / norm if norm > _NOT_CANCELED else vector

    def _rotate(self, coefficients: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Replace the unlocked part by combinations of its rows, followed by the next vector."""
        old, new = self.size, self.num_locked + len(values)
        rotation = torch.from_numpy(coefficients.T.copy()).to(self.vectors)  # (k, old - locked)
        for columns in self.vectors.split(_COLUMNS_AT_ONCE, dim=1):
            columns[self.num_locked : new] = rotation @ columns[self.num_locked : old]
            columns[new] = columns[old]
        locked = self.projected.diagonal()[: self.num_locked].copy()
        self.projected[:] = 0.0
        np.fill_diagonal(self.projected[:new, :new], np.concatenate([locked, values]))
        self.size = new
        self.num_steps = 0

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state that a later process resumes from: tensors, and numbers as text."""
        tensors = {
            "vectors": self.vectors[: self.size + 1],
            "projected": torch.from_numpy(self.projected[: self.size, : self.size].copy()),
            "watched": torch.from_numpy(self.watched),
            "components": torch.from_numpy(self._components),
            "couplings": torch.from_numpy(self.couplings),
            "rest": self.rest,
            "hidden": torch.from_numpy(self.hidden),
            "scalars": torch.from_numpy(np.array([self.beta, self.scale, self._last_lost])),
        }
        return tensors, {name: str(int(getattr(self, name))) for name in LEAST_NUMBERS}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, str]) -> None:
        """Restore a saved state."""
        for name in LEAST_NUMBERS:
            setattr(self, name, int(numbers[name]))
        self.watched, self.hidden = tensors["watched"].numpy(), tensors["hidden"].numpy()
        self._components = tensors["components"].numpy()
        self.couplings, self.rest = tensors["couplings"].numpy(), tensors["rest"].to(self.vectors)
        self.beta, self.scale, self._last_lost = tensors["scalars"].tolist()
        self.vectors[: self.size + 1] = tensors["vectors"].to(self.vectors)
        self.projected[: self.size, : self.size] = tensors["projected"].numpy()
