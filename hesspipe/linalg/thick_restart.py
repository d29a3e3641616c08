"""The search for extreme eigenpairs, until all have converged and none can be missing.

Thick-restart Lanczos finds the wanted pairs at both ends from one Krylov space. Such a space
contains only one eigenvector of each multiple eigenvalue. The converged pairs are therefore locked,
and a second search starts from a random vector orthogonal to them. If it finds a value beyond a
wanted one, the locked pairs are unlocked and the search continues with all of them. It is complete
when, at each end,

    the extreme pair of the second search has converged and does not lie beyond the wanted ones, or
    a further wanted eigenvector would have appeared with probability at least 1 - 1e-4, over the
    random start vector (`hesspipe.linalg.krylov`).

The second search is the shorter, the farther the values that remain lie from the wanted ones. The
next Ritz vectors are therefore locked, too, though they have not converged, as far as the bound on
what they hide allows (`hesspipe.linalg.krylov`). If the second search then finds something, they
are set free.

The pairs of largest magnitude, the dominant ones, are divided among the ends anew at every look.
The second search then watches both ends, at plus and minus the smallest magnitude found.

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
from torch import Tensor
from tqdm import tqdm

from hesspipe.errors import NotConvergedError
from hesspipe.linalg.krylov import KrylovBasis, Ritz
from hesspipe.linalg.ritz import (
    Eigenpairs,
    confirmed_pairs,
    pairs_of_orthonormal,
    subset,
    true_pairs,
)
from hesspipe.linalg.search_state import SearchState

# Probability that a random start hides a wanted eigenvalue from the second criterion.
_DELTA = 1e-4
# Estimated residual norms must be below this multiple of the tolerance for the true ones.
_STRICTER = 0.3
# Share of the unwanted Ritz vectors that a restart keeps; see benchmarks/eigenpairs.md.
_KEPT_SHARE = 0.5
# Steps between two computations of the Ritz values, each an eigenproblem of the basis size; fewer
# where the last two looks foretell convergence.
_STEPS_PER_LOOK = 5
# Share of the largest gain that the fewest additional locked vectors must have.
_GAIN_SHARE = 0.9
# Times that true residuals may exceed their estimates, by rounding of the products.
_MAX_DISAGREEMENTS = 3


@dataclass
class PairSearch:
    """One search; see the module docstring, and `hesspipe.eigenpairs` for the fields."""

    basis: KrylovBasis
    num_smallest: int
    num_largest: int
    tolerance: float
    max_products: int
    state: SearchState | None = None
    num_dominant: int = 0
    num_disagreements: int = 0
    stricter: float = _STRICTER
    next_look: int = _STEPS_PER_LOOK
    last_look: tuple[int, float] | None = None

    @property
    def num_wanted(self) -> int:
        """Number of wanted pairs, at both ends."""
        return self.num_smallest + self.num_largest

    def run(self, bar: tqdm[Any]) -> Eigenpairs:
        """Search until all pairs are found, or max_products is reached."""
        basis = self.basis
        known = min(basis.num_locked, self.num_wanted)  # of a resumed search
        self._divide(basis.projected.diagonal()[:known])
        while True:
            if basis.num_products >= self.max_products:
                raise self._not_converged("max_products is reached; raise it, or basis_size")
            basis.extend()
            if not self._is_time_to_look():
                continue
            is_over = self._look(bar) if basis.num_locked == 0 else self._look_again(bar)
            if basis.num_steps == 0:
                self.last_look, self.next_look = None, _STEPS_PER_LOOK
            if is_over:
                found = self._finish()
                if found is not None:
                    return found

    def _is_time_to_look(self) -> bool:
        basis = self.basis
        if basis.num_steps >= self.next_look or basis.beta == 0 or basis.is_full:
            return True
        return basis.num_locked > 0 and bool((basis.hidden <= self._unseen()).all())

    def _unseen(self) -> float:
        """Component that a random start has of any given vector, but for a probability of 1e-4."""
        return _DELTA / math.sqrt(self.basis.product.dim)

    def _plan(self, worst: float) -> None:
        """Choose the next look, by how fast the worst residual has fallen since the last one."""
        step, factor = self.basis.num_steps, math.inf
        if self._allowed() > 0 and worst > 0:
            factor = math.log(worst / self._allowed())
        ahead = float(_STEPS_PER_LOOK)
        if self.last_look is not None and step > self.last_look[0] and factor < self.last_look[1]:
            before, earlier = self.last_look
            ahead = factor * (step - before) / (earlier - factor)
        self.next_look = step + int(min(max(ahead, 1.0), _STEPS_PER_LOOK))
        self.last_look = step, factor

    def _look(self, bar: tqdm[Any]) -> bool:
        """Check the first search: lock converged pairs, restart a full basis."""
        basis, ritz = self.basis, self.basis.ritz()
        if len(ritz.values) < self.num_wanted:
            self.next_look = basis.num_steps + _STEPS_PER_LOOK
            return False
        self._divide(ritz.values)
        wanted = _ends(ritz, self.num_smallest, self.num_largest)
        is_converged = ritz.rests[wanted] <= self._allowed()
        bar.n = int(is_converged.sum())
        worst = float(ritz.rests[wanted].max())
        self._plan(worst)
        bar.set_postfix_str(_approach(worst, self._allowed(), basis.num_products))
        if basis.spans_everything:
            basis.restart(ritz, wanted)
            return True
        if is_converged.all():
            self._lock(ritz, wanted)
        elif basis.is_full:
            self._restart(ritz, self.num_smallest, self.num_largest)
        return False

    def _lock(self, ritz: Ritz, wanted: NDArray[np.int64]) -> None:
        """Lock the wanted pairs and some of the next, and watch for what they may hide."""
        basis, more = self.basis, self._more_to_lock(ritz, wanted)
        basis.lock(ritz, np.concatenate([wanted, more]))
        values, rests = ritz.values[more], ritz.rests[more]
        # What they may hide beyond the limit of each end, moved to where the search looks for it.
        points = [
            limit - sign * float((rests**2 / np.abs(limit - values)).sum())
            for limit, _, sign in self._limits(ritz.values[wanted])
        ]
        basis.watch(np.array(points))
        self._save()

    def _more_to_lock(self, ritz: Ritz, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Choose Ritz vectors beside the wanted ones, at the watched ends.

        Without the first m of them, the next value is farther from the limit, and the bound is the
        smaller at a limit that has to be moved towards it.
        """
        size, most = len(ritz.values), (self.basis.capacity - self.num_wanted) // 8
        inner = np.arange(self.num_smallest, size - self.num_largest)
        most = min(most, self.num_wanted, len(inner) // 3)
        if most <= 0 or self._allowed() == 0:
            return inner[:0]
        chosen = []
        for limit, _, sign in self._limits(ritz.values[wanted]):
            order = inner[::-1] if sign > 0 else inner
            distances = sign * (limit - ritz.values[order[: most + 1]])  # (most + 1,)
            hidden = np.cumsum(ritz.rests[order[:most]] ** 2 / distances[:most])
            gains = distances - np.concatenate([[0.0], hidden])
            number = int(np.argmax(gains >= _GAIN_SHARE * gains.max()))
            chosen.append(order[:number])
        return np.concatenate(chosen)

    def _look_again(self, bar: tqdm[Any]) -> bool:
        """Check the second search: return whether no wanted pair can be missing."""
        basis, ritz = self.basis, self.basis.ritz()
        self.next_look = basis.num_steps + _STEPS_PER_LOOK
        bar.set_postfix_str(f"looking for more of them, {basis.num_products} products")
        limits = self._limits(basis.projected.diagonal())
        more = basis.couplings[self.num_wanted : basis.num_locked]
        has_more = bool((np.abs(more) > self._allowed()).any())
        beyond = [sign * (ritz.values - limit) > 0 for limit, _, sign in limits]
        if np.any(beyond):
            if has_more:
                chosen = ritz.coefficients[:, np.any(beyond, axis=0)]
                basis.unlock_some(self.num_wanted, chosen.sum(axis=1))
                return False
            basis.unlock()
            return self._look(bar)
        is_over = basis.hidden <= self._unseen()
        for end, (_, index, sign) in enumerate(limits):
            if has_more and sign * (ritz.values[index] - basis.watched[end]) > 0:
                basis.lock_fewer(self.num_wanted)
                basis.watch(np.array([limit for limit, _, _ in limits]))
                self._save()
                return False
            is_over[end] |= ritz.rests[index] <= self._allowed()
        if is_over.all():
            return True
        if basis.is_full:
            ends = (1, 1) if self.num_dominant else (self.num_smallest, self.num_largest)
            self._restart(ritz, min(1, ends[0]), min(1, ends[1]))
        return False

    def _limits(self, locked: NDArray[np.float64]) -> list[tuple[float, int, int]]:
        """Return for each end: a limit that only new pairs exceed, a Ritz index, a direction."""
        limits = []
        if self.num_dominant:
            least = float(np.abs(locked[: self.num_wanted]).min()) + self._allowed()
            return [(least, -1, 1), (-least, 0, -1)]
        if self.num_largest:
            limits.append((locked[self.num_smallest] + self._allowed(), -1, 1))
        if self.num_smallest:
            limits.append((locked[self.num_smallest - 1] - self._allowed(), 0, -1))
        return limits

    def _divide(self, values: NDArray[np.float64]) -> None:
        """Divide the dominant pairs among the ends, by the signs of ascending Ritz values."""
        if self.num_dominant and len(values):
            dominant = values[np.argsort(np.abs(values))[-self.num_dominant :]]
            self.num_smallest = int((dominant < 0).sum())
            self.num_largest = self.num_dominant - self.num_smallest

    def _allowed(self) -> float:
        """Largest estimated residual norm that counts as converged."""
        return self.stricter * self.tolerance * self.basis.scale

    def _restart(self, ritz: Ritz, num_smallest: int, num_largest: int) -> None:
        """Restart with the wanted Ritz vectors and a share of those next to them."""
        num_wanted = num_smallest + num_largest
        spare = int(_KEPT_SHARE * (len(ritz.values) - num_wanted))
        low = spare // 2 if self.num_dominant else round(spare * num_smallest / num_wanted)
        self.basis.restart(ritz, _ends(ritz, num_smallest + low, num_largest + spare - low))
        self._save()

    def _finish(self) -> Eigenpairs | None:
        """Compare the true residuals with the tolerance; None if the search must continue."""
        basis, allowed = self.basis, self.tolerance * self.basis.scale
        columns = basis.give(self.num_wanted)
        if (confirmed := self._confirmed(columns, allowed)) is not None:
            return confirmed
        pairs, residuals = pairs_of_orthonormal(
            basis.product, columns, self.num_smallest, basis.num_products
        )
        basis.num_products = pairs.num_products
        # The same space has the same Ritz values, unless the products change.
        known = torch.from_numpy(np.sort(basis.projected.diagonal()[: self.num_wanted]))
        errors = torch.maximum(pairs.residual_norms, (pairs.eigenvalues - known).abs())
        is_converged = errors <= allowed
        if is_converged.all():
            return pairs
        self.num_disagreements += 1
        if self.num_disagreements > _MAX_DISAGREEMENTS or basis.spans_everything:
            unit = basis.scaling.unit
            worst_norm = float(errors.max()) * unit
            raise NotConvergedError(
                f"residual norms must be at most {allowed * unit:.1e}, got {worst_norm:.1e}, "
                "where estimates were smaller: the rounding of the products is too large; raise "
                "the tolerance or compute in float64",
                subset(pairs, is_converged),
            )
        self.stricter *= 0.1
        worst = int(errors.argmax())
        basis.begin_with(pairs.eigenvectors.T, pairs.eigenvalues.numpy(), residuals[:, worst])
        return None

    def _confirmed(self, columns: Tensor, allowed: float) -> Eigenpairs | None:
        """Confirm what the search knows of the residuals, if it does."""
        basis, count = self.basis, self.num_wanted
        if len(basis.couplings) < count:
            return None
        values = torch.from_numpy(basis.projected.diagonal()[:count].copy())
        couplings = torch.from_numpy(basis.couplings[:count])
        pairs, basis.num_products = confirmed_pairs(
            basis.product, columns, (values, couplings, basis.rest[0]), self.num_smallest,
            basis.num_products, allowed,
        )  # fmt: skip
        return pairs

    def _not_converged(self, reason: str) -> NotConvergedError:
        """Build the error, with the pairs that did converge."""
        basis = self.basis
        if basis.num_locked:
            rows, num_smallest = basis.vectors[: self.num_wanted], self.num_smallest
            missing = "their multiplicities are not certain yet"
        else:
            ritz = basis.ritz()
            self._divide(ritz.values)
            wanted = _ends(ritz, self.num_smallest, self.num_largest)
            is_converged = ritz.rests[wanted] <= self._allowed()
            num_smallest = int(is_converged[: self.num_smallest].sum())
            rotation = torch.from_numpy(ritz.coefficients[:, wanted[is_converged]].T.copy())
            rows = rotation.to(basis.vectors) @ basis.vectors[: basis.size]  # (k, P)
            left = ritz.rests[wanted].max() * basis.scaling.unit
            missing = f"the largest residual norm left is {left:.1e}"
        pairs, _ = true_pairs(basis.product, rows, num_smallest, basis.num_products)
        return NotConvergedError(
            f"{len(rows)} of {self.num_wanted} eigenpairs converged in {basis.num_products} "
            f"products, and {missing}; {reason}",
            subset(pairs, pairs.residual_norms <= self.tolerance * basis.scale),
        )

    def _save(self) -> None:
        if self.state is not None:
            self.state.save()


def _approach(worst: float, allowed: float, num_products: int) -> str:
    """Describe how far a search is, for its progress bar.

    Examples
    --------
    >>> _approach(2345.6, 1.0, 70)
    'residuals to fall by 2.3e+03, 70 products'
    """
    if worst <= allowed:
        return f"residuals small enough, {num_products} products"
    factor = worst / allowed if allowed > 0 else math.inf  # of a matrix of zeros
    return f"residuals to fall by {factor:.1e}, {num_products} products"


def _ends(ritz: Ritz, num_smallest: int, num_largest: int) -> NDArray[np.int64]:
    """Return the indices of the smallest and largest Ritz values, ascending; at most all."""
    size = len(ritz.values)
    first_of_largest = max(size - num_largest, min(num_smallest, size))
    return np.concatenate([np.arange(min(num_smallest, size)), np.arange(first_of_largest, size)])
