"""The search for extreme eigenpairs: until they converge and nothing else can be there.

Thick-restart Lanczos finds the wanted pairs of both ends from one Krylov space. Such a space
contains one eigenvector of each multiple eigenvalue, so that is not the end: the pairs found are
locked, and a new search starts from a random vector orthogonal to them. If it finds a value beyond
a wanted one, all go on together. It is over when, at each end,

    its own extreme pair has converged and does not lie beyond the wanted ones, or
    it has gone so far that a further wanted eigenvector would have shown, unless the random start
    were orthogonal to it but for a part that has a probability of 1e-4 (`hesspipe.linalg.krylov`).

References
----------
Wu, Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems.
Parlett (1998), The Symmetric Eigenvalue Problem, chapters 12 and 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hesspipe.errors import NotConvergedError
from hesspipe.linalg.krylov import KrylovBasis, Ritz
from hesspipe.linalg.ritz import Eigenpairs, subset, true_pairs
from hesspipe.linalg.search_state import SearchState

# Probability that a random start hides a wanted eigenvalue from the second criterion.
_DELTA = 1e-4
# Estimates of residuals must be this much below the tolerance that the true ones are held to.
_STRICTER = 0.3
# Share of the Ritz vectors beyond the wanted ones that a restart keeps; see
# benchmarks/eigenpairs.md.
_KEPT_SHARE = 0.5
# Steps between two looks at the Ritz values, which cost an eigensolver of the basis' size.
_STEPS_PER_LOOK = 5
# Times that true residuals may disagree with estimates, from rounding of the products.
_MAX_DISAGREEMENTS = 3


@dataclass
class PairSearch:
    """One search; see the module, and `hesspipe.eigenpairs` for what the fields mean."""

    basis: KrylovBasis
    num_smallest: int
    num_largest: int
    tolerance: float
    max_products: int
    state: SearchState | None = None
    num_disagreements: int = 0
    stricter: float = _STRICTER

    @property
    def num_wanted(self) -> int:
        """Pairs of both ends."""
        return self.num_smallest + self.num_largest

    def run(self, bar: tqdm[Any]) -> Eigenpairs:
        """Search until all is found, or products run out."""
        basis = self.basis
        while True:
            if basis.num_products >= self.max_products:
                raise self._not_converged("max_products is reached; raise it, or basis_size")
            basis.extend()
            if basis.num_steps % _STEPS_PER_LOOK and basis.beta > 0 and not basis.is_full:
                continue
            is_over = self._look(bar) if basis.num_locked == 0 else self._look_again(bar)
            if is_over:
                found = self._finish()
                if found is not None:
                    return found

    def _look(self, bar: tqdm[Any]) -> bool:
        """First search: lock the wanted pairs if they have converged; restart a full basis."""
        basis, ritz = self.basis, self.basis.ritz()
        if len(ritz.values) < self.num_wanted:
            return False
        wanted = _ends(ritz, self.num_smallest, self.num_largest)
        is_converged = ritz.rests[wanted] <= self._allowed()
        bar.n = int(is_converged.sum())
        bar.refresh()
        if basis.spans_everything:
            basis.restart(ritz, wanted)
            return True
        if is_converged.all():
            basis.lock(ritz, wanted)
            basis.watch(np.array([limit for limit, _, _ in self._limits()]))
            self._save()
        elif basis.is_full:
            self._restart(ritz, self.num_smallest, self.num_largest)
        return False

    def _look_again(self, bar: tqdm[Any]) -> bool:
        """Search beside locked pairs: whether nothing that is wanted can be left."""
        basis, ritz = self.basis, self.basis.ritz()
        is_over = basis.hidden <= _DELTA / math.sqrt(basis.product.dim)
        for end, (limit, index, sign) in enumerate(self._limits()):
            if sign * (ritz.values[index] - limit) > 0:
                basis.unlock()
                return self._look(bar)
            is_over[end] |= ritz.rests[index] <= self._allowed()
        if is_over.all():
            return True
        if basis.is_full:
            self._restart(ritz, min(1, self.num_smallest), min(1, self.num_largest))
        return False

    def _limits(self) -> list[tuple[float, int, int]]:
        """Of each end: a value that only a new pair lies beyond, its Ritz index, the direction."""
        locked, limits = self.basis.projected.diagonal(), []
        if self.num_largest:
            limits.append((locked[self.num_smallest] + self._allowed(), -1, 1))
        if self.num_smallest:
            limits.append((locked[self.num_smallest - 1] - self._allowed(), 0, -1))
        return limits

    def _allowed(self) -> float:
        """Largest estimate of a residual norm that passes."""
        return self.stricter * self.tolerance * self.basis.scale

    def _restart(self, ritz: Ritz, num_smallest: int, num_largest: int) -> None:
        """Keep the wanted ends and, of what lies next to them, as much as pays."""
        num_wanted = num_smallest + num_largest
        spare = int(_KEPT_SHARE * (len(ritz.values) - num_wanted))
        low = round(spare * num_smallest / num_wanted)
        self.basis.restart(ritz, _ends(ritz, num_smallest + low, num_largest + spare - low))
        self._save()

    def _finish(self) -> Eigenpairs | None:
        """Hold the pairs to their true residuals; None if the search has to go on."""
        basis = self.basis
        pairs, residuals = true_pairs(
            basis.product, basis.vectors[: self.num_wanted], self.num_smallest, basis.num_products
        )
        basis.num_products = pairs.num_products
        allowed = self.tolerance * basis.scale
        is_converged = pairs.residual_norms <= allowed
        if is_converged.all():
            return pairs
        self.num_disagreements += 1
        if self.num_disagreements > _MAX_DISAGREEMENTS or basis.spans_everything:
            raise NotConvergedError(
                f"residual norms must be at most {allowed:.1e}, got "
                f"{float(pairs.residual_norms.max()):.1e}, where estimates were smaller: the "
                "products' own rounding is too large; raise the tolerance or compute in float64",
                subset(pairs, is_converged),
            )
        self.stricter *= 0.1
        worst = int(pairs.residual_norms.argmax())
        basis.begin_with(pairs.eigenvectors.T, pairs.eigenvalues.numpy(), residuals[:, worst])
        return None

    def _not_converged(self, reason: str) -> NotConvergedError:
        """Say what is missing, and hand over what there is."""
        basis = self.basis
        if basis.num_locked:
            rows, num_smallest = basis.vectors[: basis.num_locked], self.num_smallest
            missing = "their multiplicities are not certain yet"
        else:
            ritz = basis.ritz()
            wanted = _ends(ritz, self.num_smallest, self.num_largest)
            is_converged = ritz.rests[wanted] <= self._allowed()
            num_smallest = int(is_converged[: self.num_smallest].sum())
            rotation = torch.from_numpy(ritz.coefficients[:, wanted[is_converged]].T.copy())
            rows = rotation.to(basis.vectors) @ basis.vectors[: basis.size]
            missing = f"the largest residual norm left is {ritz.rests[wanted].max():.1e}"
        pairs, _ = true_pairs(basis.product, rows, num_smallest, basis.num_products)
        return NotConvergedError(
            f"{len(rows)} of {self.num_wanted} eigenpairs converged in {basis.num_products} "
            f"products, and {missing}; {reason}",
            subset(pairs, pairs.residual_norms <= self.tolerance * basis.scale),
        )

    def _save(self) -> None:
        if self.state is not None:
            self.state.save()


def _ends(ritz: Ritz, num_smallest: int, num_largest: int) -> NDArray[np.int64]:
    """Indices of the smallest and largest Ritz values, ascending; all if they are too few."""
    size = len(ritz.values)
    first_of_largest = max(size - num_largest, min(num_smallest, size))
    return np.concatenate([np.arange(min(num_smallest, size)), np.arange(first_of_largest, size)])
