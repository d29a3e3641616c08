"""Measure the curvature at the present parameters of a model in training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from hesspipe.curvature.operators import HessianOperator
from hesspipe.linalg.arguments import require_integer, require_number
from hesspipe.linalg.operator import SymmetricProduct
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
# Products that such a record is expected to take, before there was one.
_PRODUCTS_OF_VERIFICATION = 20


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
    verification_products: int = _PRODUCTS_OF_VERIFICATION
    carried: dict[str, Tensor] = field(default_factory=dict)
    critical_step: float = 1.0

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

    @property
    def least_products(self) -> int:
        """Products of a record that nothing can cut short."""
        return max(1, sum(len(vectors) for vectors in self.carried.values()))

    def measure(
        self,
        state: ModelState,
        optimizer: Optimizer | None,
        number: int,
        before: Tensor | None,
        budget: Budget,
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

        Raises
        ------
        ValueError
            If the loss or a product is not finite.
        """
        objective = state.objective()
        operator = HessianOperator(objective)
        measure = partial(self._measured, operator, state, optimizer, number, before, budget)
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
    ) -> Record:
        """Measure in this process."""
        is_verified = self._is_verified(budget)
        objective = operator.objective
        with torch.no_grad():
            loss = float(objective.loss(objective.theta))
        if not math.isfinite(loss):
            raise ValueError(f"the loss is {loss}")
        sizes = StepSizes(None)
        if optimizer is not None:
            sizes = step_sizes(optimizer, state.parameters(), objective.theta)
        product = _product(operator)
        wanted = (self.num_smallest, self.num_largest)
        ends = self._track(product, "ends", number, wanted, is_verified, budget)
        found = Record(loss, ends, sizes, ends.pairs.num_products)
        if is_verified:
            self.verification_products = ends.pairs.num_products
        if optimizer is not None:
            self._measure_preconditioned(found, product, number, is_verified, budget)
        if self.critical and before is not None and sizes.step_size:
            self._measure_critical(found, objective, before, sizes.step_size)
        if self.trace_products:
            seed = derive_seed(self.seed, f"trace at step {number}")
            norms = estimate_norms(product, num_products=self.trace_products, seed=seed)
            found.trace, found.trace_error = norms.trace.value, norms.trace.standard_error
            found.num_products += self.trace_products
        return found

    def _is_verified(self, budget: Budget) -> bool:
        """Tell whether this record verifies, and count it."""
        is_first = self.num_since_verified is None
        is_due = is_first or (self.num_since_verified or 0) + 1 >= self.verify_every
        cost = budget.seconds_of(self.verification_products)
        is_verified = is_due and (is_first or cost <= budget.saved)
        self.num_since_verified = 0 if is_verified else (self.num_since_verified or 0) + 1
        return is_verified

    def _track(
        self,
        product: SymmetricProduct,
        name: str,
        number: int,
        ends: tuple[int, int],
        is_verified: bool,
        budget: Budget,
    ) -> Tracking:
        """Find ends of a matrix, from where they were at the last record."""
        found = track_eigenpairs(
            product,
            *ends,
            carried=self.carried.get(name),
            tolerance=self.tolerance,
            max_products=self.max_products,
            max_missed_probability=_MAX_MISSED if is_verified else 1.0,
            generator=generator(self.seed, f"random vectors at step {number} for {name}"),
            may_go_on=budget.may_go_on,
        )
        self.carried[name] = found.carried
        return found

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
            scaled = _in_metric(product, diagonal)
            ends = self._track(scaled, "preconditioned", number, (0, 1), is_verified, budget)
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
