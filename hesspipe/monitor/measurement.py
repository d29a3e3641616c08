"""Measure the curvature at the present parameters of a model in training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from hesspipe.curvature.operators import HessianOperator
from hesspipe.linalg.arguments import require_integer, require_number
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.ritz_space import Workspace
from hesspipe.linalg.trace import estimate_norms
from hesspipe.linalg.tracking import Tracking, track_eigenpairs
from hesspipe.monitor.budget import Budget
from hesspipe.monitor.critical import critical_step
from hesspipe.monitor.model_state import ModelState
from hesspipe.monitor.records import Record, finite
from hesspipe.monitor.step_sizes import StepSizes, step_sizes
from hesspipe.objective.determinism import preserved_random_state
from hesspipe.objective.objective import Objective
from hesspipe.objective.streaming import digest
from hesspipe.ranks.orders import lead
from hesspipe.seeding import derive_seed, generator

# At records that verify: probability that an eigenvalue beyond the bounds is missed. A tenth of it
# costs one to two products more.
_MAX_MISSED = 1e-3
# Products that records are expected to take, before there was one of their kind: those that verify
# one end, and those that do not.
_PRODUCTS_OF_VERIFICATION = 20
_PRODUCTS_OF_ESTIMATE = 6


@dataclass(frozen=True)
class Kind:
    """What a record searches for, and whether it verifies what it finds."""

    num_smallest: int
    num_largest: int
    is_verified: bool

    @property
    def name(self) -> str:
        """Name in the state of a monitor."""
        what = "verified" if self.is_verified else "estimated"
        return f"{self.num_smallest} smallest, {self.num_largest} largest, {what}"

    @property
    def ends(self) -> tuple[int, int]:
        """Numbers of smallest and largest eigenvalues."""
        return self.num_smallest, self.num_largest


@dataclass
class Measurement:
    """What is measured, and what the next record starts from; see `Monitor` for the settings."""

    num_smallest: int
    num_largest: int
    tolerance: float
    max_products: int
    verify_every: int
    trace_products: int
    preconditioned: bool
    critical: bool
    seed: int
    num_since_verified: int | None = None
    taken: dict[str, int] = field(default_factory=dict)
    carried: dict[str, Tensor] = field(default_factory=dict)
    critical_step: float = 1.0
    _operator: HessianOperator | None = field(default=None, repr=False)
    _workspace: Workspace = field(default_factory=Workspace, repr=False)

    def __post_init__(self) -> None:
        least = {"num_smallest": 0, "num_largest": 0, "max_products": 1, "verify_every": 1,
                 "trace_products": 0, "seed": 0}  # fmt: skip
        for name, value in least.items():
            setattr(self, name, require_integer(name, getattr(self, name), value))
        self.tolerance = require_number("tolerance", self.tolerance)
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1, got {self.tolerance}")
        if 0 < self.trace_products < 6:
            raise ValueError(f"trace_products must be 0 or at least 6, got {self.trace_products}")

    def require_size(self, size: int) -> None:
        """Raise an error unless there are as many eigenvalues as are asked for."""
        total = self.num_smallest + self.num_largest
        if not 1 <= total <= size:
            raise ValueError(f"num_smallest + num_largest must be 1 to P = {size}, got {total}")

    def kinds(self) -> list[Kind]:
        """Kinds of the next record, from the most complete to the cheapest one.

        The most negative eigenvalues often lie at the edge of a dense bulk, and take many times the
        products of the largest: without time for both, a record is of the largest.
        """
        is_due = self.num_since_verified is None or self.num_since_verified + 1 >= self.verify_every
        whole = Kind(self.num_smallest, self.num_largest, is_due)
        one = replace(whole, num_smallest=0) if whole.num_largest else whole
        return list(dict.fromkeys((whole, one, replace(one, is_verified=False))))

    def expected(self, kinds: Sequence[Kind]) -> dict[str, int]:
        """Products that a record of each kind will take, by the last one of its kind."""
        guesses = {}
        for kind in kinds:
            guess = _PRODUCTS_OF_VERIFICATION if kind.is_verified else _PRODUCTS_OF_ESTIMATE
            guess = self.max_products if all(kind.ends) else guess * max(kind.ends)
            guesses[kind.name] = self.taken.get(kind.name, min(guess, self.max_products))
        return guesses

    def measure(
        self,
        state: ModelState,
        optimizer: Optimizer | None,
        number: int,
        before: Tensor | None,
        budget: Budget,
        kind: Kind,
    ) -> Record:
        """Measure everything that is asked for.

        Parameters
        ----------
        state : ModelState
        optimizer : Optimizer or None
        number : int
            The step.
        before : Tensor, shape (P,), or None
            theta before the last update.
        budget : Budget
            It ends the searches.
        kind : Kind

        Raises
        ------
        ValueError
            If the loss or a product is not finite.
        """
        objective = state.objective()
        operator = self._operator.at(objective) if self._operator else HessianOperator(objective)
        # Without its graphs.
        self._operator = operator.at(objective)
        measure = partial(self._measured, operator, state, optimizer, number, before, budget, kind)
        with preserved_random_state(objective.device), _full_precision():
            if objective.ranks is None:
                return measure()
            with objective.ranks.raise_together("a record of the monitor"):
                theta = digest(objective.theta).hex()
                objective.ranks.agree_on({"the step": number, "the parameters": theta})
                return lead(operator.orders(), "a record", lambda: _numbers_of(measure()))

    def _measured(
        self,
        operator: HessianOperator,
        state: ModelState,
        optimizer: Optimizer | None,
        number: int,
        before: Tensor | None,
        budget: Budget,
        kind: Kind,
    ) -> Record:
        """Measure in this process."""
        is_verified = kind.is_verified
        objective = operator.objective
        loss = operator.loss()
        if not math.isfinite(loss):
            raise ValueError(f"the loss is {loss}")
        sizes = StepSizes(None)
        if optimizer is not None:
            sizes = step_sizes(optimizer, state.parameters(), objective.theta)
        product = _product(operator)
        ends = self._track_ends(product, number, kind, budget)
        if is_verified:
            self.num_since_verified = 0
        elif self.num_since_verified is not None:
            self.num_since_verified += 1
        found = Record(loss, ends, self.tolerance, sizes, ends.pairs.num_products)
        if optimizer is not None:
            self._measure_preconditioned(found, product, number, is_verified, budget)
        if self.critical and before is not None and sizes.step_size:
            self._measure_critical(found, objective, before, sizes.step_size)
        if self.trace_products:
            seed = derive_seed(self.seed, f"trace at step {number}")
            norms = estimate_norms(product, num_products=self.trace_products, seed=seed)
            found.trace, found.trace_error = norms.trace.value, norms.trace.standard_error
            found.num_products += self.trace_products
        self.taken[kind.name] = found.num_products * (2 if budget.was_cut else 1)
        return found

    def _track_ends(
        self, product: SymmetricProduct, number: int, kind: Kind, budget: Budget
    ) -> Tracking:
        """Find the ends of H; what is carried for an end that is not searched stays as it is."""
        names = ["smallest"] * (kind.num_smallest > 0) + ["largest"] * (kind.num_largest > 0)
        parts = [self.carried[name] for name in names if name in self.carried]
        carried = torch.cat(parts) if parts else None
        found = self._track(product, "ends", carried, number, kind.ends, kind.is_verified, budget)
        num_low = kind.num_smallest + 1 if kind.num_smallest else 0
        halves = {"smallest": found.carried[:num_low], "largest": found.carried[num_low:]}
        self.carried |= {name: halves[name] for name in names}
        return found

    def _track(
        self,
        product: SymmetricProduct,
        name: str,
        carried: Tensor | None,
        number: int,
        ends: tuple[int, int],
        is_verified: bool,
        budget: Budget,
    ) -> Tracking:
        """Find ends of a matrix, from where they were at the last record."""
        return track_eigenpairs(
            product,
            *ends,
            carried=carried,
            tolerance=self.tolerance,
            max_products=self.max_products,
            max_missed_probability=_MAX_MISSED if is_verified else 1.0,
            generator=generator(self.seed, f"random vectors at step {number} for {name}"),
            may_go_on=budget.may_go_on,
            workspace=self._workspace,
        )

    def _measure_preconditioned(
        self,
        found: Record,
        product: SymmetricProduct,
        number: int,
        is_verified: bool,
        budget: Budget,
    ) -> None:
        """Find the largest eigenvalue of D H D; without D it is that of H, at no cost."""
        diagonal, ends = found.sizes.diagonal, found.ends
        if diagonal is not None and self.preconditioned:
            scaled, name = _in_metric(product, diagonal), "preconditioned"
            carried = self.carried.get(name)
            ends = self._track(scaled, name, carried, number, (0, 1), is_verified, budget)
            self.carried[name] = ends.carried
            found.num_products += ends.pairs.num_products
        elif diagonal is not None or not found.sizes.is_metric_known or self.num_largest == 0:
            return
        found.preconditioned = float(ends.pairs.eigenvalues[-1])
        found.preconditioned_residual = float(ends.pairs.residual_norms[-1])
        found.preconditioned_bound = finite(ends.error_bounds[-1])

    def _measure_critical(
        self, found: Record, objective: Objective, before: Tensor, step_size: float
    ) -> None:
        """Measure along the update that led to the present parameters."""
        update = objective.theta - before

        @torch.no_grad()
        def loss(step: float) -> float:
            return float(objective.loss(before + step * update))

        if bool(update.any()):
            step = critical_step(loss, self.critical_step)
            if step is not None:
                self.critical_step = step
                found.critical = 2 / (step * step_size)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Suspend the caller's autocast and inference mode."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device_type in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
            stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


def _numbers_of(found: Record) -> Record:
    """Leave out the vectors, which only rank 0 needs."""
    pairs = replace(found.ends.pairs, eigenvectors=found.ends.pairs.eigenvectors[:, :0])
    ends = replace(found.ends, pairs=pairs, carried=found.ends.carried[:0])
    return replace(found, ends=ends, sizes=replace(found.sizes, diagonal=None))


def _product(operator: HessianOperator) -> SymmetricProduct:
    """H as a product: symmetric by construction."""
    size, dtype, device = operator.shape[0], operator.dtype, operator.device
    return SymmetricProduct(operator.__matmul__, size, dtype, device, "hessian")


def _in_metric(product: SymmetricProduct, diagonal: Tensor) -> SymmetricProduct:
    """D H D as a product."""

    def multiply(vector: Tensor) -> Tensor:
        return diagonal * product.multiply(diagonal * vector)

    return replace(product, multiply=multiply)
